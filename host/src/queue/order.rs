//! Orders: which of a route's messages are delivered one after the other. Here is only read what a message says it
//! belongs to; that nobody overtakes is the store's to see to.

use bytes::Bytes;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::config::OrderKey;
use crate::event::percent_octets;
use crate::message::Request;
use crate::pointer::Pointer;

/// The longest key that is kept as it is, in bytes: of a longer one its SHA-256 is.
const LONGEST: usize = 255;

/// The order that `request` belongs to, at most 255 bytes; none when it does not say. Reads the body once where it must,
/// without making a copy of it: time goes by its length.
pub(super) fn key_of(key: &OrderKey, request: &Request) -> Option<String> {
    let found = match key {
        OrderKey::Header(name) => request.headers.get(name)?.as_bytes().to_vec(),
        OrderKey::Json(pointer) => pointer.scalar_in(&request.body)?.into_bytes(),
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
        return Pointer::to_member(attribute).scalar_in(body).map(String::into_bytes);
    }
    headers.get(format!("ce-{attribute}")).map(|value| percent_octets(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::Method;

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
}
