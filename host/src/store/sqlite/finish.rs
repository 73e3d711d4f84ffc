//! Writing down an attempt and what follows from it.

use rusqlite::{Connection, OptionalExtension, params};

use super::order;
use crate::message::RouteName;
use crate::store::{Finish, Finished, Hold, StoreError, encoding};

/// Finishes an attempt, if the lease is still held. `record` is the attempt, encoded.
///
/// # Errors
/// [`StoreError`]
pub(super) fn finish(connection: &Connection, finish: &Finish, record: &str) -> Result<Finished, StoreError> {
    let columns = encoding::FinishColumns::of(finish);
    let progress = &finish.progress;
    // Found first and changed by its row: RETURNING would cost a temporary table for every message.
    let held = connection
        .prepare_cached(
            "SELECT seq, order_route, order_key FROM messages
             WHERE id = ?1 AND state = 'in_flight' AND lease_owner = ?2",
        )?
        .query_row(params![finish.id.as_bytes(), finish.owner.0], |row| {
            Ok((row.get(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, Option<String>>(2)?))
        })
        .optional()?;
    let Some((seq, order_route, order_key)) = held else { return Ok(Finished::LeaseLost) };
    connection
        .prepare_cached(
            "UPDATE messages SET state = ?2, route = coalesce(?3, route), due_at = ?4, ended_at = ?5, reason = ?6,
                 attempts = ?7, journal = ?8, started_at = ?9, previous_delay_ns = ?10, reauthenticated = ?11,
                 hops = ?12, turn = CASE WHEN ?13 THEN 0 ELSE turn END, lease_owner = NULL, lease_until = NULL
             WHERE seq = ?1",
        )?
        .execute(params![
            seq,
            columns.state.as_str(),
            columns.route.map(RouteName::as_str),
            columns.due_at.map(encoding::millis),
            columns.ended_at.map(encoding::millis),
            columns.reason,
            progress.attempts,
            progress.journal,
            progress.started_at.map(encoding::millis),
            progress.previous_delay.map(encoding::nanos),
            progress.reauthenticated,
            progress.hops,
            columns.leaves_order,
        ])?;
    append_attempt(connection, seq, record)?;
    if columns.leaves_order
        && let (Some(route), Some(key)) = (order_route, order_key)
    {
        order::let_next(connection, &route, &key)?;
    }
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
             VALUES (?1, (SELECT coalesce(max(ordinal), 0) + 1 FROM attempts WHERE seq = ?1), ?2)",
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
        .execute(params![hold.destination, encoding::millis(hold.until)])?;
    Ok(())
}
