//! Values as the tables hold them, and back. What cannot be read back is [`StoreError::Unusable`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rusqlite::Row;

use super::order;
use crate::clock::Timestamp;
use crate::message::{AttemptRecord, Message, MessageId, Progress, Request, RouteName, State};
use crate::store::{StoreError, Summary, Turn};

/// The columns that [`message`] reads, of `messages m` and `requests r`.
macro_rules! message_columns {
    () => {
        "m.id, m.route, m.idempotency_key, m.accepted_at, m.attempts, m.journal, m.started_at, m.previous_delay_ns,
         m.reauthenticated, m.hops, r.method, r.path, r.headers, r.body"
    };
}
pub(super) use message_columns;

/// The columns that [`summary`] reads, of `messages m` and `requests r`.
macro_rules! summary_columns {
    () => {
        "m.id, m.route, m.state, m.reason, m.journal, r.method, r.path, m.accepted_at, m.due_at, m.ended_at,
         m.order_key, m.turn"
    };
}
pub(super) use summary_columns;

const SENSITIVE: u8 = 1;

/// A message from [`message_columns`].
pub(super) fn message(row: &Row<'_>) -> Result<Message, StoreError> {
    let route: String = row.get(1)?;
    let method: String = row.get(10)?;
    let headers = decode_headers(row.get_ref(12)?.as_blob().map_err(unreadable)?)?;
    Ok(Message {
        id: MessageId::from_bytes(row.get(0)?),
        route: RouteName::new(&route).map_err(unreadable)?,
        idempotency_key: row.get(2)?,
        accepted_at: timestamp(row.get(3)?),
        progress: Progress {
            attempts: row.get(4)?,
            journal: row.get(5)?,
            started_at: row.get::<_, Option<i64>>(6)?.map(timestamp),
            previous_delay: row.get::<_, Option<i64>>(7)?.map(|nanos| Duration::from_nanos(nanos.unsigned_abs())),
            reauthenticated: row.get(8)?,
            hops: row.get(9)?,
        },
        request: Arc::new(Request {
            method: Method::from_bytes(method.as_bytes()).map_err(unreadable)?,
            path: row.get(11)?,
            headers,
            body: Bytes::from(row.get::<_, Vec<u8>>(13)?),
        }),
    })
}

/// A line of a list from [`summary_columns`].
pub(super) fn summary(row: &Row<'_>) -> Result<Summary, StoreError> {
    Ok(Summary {
        id: MessageId::from_bytes(row.get(0)?),
        route: row.get(1)?,
        state: state(row.get_ref(2)?.as_str().map_err(unreadable)?)?,
        reason: row.get(3)?,
        attempts: row.get(4)?,
        method: row.get(5)?,
        path: row.get(6)?,
        accepted_at: timestamp(row.get(7)?),
        due_at: row.get::<_, Option<i64>>(8)?.map(timestamp),
        ended_at: row.get::<_, Option<i64>>(9)?.map(timestamp),
        order_key: row.get(10)?,
        turn: match row.get(11)? {
            order::NOW => Some(Turn::Now),
            order::BEHIND => Some(Turn::Behind),
            _ => None,
        },
    })
}

/// A state from its name.
pub(super) fn state(name: &str) -> Result<State, StoreError> {
    let known = State::ALL.into_iter().find(|state| state.as_str() == name);
    known.ok_or_else(|| StoreError::Unusable(format!("it has a message in the unknown state {name:?}")))
}

/// A moment as a column holds it.
pub(super) fn millis(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(i64::MAX)
}

/// A moment from its column. None before the epoch is ever written.
pub(super) fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A delay as a column holds it, in nanoseconds.
pub(super) fn nanos(delay: Duration) -> i64 {
    i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX)
}

/// An attempt as the journal holds it.
pub(super) fn encode_attempt(record: &AttemptRecord) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError::Unavailable(error.into()))
}

/// An attempt from the journal.
pub(super) fn decode_attempt(record: &str) -> Result<AttemptRecord, StoreError> {
    serde_json::from_str(record).map_err(unreadable)
}

/// Header fields as the tables hold them; [`super::schema`] describes the format.
pub(super) fn encode_headers(headers: &HeaderMap) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(headers.iter().map(|(n, v)| 7 + n.as_str().len() + v.len()).sum());
    for (name, value) in headers {
        let name = name.as_str().as_bytes();
        // `http` keeps names within 64 KiB and values come from requests far smaller than 4 GiB.
        let (Ok(name_length), Ok(value_length)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
            continue;
        };
        encoded.push(if value.is_sensitive() { SENSITIVE } else { 0 });
        encoded.extend_from_slice(&name_length.to_be_bytes());
        encoded.extend_from_slice(&value_length.to_be_bytes());
        encoded.extend_from_slice(name);
        encoded.extend_from_slice(value.as_bytes());
    }
    encoded
}

/// Header fields from the tables.
pub(super) fn decode_headers(mut encoded: &[u8]) -> Result<HeaderMap, StoreError> {
    let mut headers = HeaderMap::new();
    while let Some((&[flags, n0, n1, v0, v1, v2, v3], rest)) = encoded.split_first_chunk::<7>() {
        let name_length = usize::from(u16::from_be_bytes([n0, n1]));
        let value_length = usize::try_from(u32::from_be_bytes([v0, v1, v2, v3])).unwrap_or(usize::MAX);
        let (name, rest) = rest.split_at_checked(name_length).ok_or_else(cut_short)?;
        let (value, rest) = rest.split_at_checked(value_length).ok_or_else(cut_short)?;
        let mut value = HeaderValue::from_bytes(value).map_err(unreadable)?;
        value.set_sensitive(flags & SENSITIVE != 0);
        headers.append(HeaderName::from_bytes(name).map_err(unreadable)?, value);
        encoded = rest;
    }
    if encoded.is_empty() { Ok(headers) } else { Err(cut_short()) }
}

fn cut_short() -> StoreError {
    StoreError::Unusable("it has header fields that are cut short".to_owned())
}

/// The error of a value that is not what was written.
pub(super) fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unusable(format!("it has a row that cannot be read ({error})"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn header_fields_come_back_as_they_went(fields in proptest::collection::vec(
            ("[a-z][a-z0-9-]{0,20}", proptest::collection::vec((0x20u8..=0xff).prop_filter("DEL", |b| *b != 0x7f), 0..40), any::<bool>()),
            0..20,
        )) {
            let mut headers = HeaderMap::new();
            for (name, value, sensitive) in fields {
                let mut value = HeaderValue::from_bytes(&value).unwrap();
                value.set_sensitive(sensitive);
                headers.append(HeaderName::try_from(name).unwrap(), value);
            }
            let decoded = decode_headers(&encode_headers(&headers)).unwrap();
            let sensitive = |map: &HeaderMap| map.iter().map(|(n, v)| (n.to_string(), v.is_sensitive())).collect::<Vec<_>>();
            prop_assert_eq!(sensitive(&decoded), sensitive(&headers));
            prop_assert_eq!(decoded, headers);
        }

        #[test]
        fn header_fields_that_were_damaged_are_refused_or_read_but_never_a_crash(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = decode_headers(&bytes);
        }
    }

    #[test]
    fn header_fields_cut_short_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let encoded = encode_headers(&headers);
        for length in 1..encoded.len() {
            assert!(decode_headers(&encoded[..length]).is_err(), "{length} of {} bytes", encoded.len());
        }
    }
}
