//! Strict JSON: no object names a member twice, nothing is nested deeper than a bound, and values keep their bytes.
//!
//! RFC 8259 §4 leaves open what two members of one name mean, so that two readers may see two documents in one text:
//! this host when it checks, and a destination when it acts.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::refusal::BadEvent;

/// How deep JSON may be nested: arrays and objects within each other.
pub const MAX_DEPTH: usize = 64;

/// Refuses a media type of CloudEvents other than `known`, and text that is not UTF-8.
pub(super) fn media_type(written: &str, known: &str) -> Result<(), BadEvent> {
    let (kind, parameters) = written.split_once(';').unwrap_or((written, ""));
    if !kind.trim().eq_ignore_ascii_case(known) {
        let detail = format!("names a format that is not spoken here: send `{known}`");
        return Err(BadEvent::at("content-type", detail));
    }
    let charset = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    match charset {
        Some(charset) if !charset.eq_ignore_ascii_case("utf-8") => {
            Err(BadEvent::at("content-type", "names another charset: JSON is UTF-8 (RFC 8259 §8.1)"))
        }
        _ => Ok(()),
    }
}

/// The members of an object in their order, their values unread.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event: a JSON object with its attributes and `data`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let (mut all, mut seen) = (Vec::new(), HashSet::new());
                while let Some((Name(name), value)) = members.next_entry::<Name<'de>, &RawValue>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(twice(&name)));
                    }
                    all.push((name, value));
                }
                Ok(Members(all))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The values of an array, unread; at most `self` of them.
pub(super) struct AtMost(pub(super) usize);

impl<'de> DeserializeSeed<'de> for AtMost {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtMost {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch: a JSON array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            if all.len() == self.0 {
                return Err(A::Error::custom(format!("more than {} events in one batch: send several", self.0)));
            }
            all.push(item);
        }
        Ok(all)
    }
}

/// A member's name, borrowed where it holds no escape.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Refuses what is no JSON, names a member twice or is nested too deep.
///
/// # Errors
/// What is wrong with it and where, without quoting it.
pub(super) fn strictly(text: &[u8]) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    Strict { depth: 0 }.deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| words(&error))
}

/// What the parser says, for people: it quotes nothing but the names of members.
pub(super) fn words(error: &serde_json::Error) -> String {
    // It says `invalid type: string "…"` of a value in the wrong place.
    let text = error.to_string();
    match text.rsplit_once("expected ") {
        Some((_, expected)) if text.starts_with("invalid ") => format!("expected {expected}"),
        _ => text,
    }
}

fn twice(name: &str) -> String {
    const SHOWN: usize = 64;
    let shown: String = name.chars().take(SHOWN).collect();
    format!("the member `{}` is there twice: write it once", shown.escape_debug())
}

/// Reads a value and keeps nothing of it.
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(&self) -> Result<usize, E> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH { Err(E::custom(format!("nested deeper than {MAX_DEPTH}"))) } else { Ok(depth) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        while items.next_element_seed(Strict { depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(Name(name)) = members.next_key::<Name<'de>>()? {
            if seen.contains(&name) {
                return Err(A::Error::custom(twice(&name)));
            }
            seen.insert(name);
            members.next_value_seed(Strict { depth })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_named_twice_is_refused_however_deep_and_however_written() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#] {
            assert!(strictly(text.as_bytes()).unwrap_err().contains("`a` is there twice"), "{text}");
        }
        assert_eq!(strictly(br#"[{"a":1},{"a":[1.5,-2,null,true,"x"]}]"#), Ok(()));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(strictly(nested(MAX_DEPTH).as_bytes()), Ok(()));
        assert!(strictly(nested(MAX_DEPTH + 1).as_bytes()).unwrap_err().contains("nested deeper than 64"));
        assert!(strictly("[".repeat(1_000_000).as_bytes()).is_err());
    }
}
