//! Attributes: their names, their values, and the rules that CloudEvents 1.0.2 has for them (§3).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::refusal::BadEvent;
use super::{Event, SPECVERSION};

/// The longest attribute name, in characters. CloudEvents asks producers for at most 20.
pub const MAX_NAME: usize = 64;
/// The most attributes that an event has, the required four counted in.
pub const MAX_ATTRIBUTES: usize = 64;
/// The longest value of an attribute, in bytes.
pub const MAX_VALUE: usize = 8 << 10;
/// The most that the values of an event's attributes come to, in bytes.
pub const MAX_ATTRIBUTES_SIZE: usize = 32 << 10;

/// The value of an attribute.
///
/// A header field tells no types apart, so that in binary mode every extension is a [`Value::String`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Text without control characters.
    String(String),
    /// `true` or `false`, as structured mode writes it.
    Boolean(bool),
    /// A whole number of 32 bits, as structured mode writes it.
    Integer(i32),
    /// The attribute `time`.
    Time(Time),
}

impl Value {
    /// Its canonical text (CloudEvents 1.0.2 §3.2), as a header field carries it.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::String(text) => text.into(),
            Self::Boolean(truth) => truth.to_string().into(),
            Self::Integer(number) => number.to_string().into(),
            Self::Time(time) => (&*time.written).into(),
        }
    }
}

/// A point in time, and how its producer wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Time {
    written: String,
    at: jiff::Timestamp,
}

impl Time {
    /// Reads an RFC 3339 `date-time`: no less than that, and none of what other notations allow. A leap second is
    /// the second before it.
    fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked(19)?;
        let shape = date.bytes().zip(*b"dddd-dd-ddTdd:dd:dd").all(|(octet, shape)| match shape {
            b'd' => octet.is_ascii_digit(),
            b'T' => matches!(octet, b'T' | b't'),
            other => octet == other,
        });
        let zone = match rest.strip_prefix('.') {
            Some(fraction) => {
                let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
                (zone.len() < fraction.len()).then_some(zone)?
            }
            None => rest,
        };
        let is_offset = |zone: &str| {
            zone.len() == 6
                && zone.bytes().zip(*b"+dd:dd").all(|(octet, shape)| match shape {
                    b'd' => octet.is_ascii_digit(),
                    b'+' => matches!(octet, b'+' | b'-'),
                    other => octet == other,
                })
        };
        if !shape || !(matches!(zone, "Z" | "z") || is_offset(zone)) {
            return None;
        }
        // More digits than nanoseconds are legal, and more than the parser takes.
        let fraction: String = rest.chars().take(10).take_while(|c| *c == '.' || c.is_ascii_digit()).collect();
        let at = format!("{date}{fraction}{zone}").to_ascii_uppercase().parse().ok()?;
        Some(Self { written: text.to_owned(), at })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// When that is.
    pub const fn at(&self) -> jiff::Timestamp {
        self.at
    }
}

/// Reads the text of an RFC 3339 `date-time`.
pub(super) fn timestamp(text: &str) -> Option<jiff::Timestamp> {
    Time::parse(text).map(|time| time.at)
}

/// Whether an attribute may be called so: a-z and 0-9 only, so that every protocol can carry it.
pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The attributes of an event that is being read.
#[derive(Default)]
pub(super) struct Collected {
    values: BTreeMap<String, Value>,
    size: usize,
}

impl Collected {
    /// Takes in one attribute, which stands at `place`.
    ///
    /// # Errors
    /// When the attribute breaks a rule, or there are too many.
    pub(super) fn add(&mut self, place: impl Fn() -> String, name: &str, value: Value) -> Result<(), BadEvent> {
        let bad = |detail: Cow<'static, str>| Err(BadEvent::at(place(), detail));
        if !is_name(name) {
            return bad(format!(
                "is no attribute's name: write 1 to {MAX_NAME} of a-z and 0-9, and the event's data in `data`"
            )
            .into());
        }
        let value = match checked(name, value) {
            Ok(value) => value,
            Err(detail) => return bad(detail),
        };
        let length = value.text().len();
        if length > MAX_VALUE {
            return bad(format!("is longer than {MAX_VALUE} bytes: carry it in the event's data").into());
        }
        self.size += length;
        if self.values.insert(name.to_owned(), value).is_some() {
            return bad("is there twice: send it once".into());
        }
        if self.values.len() > MAX_ATTRIBUTES {
            return bad(format!("is one attribute too many: an event has at most {MAX_ATTRIBUTES}").into());
        }
        if self.size > MAX_ATTRIBUTES_SIZE {
            let all = format!("makes the attributes longer than {MAX_ATTRIBUTES_SIZE} bytes in all");
            return bad(format!("{all}: carry what is long in the event's data").into());
        }
        Ok(())
    }

    /// The value of a text attribute that is there.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The event with these attributes and `data`; `place` is where an attribute would stand.
    ///
    /// # Errors
    /// When a required attribute is missing, or the version is another one.
    pub(super) fn event(mut self, place: impl Fn(&str) -> String, data: Option<Bytes>) -> Result<Event, BadEvent> {
        let mut required = |name: &str, example: &str| match self.values.remove(name) {
            Some(value) => Ok(value.text().into_owned()),
            None => Err(BadEvent::at(place(name), format!("is missing, and every event has one: write {example}"))),
        };
        if required("specversion", "`1.0`")? != SPECVERSION {
            return Err(BadEvent::at(place("specversion"), "is a version that is not spoken here: send `1.0`"));
        }
        let id = required("id", "what tells the event from all others of its source")?;
        let source = required("source", "a URI-reference such as `/orders`")?;
        let kind = required("type", "a name such as `com.example.order.created`")?;
        Ok(Event { id, source, kind, others: self.values, data: data.filter(|data| !data.is_empty()) })
    }
}

