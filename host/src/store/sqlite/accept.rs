//! Taking responsibility for a message.

use rusqlite::{Connection, params};

use super::{finish, keys, order, rows};
use crate::clock::Timestamp;
use crate::message::State;
use crate::store::{Acceptance, Accepted, Entry, KeyState, StoreError};

/// An acceptance whose long parts are encoded already, so that the writing thread need not.
pub(super) struct Prepared {
    acceptance: Acceptance,
    headers: Vec<u8>,
    attempts: Vec<String>,
}

/// Encodes what can be encoded before the transaction.
///
/// # Errors
/// [`StoreError::Unavailable`] when an attempt cannot be written as JSON.
pub(super) fn prepare(acceptance: Acceptance) -> Result<Prepared, StoreError> {
    let headers = rows::encode_headers(&acceptance.message.request.headers);
    let attempts = acceptance.attempts.iter().map(rows::encode_attempt).collect::<Result<_, _>>()?;
    Ok(Prepared { acceptance, headers, attempts })
}

/// Stores a message, unless its idempotency key was used before.
///
/// # Errors
/// [`StoreError`]
pub(super) fn accept(connection: &Connection, prepared: &Prepared) -> Result<Accepted, StoreError> {
    let Prepared { acceptance: Acceptance { message, entry, attempts, key, hold, order }, .. } = prepared;
    if let Some(claim) = key {
        match keys::store(connection, claim, message.accepted_at)? {
            KeyState::Fresh => {}
            used => return Ok(Accepted::Key(used)),
        }
    }
    let turn = match (entry, order) {
        (Entry::Queued { .. } | Entry::Leased(_), Some(key)) => order::turn_in(connection, &message.route, key)?,
        _ => order::NONE,
    };
    let behind = turn == order::BEHIND;
    let columns = Columns::of(entry, behind, message.accepted_at);
    let reason = match entry {
        Entry::Ended { reason, .. } => reason.as_str(),
        _ => attempts.last().map_or("", |attempt| attempt.reason.as_str()),
    };
    let progress = &message.progress;
    connection
        .prepare_cached(
            "INSERT INTO messages (id, route, state, due_at, lease_owner, lease_until, accepted_at, ended_at, reason,
                 idempotency_key, attempts, journal, started_at, previous_delay_ns, reauthenticated, hops,
                 order_route, order_key, turn)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        )?
        .execute(params![
            message.id.as_bytes(),
            message.route.as_str(),
            columns.state.as_str(),
            columns.due_at.map(rows::millis),
            columns.lease.map(|(owner, _)| owner),
            columns.lease.map(|(_, until)| rows::millis(until)),
            rows::millis(message.accepted_at),
            columns.ended_at.map(rows::millis),
            reason,
            message.idempotency_key,
            progress.attempts,
            progress.journal,
            progress.started_at.map(rows::millis),
            progress.previous_delay.map(rows::nanos),
            progress.reauthenticated,
            progress.hops,
            order.as_ref().map(|_| message.route.as_str()),
            order,
            turn,
        ])?;
    let seq = connection.last_insert_rowid();
    let request = &message.request;
    connection
        .prepare_cached("INSERT INTO requests (seq, method, path, headers, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![seq, request.method.as_str(), request.path, prepared.headers, &request.body[..]])?;
    for record in &prepared.attempts {
        finish::append_attempt(connection, seq, record)?;
    }
    if let Some(hold) = hold {
        finish::hold(connection, hold)?;
    }
    Ok(if behind { Accepted::Behind } else { Accepted::Stored })
}

/// The columns that an entry decides.
struct Columns<'entry> {
    state: State,
    due_at: Option<Timestamp>,
    lease: Option<(&'entry str, Timestamp)>,
    ended_at: Option<Timestamp>,
}

impl<'entry> Columns<'entry> {
    fn of(entry: &'entry Entry, behind: bool, accepted_at: Timestamp) -> Self {
        match entry {
            Entry::Leased(_) if behind => {
                Self { state: State::Queued, due_at: Some(accepted_at), lease: None, ended_at: None }
            }
            Entry::Queued { due } => Self { state: State::Queued, due_at: Some(*due), lease: None, ended_at: None },
            Entry::Leased(lease) => Self {
                state: State::InFlight,
                // Should it be released unattempted, its turn is when it came.
                due_at: Some(accepted_at),
                lease: Some((&lease.owner.0, lease.until)),
                ended_at: None,
            },
            Entry::Ended { state, at, .. } => Self { state: *state, due_at: None, lease: None, ended_at: Some(*at) },
        }
    }
}
