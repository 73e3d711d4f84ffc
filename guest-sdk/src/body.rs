//! Reading a body as text or JSON, alike for requests and responses.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The body as text; what is not UTF-8 becomes U+FFFD.
pub(crate) fn text(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body)
}

/// The body as JSON of a known shape.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body)
}

/// One value in a JSON body.
pub(crate) fn pointer(body: &[u8], pointer: &str) -> Option<Value> {
    let mut value: Value = json(body).ok()?;
    value.pointer_mut(pointer).map(Value::take)
}
