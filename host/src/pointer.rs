//! JSON pointers (RFC 6901): naming one value within a document, and reading it without making a copy of the rest.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A pointer to something within a document; never to the whole of it. As text each step begins with `/`; `~0` stands
/// for `~` in it, and `~1` for `/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pointer(Vec<String>);

/// A text that is no pointer to something within a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no JSON pointer (RFC 6901): each step begins with /, such as /order/id; `~0` stands for ~, `~1` for /")]
pub struct BadPointer;

impl Pointer {
    /// To this member of an object.
    pub fn to_member(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// The string, number or truth that it leads to in a JSON `document`, as text; none when there is nothing of the kind
    /// there, or that is no JSON. What leads elsewhere is passed over, and not kept: time goes by the document's length.
    pub fn scalar_in(&self, document: &[u8]) -> Option<String> {
        let mut reader = serde_json::Deserializer::from_slice(document);
        let found = At(&self.0).deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        found
    }
}

impl FromStr for Pointer {
    type Err = BadPointer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let steps = text.strip_prefix('/').ok_or(BadPointer)?.split('/').map(|step| {
            let is_escaped = step.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
            is_escaped.then(|| step.replace("~1", "/").replace("~0", "~")).ok_or(BadPointer)
        });
        steps.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

/// Reads the value that these steps of a JSON pointer lead to.
struct At<'s>(&'s [String]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl At<'_> {
    /// What a scalar comes to: the key, if the steps end here.
    fn scalar<T: fmt::Display, E>(&self, scalar: T) -> Result<Option<String>, E> {
        Ok(self.0.is_empty().then(|| scalar.to_string()))
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        self.scalar(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        self.scalar(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        self.scalar(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        self.scalar(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        self.scalar(value)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let (index, rest) = match self.0.split_first() {
            Some((step, rest)) => (array_index(step), rest),
            None => (None, self.0),
        };
        for _ in 0..index.unwrap_or(0) {
            if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = match index {
            Some(_) => items.next_element_seed(At(rest))?.flatten(),
            None => None,
        };
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            match self.0.split_first() {
                // Of members by the same name the last one counts, as in most readers.
                Some((step, rest)) if *step == name => found = members.next_value_seed(At(rest))?,
                _ => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        Ok(found)
    }
}

/// An index as RFC 6901 has it: without leading zeros. `-`, the element after the last, is never there.
fn array_index(step: &str) -> Option<usize> {
    let is_plain = step == "0" || !step.starts_with(['0', '+']);
    step.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointer(text: &str) -> Pointer {
        text.parse().unwrap()
    }

    #[test]
    fn a_pointer_reads_and_shows_the_same() {
        for text in ["/", "/a", "/a~1b/~0c/0", "/a~1b/~0c//~01"] {
            assert_eq!(pointer(text).to_string(), text);
        }
        assert_eq!(pointer("/a~1b/~0c//~01").0, ["a/b", "~c", "", "~1"]);
        for wrong in ["", "a", "/~2", "/~"] {
            assert_eq!(wrong.parse::<Pointer>(), Err(BadPointer), "{wrong}");
        }
    }

    proptest! {
        /// serde_json's own pointers read the same, where both have an answer.
        #[test]
        fn pointers_lead_where_others_say(steps in proptest::collection::vec("[a-c]|[0-3]|[~/]", 0..4)) {
            let document = serde_json::json!({
                "a": { "b": [1, "two", { "c": false, "0": "zero" }], "~": "tilde", "/": { "a": "deep" } },
                "b": [["x"], { "a": 1.5 }],
                "0": "at zero",
                "c": null,
            });
            let pointer = Pointer(steps);
            let expected = document.pointer(&pointer.to_string()).and_then(|value| match value {
                serde_json::Value::String(text) => Some(text.clone()),
                serde_json::Value::Number(number) => Some(number.to_string()),
                serde_json::Value::Bool(truth) => Some(truth.to_string()),
                _ => None,
            });
            prop_assert_eq!(pointer.scalar_in(document.to_string().as_bytes()), expected);
        }

        #[test]
        fn no_bytes_break_it(body in proptest::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
            pointer("/a").scalar_in(&body);
            Pointer(Vec::new()).scalar_in(text.as_bytes());
            let _ = text.parse::<Pointer>();
        }
    }
}