/// The value as the attribute `name` may have it.
fn checked(name: &str, value: Value) -> Result<Value, Cow<'static, str>> {
    let is_known = matches!(
        name,
        "id" | "source" | "specversion" | "type" | "datacontenttype" | "dataschema" | "subject" | "time"
    );
    let Value::String(text) = value else {
        return if is_known { Err("is no text: write it in quotation marks".into()) } else { Ok(value) };
    };
    // CloudEvents 1.0.2 §3.2: what no receiver could show or carry.
    if text.chars().any(|c| c.is_control() || is_noncharacter(c)) {
        return Err("holds a control character: leave it out".into());
    }
    if is_known && text.is_empty() {
        return Err("is empty: write something, or leave out what need not be there".into());
    }
    match name {
        "source" if !is_uri_reference(&text) => {
            Err("is no URI-reference (RFC 3986): write one such as `/orders` or `urn:example:orders`".into())
        }
        "dataschema" if !(is_uri_reference(&text) && scheme(&text).is_some()) => {
            Err("is no absolute URI (RFC 3986): write one such as `https://example.com/order.json`".into())
        }
        "datacontenttype" if !is_media_type(&text) => {
            Err("is no media type (RFC 2046): write one such as `application/json`".into())
        }
        "datacontenttype" if text.get(..23).is_some_and(|kind| kind.eq_ignore_ascii_case(super::STRUCTURED)) => {
            // In binary mode it would say that the body is the event.
            Err("says that the data is an event: publish that one instead, or as `application/json`".into())
        }
        "time" => Time::parse(&text)
            .map(Value::Time)
            .ok_or_else(|| "is no date and time of RFC 3339: write one such as `2024-05-01T12:00:00Z`".into()),
        _ => Ok(Value::String(text)),
    }
}

/// The code points that Unicode leaves to nobody.
fn is_noncharacter(c: char) -> bool {
    let point = u32::from(c);
    (0xFDD0..=0xFDEF).contains(&point) || point & 0xFFFE == 0xFFFE
}

/// Whether the text is of the characters that a URI-reference has, its percent-encoding whole, and its scheme, if it
/// has one, a scheme. What the parts mean is the scheme's to say.
fn is_uri_reference(text: &str) -> bool {
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let fits = match octet {
            b'%' => [octets.next(), octets.next()].iter().flatten().filter(|b| b.is_ascii_hexdigit()).count() == 2,
            _ => octet.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(&octet),
        };
        if !fits {
            return false;
        }
    }
    // Before any `/`, `?` or `#`, a colon ends a scheme (RFC 3986 §4.2).
    let start = text.split(['/', '?', '#']).next().unwrap_or_default();
    !start.contains(':') || scheme(text).is_some()
}

fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let first_fits = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let all_fit = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    (first_fits && all_fit).then_some(scheme)
}

/// Whether the text is `type/subtype`, and perhaps parameters, in visible ASCII and spaces.
fn is_media_type(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let (kind, parameters) = text.split_once(';').unwrap_or((text, "x=y"));
    let whole = kind.trim_end().split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    whole && parameters.contains('=') && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) && !text.ends_with(' ')
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_what_rfc_3339_calls_a_date_time() {
        for right in [
            "2024-05-01T12:00:00Z",
            "2024-05-01t12:00:00.5z",
            "2024-05-01T12:00:00.123456789012+05:30",
            "2016-12-31T23:59:60Z",
            "2024-05-01T12:00:00-00:00",
        ] {
            assert_eq!(Time::parse(right).map(|time| time.to_string()).as_deref(), Some(right));
        }
        for wrong in [
            "2024-05-01",
            "2024-05-01 12:00:00Z",
            "2024-05-01T12:00:00",
            "2024-05-01T12:00Z",
            "20240501T120000Z",
            "2024-05-01T12:00:00.Z",
            "2024-05-01T12:00:00+0530",
            "2024-05-01T12:00:00Z[UTC]",
            "2024-02-30T12:00:00Z",
            "1714564800",
            "",
            "2024-05-01T12:00:00\u{20ac}",
        ] {
            assert_eq!(Time::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_source_is_a_uri_reference() {
        for right in
            ["/orders", "orders", "urn:example:orders", "https://example.com/a?b=c#d", "//host/x", "a/b:c", "%20"]
        {
            assert!(is_uri_reference(right), "{right}");
        }
        for wrong in ["two words", "a\"b", "%zz", "%2", "1:b", ":b", "caf\u{e9}", "<x>"] {
            assert!(!is_uri_reference(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_media_type_has_two_parts() {
        for right in ["application/json", "text/plain; charset=utf-8", "application/vnd.x+json;a=\"b c\""] {
            assert!(is_media_type(right), "{right}");
        }
        for wrong in ["json", "a/b/c", "text/", "text/plain;", "text /plain", "t\u{e9}xt/plain"] {
            assert!(!is_media_type(wrong), "{wrong}");
        }
    }
}
