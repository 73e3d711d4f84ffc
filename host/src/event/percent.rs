//! Percent-encoding of attributes in header fields (CloudEvents HTTP binding v1.0.2 §3.1.3.2).

use std::fmt::Write;

/// The text as a header field's value: what is not visible ASCII is encoded octet by octet, and so are `"` and `%`.
pub(super) fn encoded(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_graphic() && !matches!(octet, b'"' | b'%') {
            value.push(char::from(octet));
        } else {
            // Writing to a string never fails.
            let _ = write!(value, "%{octet:02X}");
        }
    }
    value
}

/// The text that a header field's value stands for: a quoted string (RFC 9110 §5.6.4) is unquoted, then every encoded
/// octet decoded, once. A `%` that begins no such triple stands for itself. None when that is no UTF-8.
pub(super) fn decoded(value: &[u8]) -> Option<String> {
    let unquoted = unquoted(value);
    String::from_utf8(octets(unquoted.as_deref().unwrap_or(value))).ok()
}

/// The octets that a percent-encoded text stands for. A `%` that begins no such triple stands for itself.
pub(crate) fn octets(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octet = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(octet.unwrap_or(first));
        rest = if octet.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The inside of a value that is one quoted string.
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(inner.len());
    let mut octets = inner.iter();
    while let Some(&octet) = octets.next() {
        match octet {
            b'\\' => text.push(*octets.next()?),
            // The string ended before the value does.
            b'"' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_binding_names_is_encoded_and_nothing_else() {
        // The examples of the binding itself.
        assert_eq!(encoded("Euro \u{20ac} \u{1f600}"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encoded("a\"b%c"), "a%22b%25c");
        assert_eq!(encoded("/orders?x=1&y=[2]'~"), "/orders?x=1&y=[2]'~");
    }

    #[test]
    fn a_value_is_decoded_once() {
        assert_eq!(decoded(b"a%2520b").as_deref(), Some("a%20b"));
        assert_eq!(decoded(b"100%").as_deref(), Some("100%"));
        assert_eq!(decoded(b"%zz%4").as_deref(), Some("%zz%4"));
        assert_eq!(decoded("\u{20ac}".as_bytes()).as_deref(), Some("\u{20ac}"));
    }

    #[test]
    fn a_quoted_string_is_unquoted_first() {
        assert_eq!(decoded(br#""a \"b\" %41 \\""#).as_deref(), Some(r#"a "b" A \"#));
        assert_eq!(decoded(br#""a"b""#).as_deref(), Some(r#""a"b""#), "two strings are none");
        assert_eq!(decoded(b"\"").as_deref(), Some("\""));
    }

    #[test]
    fn what_is_no_utf8_is_nothing() {
        for bad in ["%C0%A0", "%FF", "%ED%A0%80"] {
            assert_eq!(decoded(bad.as_bytes()), None, "{bad}");
        }
    }
}
