//! Reading a message before its first attempt.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Admission, Message, attribute, body, interest};

impl Message {
    /// A field of the request's header, asked of the host. Never `authorization`, `proxy-authorization` or `cookie`.
    pub fn header(&self, name: &str) -> Option<String> {
        attribute(&format!("header:{}", name.to_ascii_lowercase()))
    }

    /// The body, as far as the policy's interest goes.
    pub fn body(&self) -> &[u8] {
        if self.body.is_empty() {
            interest::missed_request();
        }
        &self.body
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

    /// One text in a JSON body, by its JSON Pointer (RFC 6901), such as `/order/id`: the fastest way to it.
    /// `None` if nothing is there, or no text.
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

    /// One value in a JSON body, by its JSON Pointer (RFC 6901). `None` as well for a body that is not JSON. To
    /// tell the two apart, ask [`json_pointer`](crate::json_pointer).
    pub fn json_pointer(&self, pointer: &str) -> Option<Value> {
        body::json_pointer(self.body(), pointer).ok()?
    }
}

impl Admission {
    /// Forget the message, for this reason.
    pub fn drop(reason: impl Into<String>) -> Self {
        Self::Drop(reason.into())
    }

    /// Put it aside for a person, for this reason.
    pub fn dead_letter(reason: impl Into<String>) -> Self {
        Self::DeadLetter(reason.into())
    }
}
