//! Writing down an attempt and what follows from it.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows;
use crate::message::State;
use crate::store::{Finish, Finished, Hold, StoreError, Then};

/// Finishes an attempt, if the lease is still held. `record` is the attempt, encoded.
///
/// # Errors
/// [`StoreError`]
pub(super) fn finish(connection: &Connection, finish: &Finish, record: &str) -> Result<Finished, StoreError> {
    let (state, route, due_at, ended_at, reason) = match &finish.then {
        Then::Queue { due, route } => {
            (State::Queued, Some(route.as_str()), Some(*due), None, finish.attempt.reason.as_str())
        }
        Then::End { state, reason, at } => (*state, None, None, Some(*at), reason.as_str()),
    };
    let progress = &finish.progress;
    let seq: Option<i64> = connection
        .prepare_cached(
            "UPDATE messages SET state = ?3, route = coalesce(?4, route), due_at = ?5, ended_at = ?6, reason = ?7,
                 attempts = ?8, journal = ?9, started_at = ?10, previous_delay_ns = ?11, reauthenticated = ?12,
                 hops = ?13, lease_owner = NULL, lease_until = NULL
             WHERE id = ?1 AND state = 'in_flight' AND lease_owner = ?2
             RETURNING seq",
        )?
        .query_row(
            params![
                finish.id.as_bytes(),
                finish.owner.0,
                state.as_str(),
                route,
                due_at.map(rows::millis),
                ended_at.map(rows::millis),
                reason,
                progress.attempts,
                progress.journal,
                progress.started_at.map(rows::millis),
                progress.previous_delay.map(rows::nanos),
                progress.reauthenticated,
                progress.hops,
            ],
            |row| row.get(0),
        )
        .optional()?;
    let Some(seq) = seq else { return Ok(Finished::LeaseLost) };
    append_attempt(connection, seq, record)?;
    if let Some(held) = &finish.hold {
        hold(connection, held)?;
    }
    Ok(Finished::Done)
}

/// Adds a line to a message's journal.
///
/// # Errors
/// [`StoreError`]
pub(super) fn append_attempt(connection: &Connection, seq: i64, record: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO attempts (seq, ordinal, record)
             SELECT ?1, coalesce(max(ordinal), 0) + 1, ?2 FROM attempts WHERE seq = ?1",
        )?
        .execute(params![seq, record])?;
    Ok(())
}

/// Writes a hold down. Of two holds on one destination the later end counts.
///
/// # Errors
/// [`StoreError`]
pub(super) fn hold(connection: &Connection, hold: &Hold) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO holds (destination, until) VALUES (?1, ?2)
             ON CONFLICT (destination) DO UPDATE SET until = max(until, excluded.until)",
        )?
        .execute(params![hold.destination, rows::millis(hold.until)])?;
    Ok(())
}
