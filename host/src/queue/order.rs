//! Orders: which of a route's messages are delivered one after the other. Here is only read what a message says it
//! belongs to; that nobody overtakes is the store's to see to.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, header};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};

use crate::config::OrderKey;
use crate::event::percent_octets;
use crate::message::Request;

/// The longest key that is kept as it is, in bytes: of a longer one its SHA-256 is.
const LONGEST: usize = 255;

/// The order that `request` belongs to, at most 255 bytes; none when it does not say. Reads the body once where it must,
/// without making a copy of it: time goes by its length.
pub(super) fn key_of(key: &OrderKey, request: &Request) -> Option<String> {
    let found = match key {
        OrderKey::Header(name) => request.headers.get(name)?.as_bytes().to_vec(),
        OrderKey::Json(steps) => scalar_at(&request.body, steps)?.into_bytes(),
        OrderKey::CloudEvent(attribute) => event_attribute(&request.headers, &request.body, attribute)?,
    };
    match String::from_utf8(found) {
        Ok(text) if text.is_empty() => None,
        Ok(text) if text.len() <= LONGEST => Some(text),
        Ok(text) => Some(digest(text.as_bytes())),
        Err(bytes) => Some(digest(bytes.as_bytes())),
    }
}

/// Whether reading the key takes time that others on the same thread should not wait for.
pub(super) fn takes_long(key: &OrderKey, request: &Request) -> bool {
    const QUICK: usize = 64 << 10;
    request.body.len() > QUICK && !matches!(key, OrderKey::Header(_))
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// An attribute of a CloudEvent: a header field in binary mode, percent-decoded; a member of the body in structured
/// mode.
fn event_attribute(headers: &HeaderMap, body: &Bytes, attribute: &str) -> Option<Vec<u8>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_structured = kind.get(..28).is_some_and(|kind| kind.eq_ignore_ascii_case("application/cloudevents+json"));
    if is_structured {
        return scalar_at(body, &[attribute.to_owned()]).map(String::into_bytes);
    }
    headers.get(format!("ce-{attribute}")).map(|value| percent_octets(value.as_bytes()))
}

/// The string, number or truth at the end of `steps` in a JSON document, as text; none when there is nothing of the
/// kind there, or it is no JSON. What leads elsewhere is passed over, and not kept.
fn scalar_at(body: &[u8], steps: &[String]) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let found = At(steps).deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    found
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
    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::config::Unit as _;

    fn found(key: &str, fields: &[(&'static str, &str)], body: &str) -> Option<String> {
        let headers = fields.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let request = Request {
            method: Method::POST,
            path: String::new(),
            headers: headers.collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        key_of(&OrderKey::from_text(key).unwrap(), &request)
    }

    #[test]
    fn a_key_is_read_from_where_the_route_says() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(found("header:x-key", &[("x-key", "a b")], ""), some("a b"));
        assert_eq!(found("header:x-key", &[], ""), None, "without the key, it is in no order");
        let body = r#" {"order": {"id": 7, "ids": ["x", {"y": true}], "a/b": "slash", "n": null}, "order2": 1} "#;
        for (pointer, expected) in [
            ("/order/id", Some("7")),
            ("/order/ids/0", Some("x")),
            ("/order/ids/1/y", Some("true")),
            ("/order/a~1b", Some("slash")),
            ("/order/ids/00", None),
            ("/order/ids/-", None),
            ("/order/ids/2", None),
            ("/order", None),
            ("/order/n", None),
            ("/order/id/more", None),
            ("/missing", None),
        ] {
            assert_eq!(found(&format!("json:{pointer}"), &[], body).as_deref(), expected, "{pointer}");
        }
        assert_eq!(found("json:/a", &[], r#"{"a": 1} and more"#), None, "that is no JSON");
        assert_eq!(found("ce:subject", &[("ce-subject", "K%C3%B6ln%20100%")], ""), some("Köln 100%"));
        let structured = [("content-type", "application/cloudevents+json; charset=utf-8"), ("ce-subject", "no")];
        assert_eq!(found("ce:subject", &structured, r#"{"subject": "yes"}"#), some("yes"));
    }

    #[test]
    fn a_key_that_is_long_or_no_text_is_known_by_its_digest() {
        let long = "k".repeat(256);
        let key = found("header:x-key", &[("x-key", &long)], "").unwrap();
        assert_eq!(key.len(), 64);
        assert_eq!(found("header:x-key", &[("x-key", &long[1..])], "").unwrap().len(), 255);
        let bytes = found("ce:subject", &[("ce-subject", "%ff")], "").unwrap();
        assert_eq!(bytes.len(), 64);
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
            let pointer: String =
                steps.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect();
            let expected = document.pointer(&pointer).and_then(|value| match value {
                serde_json::Value::String(text) => Some(text.clone()),
                serde_json::Value::Number(number) => Some(number.to_string()),
                serde_json::Value::Bool(truth) => Some(truth.to_string()),
                _ => None,
            });
            prop_assert_eq!(scalar_at(document.to_string().as_bytes(), &steps), expected);
        }

        #[test]
        fn no_bytes_break_it(body in proptest::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
            scalar_at(&body, &["a".to_owned()]);
            scalar_at(text.as_bytes(), &[]);
            percent_octets(&body);
        }
    }
}
