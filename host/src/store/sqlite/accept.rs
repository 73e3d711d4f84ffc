//! Taking responsibility for a message.

use rusqlite::{Connection, params};

use super::{finish, keys, order};
use crate::message::MessageId;
use crate::store::encoding::EncodedAcceptance;
use crate::store::{Acceptance, Accepted, Entry, KeyState, StoreError, encoding};

/// Stores a message, unless its idempotency key was used before.
///
/// # Errors
/// [`StoreError`]
pub(super) fn accept(connection: &Connection, encoded: &EncodedAcceptance) -> Result<Accepted, StoreError> {
    let Acceptance { message, entry, attempts, key, hold, order } = &encoded.acceptance;
    if let Some(claim) = key {
        match keys::store(connection, claim, message.accepted_at)? {
            KeyState::Fresh => {}
            used => return Ok(Accepted::Key(used)),
        }
    }
    let turn = match (entry, order) {
        (Entry::Queued { .. } | Entry::Leased(_), Some(key)) => order::turn_in(connection, &message.route, key)?,
        _ => encoding::TURN_NONE,
    };
    let behind = turn == encoding::TURN_BEHIND;
    let columns = encoding::EntryColumns::of(entry, attempts, behind, message.accepted_at);
    let progress = &message.progress;
    connection
        .prepare_cached(
            "INSERT INTO messages (id, route, state, due_at, lease_owner, lease_until, accepted_at, ended_at, reason,
                 idempotency_key, attempts, journal, started_at, previous_delay_ns, reauthenticated, hops,
                 order_route, order_key, turn, publish, original)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
        )?
        .execute(params![
            message.id.as_bytes(),
            message.route.as_str(),
            columns.state.as_str(),
            columns.due_at.map(encoding::millis),
            columns.lease.map(|(owner, _)| owner),
            columns.lease.map(|(_, until)| encoding::millis(until)),
            encoding::millis(message.accepted_at),
            columns.ended_at.map(encoding::millis),
            columns.reason,
            message.idempotency_key,
            progress.attempts,
            progress.journal,
            progress.started_at.map(encoding::millis),
            progress.previous_delay.map(encoding::nanos),
            progress.reauthenticated,
            progress.hops,
            order.as_ref().map(|_| message.route.as_str()),
            order,
            turn,
            message.origin.publish.as_ref().map(MessageId::as_bytes),
            message.origin.original.as_ref().map(MessageId::as_bytes),
        ])?;
    let seq = connection.last_insert_rowid();
    let request = &message.request;
    connection
        .prepare_cached("INSERT INTO requests (seq, method, path, headers, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![seq, request.method.as_str(), request.path, encoded.headers, &request.body[..]])?;
    for record in &encoded.attempts {
        finish::append_attempt(connection, seq, record)?;
    }
    if let Some(hold) = hold {
        finish::hold(connection, hold)?;
    }
    Ok(if behind { Accepted::Behind } else { Accepted::Stored })
}
