//! Header fields on their way through: which ones end here, and how keys are written.

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Carries the message's id.
pub const MESSAGE_ID: HeaderName = HeaderName::from_static("backstop-message-id");
/// Carries the number of the attempt, from 1.
pub const ATTEMPT: HeaderName = HeaderName::from_static("backstop-attempt");
/// Carries the idempotency key, as a structured field.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the host alone may say: fields with this prefix are dropped, whether a caller or a vendor sent them.
pub const OWN_PREFIX: &str = "backstop-";

/// Whether a field concerns one connection only (RFC 9110 §7.6.1), or a proxy's own authentication (§11.7).
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "proxy-connection"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
    )
}

/// The fields meant for the other end: `headers` without the hop-by-hop ones and those that `Connection` names.
///
/// `Host` and `Content-Length` are left, as they mean something to whoever reads a message; whoever writes one sets its
/// own.
pub fn end_to_end(headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    without(headers, |name| is_hop_by_hop(name) || named.contains(name))
}

/// `headers` without those that the host alone may set.
pub fn without_own(headers: HeaderMap) -> HeaderMap {
    without(headers, |name| name.as_str().starts_with(OWN_PREFIX))
}

/// `headers` without those that `goes` names. Nearly always there are none, and looking each field over once costs far
/// less than looking every such name up.
fn without(mut headers: HeaderMap, goes: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let going: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in going {
        headers.remove(name);
    }
    headers
}

/// An idempotency key as its field's value: a structured-field string (RFC 9651 §3.3.3), quoted.
///
/// Such a string holds printable ASCII only. A key with anything else becomes a display string (§3.3.8), which is
/// percent-encoded UTF-8, so that two keys never look alike.
pub fn key_value(key: &str) -> Option<HeaderValue> {
    let mut text = String::with_capacity(key.len() + 8);
    if key.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        text.push('"');
        for character in key.chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
    } else {
        text.push_str("%\"");
        for byte in key.bytes() {
            if matches!(byte, b' '..=b'~') && !matches!(byte, b'%' | b'"') {
                text.push(char::from(byte));
            } else {
                text.push('%');
                text.extend([byte >> 4, byte & 15].iter().filter_map(|digit| char::from_digit((*digit).into(), 16)));
            }
        }
    }
    text.push('"');
    // Only printable ASCII was written, which every field value may hold.
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let fields = map(&[
            ("connection", "close, X-Hop"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("x-hop", "1"),
            ("x-end", "2"),
            ("content-length", "3"),
        ]);
        assert_eq!(end_to_end(fields), map(&[("x-end", "2"), ("content-length", "3")]));
    }

    #[test]
    fn every_connection_field_is_read_and_nonsense_in_it_skipped() {
        let mut fields = HeaderMap::new();
        fields.append(CONNECTION, HeaderValue::from_static("a ,,"));
        fields.append(CONNECTION, HeaderValue::from_bytes(b"\xff, B").unwrap());
        fields.append("a", HeaderValue::from_static("1"));
        fields.append("b", HeaderValue::from_static("2"));
        fields.append("c", HeaderValue::from_static("3"));
        assert_eq!(end_to_end(fields), map(&[("c", "3")]));
    }

    #[test]
    fn repeated_values_stay_in_order() {
        let mut fields = HeaderMap::new();
        fields.append("x", HeaderValue::from_static("1"));
        fields.append("x", HeaderValue::from_static("2"));
        assert_eq!(end_to_end(fields).get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn keys_are_quoted_and_escaped() {
        assert_eq!(key_value("order-1").unwrap(), r#""order-1""#);
        assert_eq!(key_value("").unwrap(), r#""""#);
        assert_eq!(key_value(r#"a"b\c%"#).unwrap(), r#""a\"b\\c%""#);
        assert_eq!(key_value("für 100%").unwrap(), r#"%"f%c3%bcr 100%25""#);
        assert_eq!(key_value("a\nb").unwrap(), r#"%"a%0ab""#);
    }

    proptest! {
        #[test]
        fn two_keys_never_look_alike(one in any::<String>(), other in any::<String>()) {
            prop_assert_eq!(key_value(&one).unwrap() == key_value(&other).unwrap(), one == other);
        }
    }
}
