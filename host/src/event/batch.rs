//! Batched mode: several events in one JSON array (CloudEvents JSON format v1.0.2 §4). All of them are read, or none.

use bytes::Bytes;
use serde::de::DeserializeSeed;

use super::json::AtMost;
use super::{BadEvent, Event, structured};

/// The most events in one batch.
pub const MAX_EVENTS: usize = 1000;

/// Reads the events in their order. There may be none.
pub(super) fn read(body: &Bytes) -> Result<Vec<Event>, BadEvent> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parts = AtMost(MAX_EVENTS).deserialize(&mut reader).and_then(|parts| reader.end().map(|()| parts));
    let parts = parts.map_err(|error| BadEvent::whole(structured::not_json(&error)))?;
    let events = parts.into_iter().enumerate();
    events
        .map(|(index, part)| structured::read_part(part, body).map_err(|bad| bad.within(&format!("/{index}"))))
        .collect()
}
