//! CloudEvents 1.0 over HTTP: reading what a producer published, matching it to routes, checking its data against a
//! schema, and writing it as the request that is delivered.
//!
//! A producer may publish in any of the three content modes of the HTTP binding (v1.0.2 §3): *binary*, an event in the
//! header fields with its data as the body; *structured*, an event as a JSON document; *batched*, a JSON array of them.
//! Deliveries are binary, whatever mode an event came in: its data is then the body that a policy and a destination
//! see.
//!
//! Everything read is checked before anything is stored, so that an [`Event`] is one: its attributes are named and
//! written as CloudEvents says, and within bounds. What is not an event is refused with a [`BadEvent`], and of a batch
//! everything is. Refused, too: formats other than JSON, JSON whose objects name a member twice (its readers would
//! disagree about it), and nesting deeper than [`MAX_DEPTH`].

pub mod matching;
pub mod profile;
pub mod schema;

mod attributes;
mod batch;
mod binary;
mod json;
mod percent;
mod refusal;
mod structured;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, header};

pub use attributes::{MAX_ATTRIBUTES, MAX_ATTRIBUTES_SIZE, MAX_NAME, MAX_VALUE, Time, Value};
pub use batch::MAX_EVENTS;
pub use json::MAX_DEPTH;
pub(crate) use percent::octets as percent_octets;
pub use refusal::BadEvent;

/// The one version of CloudEvents that is spoken.
pub const SPECVERSION: &str = "1.0";

/// The extension attribute that tells one publish of an event from another: every delivery carries it, and the same
/// event published twice has two. A producer's own one is replaced.
pub const MESSAGE_UID: &str = "messageuid";

/// What structured mode's media type begins with, and batched mode's, in any case of letters.
const STRUCTURED: &str = "application/cloudevents";
const BATCHED: &str = "application/cloudevents-batch";

/// An event: its attributes, and its data.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// Never empty. With `source` it says which event this is.
    id: String,
    /// A URI-reference; never empty.
    source: String,
    /// The attribute `type`; never empty.
    kind: String,
    /// All others that it has, but for `specversion`: by name.
    others: BTreeMap<String, Value>,
    /// No data and empty data are the same.
    data: Option<Bytes>,
}

impl std::fmt::Debug for Event {
    /// Without its data and its extensions, which may be anybody's secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = self.data.as_ref().map_or(0, Bytes::len);
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("source", &self.source)
            .field("type", &self.kind)
            .field("data", &format_args!("{size} bytes"))
            .finish_non_exhaustive()
    }
}

impl Event {
    /// The attribute `id`. Producers see to it that `source` and `id` together name one event.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The attribute `source`: a URI-reference.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The attribute `type`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The media type of the data. Known for data that came as JSON in a structured event, even if that did not say.
    pub fn datacontenttype(&self) -> Option<&str> {
        match self.others.get("datacontenttype") {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The data, as its producer wrote it; none when there is none, or nothing in it.
    pub fn data(&self) -> Option<&Bytes> {
        self.data.as_ref()
    }

    /// An attribute beside the four that every event has.
    pub fn other(&self, name: &str) -> Option<&Value> {
        self.others.get(name)
    }

    /// Every attribute by name, `specversion` included, and its value as text.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, std::borrow::Cow<'_, str>)> {
        let required =
            [("id", &*self.id), ("source", &self.source), ("specversion", SPECVERSION), ("type", &self.kind)];
        let required = required.into_iter().map(|(name, value)| (name, value.into()));
        required.chain(self.others.iter().map(|(name, value)| (name.as_str(), value.text())))
    }
}

/// Reads what was published: one event, or those of a batch, in their order.
///
/// The `Content-Type` says in which mode: one that begins with `application/cloudevents-batch` batched, with
/// `application/cloudevents` structured, any other (or none) binary, if there is a `ce-specversion`.
///
/// # Errors
/// The first thing that is wrong. Of a batch, nothing is taken then.
pub fn read(headers: &HeaderMap, body: &Bytes) -> Result<Vec<Event>, BadEvent> {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str());
    let kind = match kind {
        Some(Ok(kind)) => Some(kind.trim()),
        Some(Err(_)) => return Err(BadEvent::at("content-type", "has characters outside of ASCII")),
        None => None,
    };
    let begins = |prefix: &str| {
        kind.and_then(|kind| kind.get(..prefix.len())).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    // The batch's name goes on where the other one's ends.
    if begins(BATCHED) {
        json::media_type(kind.unwrap_or_default(), "application/cloudevents-batch+json")?;
        return batch::read(body);
    }
    if begins(STRUCTURED) {
        json::media_type(kind.unwrap_or_default(), "application/cloudevents+json")?;
        return structured::read(body).map(|event| vec![event]);
    }
    if headers.contains_key("ce-specversion") {
        return binary::read(headers, kind, body).map(|event| vec![event]);
    }
    Err(BadEvent::whole(
        "this is no CloudEvent: send its attributes as header fields with `ce-specversion: 1.0` among them (binary \
         mode), or as JSON with `Content-Type: application/cloudevents+json` (structured mode) or \
         `application/cloudevents-batch+json` (a batch)",
    ))
}
