//! Values as every store of this crate keeps them, and what an entry or a finish amounts to in columns. What cannot be
//! read back is [`StoreError::Unusable`].

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Acceptance, Entry, Finish, StoreError, Then, Turn};
use crate::clock::Timestamp;
use crate::message::{AttemptRecord, RouteName, State};

/// The columns that both stores read a message from, of `messages m` and `requests r`.
macro_rules! message_columns {
    () => {
        "m.id, m.route, m.idempotency_key, m.accepted_at, m.attempts, m.journal, m.started_at, m.previous_delay_ns,
         m.reauthenticated, m.hops, r.method, r.path, r.headers, r.body, m.publish, m.original"
    };
}
pub(super) use message_columns;

/// The columns that both stores read a line of a list from, of `messages m` and `requests r`.
macro_rules! summary_columns {
    () => {
        "m.id, m.route, m.state, m.reason, m.journal, r.method, r.path, m.accepted_at, m.due_at, m.ended_at,
         m.order_key, m.turn"
    };
}
pub(super) use summary_columns;

/// The columns that both stores read a line of the archive from, of `messages`.
macro_rules! archive_columns {
    () => {
        "id, coalesce(publish, id) AS uid, route, state, accepted_at"
    };
}
pub(super) use archive_columns;

/// The columns that both stores read a transaction from.
macro_rules! transaction_columns {
    () => {
        "id, route, state, reason, checks, unreached, method, path, prepared_at, due_at, ended_at"
    };
}
pub(super) use transaction_columns;

/// The columns that both stores read a half message from, of `transactions t` and `half_requests h`.
macro_rules! half_message_columns {
    () => {
        "t.id, t.route, t.idempotency_key, t.prepared_at, t.method, t.path, h.headers"
    };
}
pub(super) use half_message_columns;

/// The column `turn`: in no order, or out of it.
pub(super) const TURN_NONE: i64 = 0;
/// The one that may be attempted; dead, it keeps the others waiting.
pub(super) const TURN_NOW: i64 = 1;
/// Behind another one.
pub(super) const TURN_BEHIND: i64 = 2;

const SENSITIVE: u8 = 1;

/// As long as the JSON of an attempt usually is, in bytes, so that it is written without being moved.
const USUAL_RECORD: usize = 640;

/// An acceptance whose long parts are encoded already, so that whoever writes it need not.
pub(super) struct EncodedAcceptance {
    pub(super) acceptance: Acceptance,
    pub(super) headers: Vec<u8>,
    pub(super) attempts: Vec<String>,
}

impl EncodedAcceptance {
    /// Encodes what can be encoded before the transaction.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when an attempt cannot be written as JSON.
    pub(super) fn of(acceptance: Acceptance) -> Result<Self, StoreError> {
        let headers = encode_headers(&acceptance.message.request.headers);
        let attempts = acceptance.attempts.iter().map(encode_attempt).collect::<Result<_, _>>()?;
        Ok(Self { acceptance, headers, attempts })
    }
}

/// The columns that an entry decides.
pub(super) struct EntryColumns<'entry> {
    pub(super) state: State,
    pub(super) due_at: Option<Timestamp>,
    pub(super) lease: Option<(&'entry str, Timestamp)>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) reason: &'entry str,
}

impl<'entry> EntryColumns<'entry> {
    /// Those of a message that comes with `attempts`; `behind` when another one of its order is before it.
    pub(super) fn of(
        entry: &'entry Entry,
        attempts: &'entry [AttemptRecord],
        behind: bool,
        accepted_at: Timestamp,
    ) -> Self {
        let queued = |due| Self {
            state: State::Queued,
            due_at: Some(due),
            lease: None,
            ended_at: None,
            reason: attempts.last().map_or("", |attempt| attempt.reason.as_str()),
        };
        match entry {
            Entry::Leased(_) if behind => queued(accepted_at),
            Entry::Queued { due } => queued(*due),
            // Should it be released unattempted, its turn is when it came.
            Entry::Leased(lease) => {
                Self { state: State::InFlight, lease: Some((&lease.owner.0, lease.until)), ..queued(accepted_at) }
            }
            Entry::Ended { state, reason, at } => {
                Self { state: *state, due_at: None, lease: None, ended_at: Some(*at), reason }
            }
        }
    }
}

/// The columns that a finish decides, beside the progress.
pub(super) struct FinishColumns<'finish> {
    pub(super) state: State,
    /// None: it stays on its route.
    pub(super) route: Option<&'finish RouteName>,
    pub(super) due_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) reason: &'finish str,
    /// Whether it lets those behind it in its order go.
    pub(super) leaves_order: bool,
}

impl<'finish> FinishColumns<'finish> {
    /// Those of this finish.
    pub(super) fn of(finish: &'finish Finish) -> Self {
        match &finish.then {
            Then::Queue { due, route } => Self {
                state: State::Queued,
                route: Some(route),
                due_at: Some(*due),
                ended_at: None,
                reason: &finish.attempt.reason,
                leaves_order: false,
            },
            Then::End { state, reason, at } => Self {
                state: *state,
                route: None,
                due_at: None,
                ended_at: Some(*at),
                reason,
                leaves_order: !(*state == State::Dead && finish.blocks),
            },
        }
    }
}

/// A message's place in its order from the column `turn`.
pub(super) fn turn(column: i64) -> Option<Turn> {
    match column {
        TURN_NOW => Some(Turn::Now),
        TURN_BEHIND => Some(Turn::Behind),
        _ => None,
    }
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

/// What ended before this has been kept for `keep`.
pub(super) fn before(now: Timestamp, keep: Duration) -> i64 {
    millis(now).saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX))
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
    let mut written = Vec::with_capacity(USUAL_RECORD);
    serde_json::to_writer(&mut written, record).map_err(|error| StoreError::Unavailable(error.into()))?;
    String::from_utf8(written).map_err(|error| StoreError::Unavailable(error.into()))
}

/// An attempt from the journal.
pub(super) fn decode_attempt(record: &str) -> Result<AttemptRecord, StoreError> {
    serde_json::from_str(record).map_err(unreadable)
}

/// Header fields as the tables hold them; each is one byte of flags (1 = sensitive), the length of the name (2 bytes,
/// big-endian), the length of the value (4 bytes, big-endian), name, value.
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
