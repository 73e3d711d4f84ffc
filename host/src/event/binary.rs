//! Binary mode: attributes in header fields, data as the body (CloudEvents HTTP binding v1.0.2 §3.1). Both ways: what
//! a producer publishes, and what is delivered.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use uuid::Uuid;

use super::attributes::{Collected, Value};
use super::{BadEvent, Event, MESSAGE_UID, percent};
use crate::message::Request;

const PREFIX: &str = "ce-";

/// Reads one event; `kind` is the `Content-Type`.
pub(super) fn read(headers: &HeaderMap, kind: Option<&str>, body: &Bytes) -> Result<Event, BadEvent> {
    let mut attributes = Collected::default();
    for (field, value) in headers {
        let Some(name) = field.as_str().strip_prefix(PREFIX) else { continue };
        let place = || field.as_str().to_owned();
        if name == "datacontenttype" {
            return Err(BadEvent::at(place(), "is said by `Content-Type`: send that instead"));
        }
        if name == "data" {
            return Err(BadEvent::at(place(), "is no attribute: send the data as the body"));
        }
        let Some(text) = percent::decoded(value.as_bytes()) else {
            return Err(BadEvent::at(place(), "is no UTF-8 once it is percent-decoded: encode UTF-8"));
        };
        attributes.add(place, name, Value::String(text))?;
    }
    if let Some(kind) = kind.filter(|kind| !kind.is_empty()) {
        let value = Value::String(kind.to_owned());
        attributes.add(|| "content-type".to_owned(), "datacontenttype", value)?;
    }
    attributes.event(|name| format!("{PREFIX}{name}"), Some(body.clone()))
}

impl Event {
    /// The request that delivers the event to a destination's own URL, by POST in binary mode. `uid` is this publish's,
    /// and travels as [`MESSAGE_UID`].
    pub fn into_request(self, uid: Uuid) -> Request {
        let mut headers = HeaderMap::new();
        for (name, value) in self.attributes() {
            match name {
                MESSAGE_UID => {}
                "datacontenttype" => {
                    // A media type is visible ASCII, and was checked to be.
                    headers.extend(HeaderValue::from_str(&value).map(|value| (header::CONTENT_TYPE, value)));
                }
                name => headers.extend(field(name, &value)),
            }
        }
        headers.extend(field(MESSAGE_UID, &uid.to_string()));
        Request { method: Method::POST, path: String::new(), headers, body: self.data.unwrap_or_default() }
    }
}

/// An attribute's field. There is always one: a name is of a-z and 0-9, and an encoded value of visible ASCII.
fn field(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::try_from(format!("{PREFIX}{name}")).ok()?;
    Some((name, HeaderValue::try_from(percent::encoded(value)).ok()?))
}
