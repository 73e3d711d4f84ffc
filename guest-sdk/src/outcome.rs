//! Reading an outcome.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Attempt, Fault, Outcome, Response, body, interest};

impl Outcome {
    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.response().map(|response| response.status)
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        matches!(self.status(), Some(200..=299))
    }

    /// Why there was no answer, if there was none.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Silence(fault) => Some(*fault),
            Self::Response(_) => None,
        }
    }

    /// The answer, if there was one.
    pub fn response(&self) -> Option<&Response> {
        match self {
            Self::Response(response) => Some(response),
            Self::Silence(_) => None,
        }
    }

    /// The first header field of that name, which the policy's interest must name. Case does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        let response = self.response()?;
        let found = Fields(response.headers.as_deref()).find_map(|line| value(line, name));
        if found.is_none() {
            interest::missed_header(name);
        }
        found
    }

    /// Every header field of that name, in the order received.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.header(name).and_then(|_| self.response()?.headers.as_deref());
        Fields(lines).filter_map(move |line| value(line, name))
    }

    /// The body, as far as the policy's interest goes; empty for silence.
    pub fn body(&self) -> &[u8] {
        match self.response() {
            Some(response) => {
                if response.body.is_none() {
                    interest::missed_body();
                }
                response.body.as_deref().unwrap_or_default()
            }
            None => &[],
        }
    }

    /// Whether the body was longer than [`body`](Self::body): as JSON it is then cut short.
    pub fn is_truncated(&self) -> bool {
        self.response().is_some_and(|response| response.truncated)
    }

    /// The body as text; what is not UTF-8 becomes U+FFFD.
    pub fn body_text(&self) -> Cow<'_, str> {
        body::text(self.body())
    }

    /// The body as JSON of a known shape.
    ///
    /// # Errors
    /// When it is not JSON (an empty body and a truncated one are not), or of another shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        body::json(self.body())
    }

    /// The body as JSON of any shape, if it is JSON. As a tree it may take forty times its length in memory, and
    /// 450 units of fuel a byte: for more than a few kilobytes, prefer [`json`](Self::json) or [`json_pointer`](Self::json_pointer).
    pub fn json_value(&self) -> Option<Value> {
        self.json().ok()
    }

    /// One text in a JSON body, by its JSON Pointer (RFC 6901), such as `/Response/Error/Code`: the fastest way to an
    /// error code. `None` if nothing is there, or no text.
    ///
    /// The body is read up to that text and no further, so the text is found even if the body is cut short after it; of
    /// equal keys the first counts. What the way leads past is not checked: `None` may mean that the body is no JSON at
    /// all. Where that matters, ask [`json_pointer`](crate::json_pointer) or [`json`](Self::json).
    pub fn json_text(&self, pointer: &str) -> Option<Cow<'_, str>> {
        body::json_text(self.body(), pointer)
    }

    /// One value of a known shape in a JSON body, such as `json_at::<i64>("/code")`, read as
    /// [`json_text`](Self::json_text) reads a text. `None` as well if the value has another shape.
    pub fn json_at<'a, T: Deserialize<'a>>(&'a self, pointer: &str) -> Option<T> {
        body::json_at(self.body(), pointer)
    }

    /// One value in a JSON body, by its JSON Pointer (RFC 6901), such as `/Response/Error/Code`; the empty pointer is
    /// the whole. `None` as well for a body that is not JSON. Keeps nothing but that value, however large the body is,
    /// but reads it anew each time.
    pub fn json_pointer(&self, pointer: &str) -> Option<Value> {
        body::json_pointer(self.body(), pointer).ok()?
    }
}

/// Header fields as the contract passes them: a line for each.
struct Fields<'a>(Option<&'a str>);

impl<'a> Iterator for Fields<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let lines = self.0?;
        let (line, rest) = lines.split_at_checked(body::position(lines.as_bytes(), b'\n')?)?;
        self.0 = rest.get(1..);
        Some(line)
    }
}

/// The value of a field, if it is the one of that name.
fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (field, rest) = line.split_at_checked(name.len())?;
    // The names passed are in lower case, as are nearly all that policies write.
    rest.strip_prefix(": ")
        .filter(|_| body::same(field.as_bytes(), name.as_bytes()) || field.eq_ignore_ascii_case(name))
}

impl Attempt {
    /// Whether the route allows no further attempt after this one.
    pub fn is_last(&self) -> bool {
        self.number >= self.of
    }
}

impl Fault {
    /// Every fault, in the order in which an attempt may meet them.
    pub const ALL: [Self; 7] =
        [Self::Resolve, Self::Connect, Self::Tls, Self::Timeout, Self::Reset, Self::Protocol, Self::Credentials];

    /// Its name in configurations and reasons.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Credentials => "credentials",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test::{response, silence};

    #[test]
    fn a_header_field_is_found_whatever_its_case_and_however_often_it_was_sent() {
        let outcome: Outcome = response(200).header("X-Code", "1").header("Other", "-").header("x-code", "2").into();
        assert_eq!(outcome.header("x-CODE"), Some("1"));
        assert_eq!(outcome.headers("X-Code").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(outcome.header("absent"), None);
        assert_eq!(outcome.header("x"), None, "a name's beginning is another name");
        assert_eq!(Outcome::from(response(200).header("a", "")).header("a"), Some(""));
    }

    #[test]
    fn a_pointer_finds_one_value_and_nothing_in_what_is_not_json() {
        let outcome: Outcome = response(200).json(json!({ "Response": { "Error": { "Code": "Busy" } } })).into();
        assert_eq!(outcome.json_pointer("/Response/Error/Code"), Some(json!("Busy")));
        assert_eq!(outcome.json_pointer("/Response/Nothing"), None);
        assert_eq!(Outcome::from(response(200).body("<html>")).json_pointer(""), None);
    }

    #[test]
    fn silence_has_a_fault_and_nothing_else() {
        let outcome = silence(Fault::Timeout);
        assert_eq!(outcome.fault(), Some(Fault::Timeout));
        assert_eq!((outcome.status(), outcome.header("a"), outcome.body()), (None, None, &[][..]));
        assert!(outcome.json_value().is_none() && !outcome.is_success());
    }

    #[test]
    fn bytes_that_are_not_text_do_no_harm() {
        let outcome: Outcome = response(200).body(b"ma\xffint".as_slice()).into();
        assert_eq!(outcome.body_text(), "ma\u{fffd}int");
    }
}
