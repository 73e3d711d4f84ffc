//! Reading a body as text or JSON, alike for requests and responses.

mod block;
mod scan;

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;

pub(crate) use block::{position, same};

/// The body as text; what is not UTF-8 becomes U+FFFD.
pub(crate) fn text(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body)
}

/// The body as JSON of a known shape.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body)
}

/// One text in a JSON body, by its JSON Pointer (RFC 6901); `None` if nothing is there, or no text.
///
/// The body is read up to that text and no further, and what the way leads past is not checked: see
/// [`Outcome::json_text`](crate::Outcome::json_text).
pub fn json_text<'a>(body: &'a [u8], pointer: &str) -> Option<Cow<'a, str>> {
    scan::text(scan::find(body, pointer)?)
}

/// The value of a known shape in a JSON body that `pointer` leads to.
pub(crate) fn json_at<'a, T: Deserialize<'a>>(body: &'a [u8], pointer: &str) -> Option<T> {
    serde_json::from_slice(scan::find(body, pointer)?).ok()
}

/// One value in a JSON body, by its JSON Pointer (RFC 6901); `None` if nothing is there.
///
/// The body is read to its end, and is JSON if there is no error. Whoever wants no more than a text or a number reads
/// it ten times faster with [`Outcome::json_text`](crate::Outcome::json_text) or
/// [`Outcome::json_at`](crate::Outcome::json_at).
///
/// Only that value is kept. Whoever sends a body chooses what its tree of values takes: `[0,0,0,…` takes forty times its
/// length in memory, and five times the fuel of this.
///
/// ```
/// use backstop_sdk::json_pointer;
/// let body = br#"{ "error": { "code": 17 } }"#;
/// assert_eq!(json_pointer(body, "/error/code").unwrap(), Some(17.into()));
/// assert_eq!(json_pointer(body, "/error/text").unwrap(), None);
/// assert!(json_pointer(b"<html>", "/error/code").is_err());
/// ```
///
/// # Errors
/// When the body is not JSON (an empty body and a truncated one are not).
pub fn json_pointer(body: &[u8], pointer: &str) -> Result<Option<Value>, serde_json::Error> {
    let steps = match pointer.strip_prefix('/') {
        Some(rest) => Some(rest),
        None if pointer.is_empty() => None,
        // No pointer at all: nothing is there.
        None => return json::<IgnoredAny>(body).map(|_| None),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let found = At { steps }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

/// Looks for what lies `steps` further down; `None` is here.
#[derive(Clone, Copy)]
struct At<'p> {
    steps: Option<&'p str>,
}

impl<'p> At<'p> {
    /// The next step, unescaped, and where it leads.
    fn descend(steps: &'p str) -> (Cow<'p, str>, Self) {
        let (step, further) = match steps.split_once('/') {
            Some((step, further)) => (step, Some(further)),
            None => (steps, None),
        };
        let step = if step.contains('~') { step.replace("~1", "/").replace("~0", "~").into() } else { step.into() };
        (step, Self { steps: further })
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        match self.steps {
            None => serde::Deserialize::deserialize(deserializer).map(Some),
            Some(steps) => deserializer.deserialize_any(Below { steps }),
        }
    }
}

/// Goes one step down, if there is a way; a value that has nothing below it is passed over.
struct Below<'p> {
    steps: &'p str,
}

impl<'de> Visitor<'de> for Below<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let (step, further) = At::descend(self.steps);
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(Key(&step))? {
            if is_it {
                // The last of several equal keys is the one that counts, as for a tree of values.
                found = map.next_value_seed(further)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Value>, A::Error> {
        let (step, further) = At::descend(self.steps);
        let is_index = step.bytes().all(|byte| byte.is_ascii_digit()) && (step.len() == 1 || !step.starts_with('0'));
        if let Some(index) = step.parse::<usize>().ok().filter(|_| is_index) {
            for _ in 0..index {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(None);
                }
            }
            let found = seq.next_element_seed(further)?.flatten();
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(found);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }
}

/// Whether a key is this one, without keeping it.
struct Key<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// JSON of every shape, with keys that pointers find hard.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a~/é\"]{0,3}".prop_map(Value::from),
        ];
        let key = prop_oneof![Just("a".to_owned()), Just("0".to_owned()), "[ab~/01]{0,3}"];
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_pointer_finds_what_it_would_find_in_a_tree(value in any_json(), path in "(/(a|b|0|1|2|01|~0|~1|))*|a|~") {
            let found = json_pointer(value.to_string().as_bytes(), &path).unwrap();
            prop_assert_eq!(found.as_ref(), value.pointer(&path));
        }

        #[test]
        fn what_is_no_json_is_an_error_wherever_the_pointer_leads(body in prop::collection::vec(any::<u8>(), 0..16)) {
            let is_json = json::<Value>(&body).is_ok();
            for path in ["", "/a", "a"] {
                prop_assert_eq!(json_pointer(&body, path).is_ok(), is_json);
            }
        }
    }

    #[test]
    fn a_cut_short_body_is_no_json_even_if_the_value_came_before_the_cut() {
        assert!(json_pointer(br#"{"id": 7, "rest": ["#, "/id").is_err());
        assert!(json_pointer(br#"[7, 8"#, "/0").is_err());
        assert!(json_pointer(br#"{"id": 7} {"#, "/id").is_err());
    }

    #[test]
    fn of_two_equal_keys_the_last_counts() {
        assert_eq!(json_pointer(br#"{"a":{"b":1},"a":{"c":2}}"#, "/a/b").ok(), Some(None));
    }
}
