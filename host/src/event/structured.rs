//! Structured mode: an event as a JSON document (CloudEvents JSON format v1.0.2).
//!
//! Data that is JSON keeps the bytes it was written in. A member that is `null` is one that is not there (§2.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::attributes::{Collected, Value};
use super::json::{self, Members};
use super::{BadEvent, Event};

/// What data is that does not say (§3.1).
const JSON: &str = "application/json";

/// Reads one event.
pub(super) fn read(body: &Bytes) -> Result<Event, BadEvent> {
    let members: Members<'_> = serde_json::from_slice(body).map_err(|error| BadEvent::whole(not_json(&error)))?;
    event(members, body)
}

/// Reads one event of a batch, whose text is part of `body`.
pub(super) fn read_part(part: &RawValue, body: &Bytes) -> Result<Event, BadEvent> {
    let members: Members<'_> = serde_json::from_str(part.get())
        .map_err(|error| BadEvent::whole(format!(" is no event: {}", json::words(&error))))?;
    event(members, body)
}

pub(super) fn not_json(error: &serde_json::Error) -> String {
    format!("the body is not what its Content-Type says: {}", json::words(error))
}

fn event(members: Members<'_>, body: &Bytes) -> Result<Event, BadEvent> {
    let mut attributes = Collected::default();
    let (mut data, mut encoded) = (None, None);
    for (name, value) in members.0 {
        match &*name {
            _ if value.get() == "null" => {}
            "data" => data = Some(value),
            "data_base64" => encoded = Some(value),
            name => {
                let place = || pointer(name);
                attributes.add(place, name, attribute(value).map_err(|detail| BadEvent::at(place(), detail))?)?;
            }
        }
    }
    let data = match (data, encoded) {
        (Some(_), Some(_)) => {
            return Err(BadEvent::at("/data_base64", "is there beside `data`: write the data once, in one of them"));
        }
        (Some(data), None) => Some(plain(data, &mut attributes, body).map_err(|detail| BadEvent::at("/data", detail))?),
        (None, Some(encoded)) => Some(binary(encoded).map_err(|detail| BadEvent::at("/data_base64", detail))?),
        (None, None) => None,
    };
    attributes.event(pointer, data)
}

/// The JSON pointer to a member of the event.
fn pointer(name: &str) -> String {
    let shown: String = name.chars().take(super::MAX_NAME).collect();
    format!("/{}", shown.replace('~', "~0").replace('/', "~1").escape_debug())
}

/// An attribute's value, of one of the types that JSON writes (§2.2).
fn attribute(value: &RawValue) -> Result<Value, String> {
    match serde_json::from_str(value.get()) {
        Ok(serde_json::Value::String(text)) => Ok(Value::String(text)),
        Ok(serde_json::Value::Bool(truth)) => Ok(Value::Boolean(truth)),
        Ok(serde_json::Value::Number(number)) => {
            number.as_i64().and_then(|number| i32::try_from(number).ok()).map(Value::Integer).ok_or_else(|| {
                "is no whole number of 32 bits: write another one as text, in quotation marks".to_owned()
            })
        }
        // Too deep for the parser is deep all the same.
        Ok(_) | Err(_) => Err("is no text, whole number, true or false: carry anything else in `data`".to_owned()),
    }
}

/// What stands in `data`: the value itself where the data is JSON, and the text in it where it is anything else.
fn plain(data: &RawValue, attributes: &mut Collected, body: &Bytes) -> Result<Bytes, String> {
    let is_json = match attributes.text("datacontenttype") {
        Some(kind) => is_json(kind),
        None => {
            let kind = Value::String(JSON.to_owned());
            let place = || "/datacontenttype".to_owned();
            attributes.add(place, "datacontenttype", kind).map_err(|bad| bad.to_string())?;
            true
        }
    };
    if is_json {
        json::strictly(data.get().as_bytes())?;
        return Ok(body.slice_ref(data.get().as_bytes()));
    }
    let text: String = serde_json::from_str(data.get()).map_err(
        |_| "must be text in quotation marks, because `datacontenttype` is not JSON: write it so, or in `data_base64`",
    )?;
    Ok(text.into())
}

fn binary(encoded: &RawValue) -> Result<Bytes, String> {
    let text: String = serde_json::from_str(encoded.get()).map_err(|_| "is no text: write the data in Base64")?;
    let data = STANDARD.decode(text).map_err(|_| "is no Base64 (RFC 4648 §4), with `=` at its end where needed")?;
    Ok(data.into())
}

/// Whether data of this media type is JSON: `…/json` or `…/…+json` (§3.1).
pub(super) fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}
