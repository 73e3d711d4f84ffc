//! A row as it was read, and as the message that it becomes.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest as _, Sha256};

use super::cursor::Cursor;
use super::settings::Settings;
use super::unreadable::Unreadable;
use crate::dispatch::nats::headers::is_key;
use crate::ingress::source::{Brought, fields};
use crate::message::hex;

/// The longest value of a field, in bytes: a key may be longer.
const LONGEST_FIELD: usize = 1024;

/// Which row it is.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) cursor: Cursor,
    pub(super) cursor_text: String,
    pub(super) key: String,
}

/// A row as it was read.
pub(super) struct Row {
    pub(super) mark: Mark,
    /// The row as JSON, or why the server could not write it so.
    pub(super) json: Result<String, Unreadable>,
}

impl Row {
    /// The message that it becomes. One that could not be read has no body; its fields say which row it is.
    pub(super) fn brought(self, settings: &Settings, partition: u32) -> Brought {
        let (table, mark) = (settings.table.to_string(), self.mark);
        // The source is named because another one may read a table of that name in another database.
        let own = format!("{} {table} {} {}", settings.name, mark.cursor_text, mark.key);
        let key = if is_key(&own) { own } else { hex(&Sha256::digest(own.as_bytes())) };
        let mut headers = HeaderMap::new();
        let is_field = |text: &str| text.len() <= LONGEST_FIELD && HeaderValue::try_from(text).is_ok();
        let shown = match &self.json {
            // Nothing else says which row it is.
            Err(_) if !is_field(&mark.key) => mark.key.escape_default().take(LONGEST_FIELD).collect(),
            _ => mark.key,
        };
        if self.json.is_ok() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in [
            (fields::BROKER, "feed".to_owned()),
            (fields::ORIGIN, table),
            (fields::SEQUENCE, mark.cursor_text),
            (fields::PARTITION, partition.to_string()),
            (fields::SUBJECT, shown),
        ] {
            // What is too long or cannot be a field's value, is left out: a policy finds it in the body.
            if is_field(&value)
                && let Ok(value) = HeaderValue::try_from(value)
            {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        Brought {
            headers,
            body: self.json.map(Bytes::from).unwrap_or_default(),
            key: Some(key),
            // Nothing tells a row's first time from a repeat, after a takeover or a lost checkpoint; but the key is that
            // of this state of this row alone, so what has it is the same.
            delivered_before: 1,
            last_delivery: false,
        }
    }
}
