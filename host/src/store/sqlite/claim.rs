//! Leases: claiming what is due, prolonging, giving back, taking over.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Rows, params};

use super::finish::append_attempt;
use super::{feeds, keys, rows, transactions};
use crate::clock::Timestamp;
use crate::message::{AttemptRecord, Message, MessageId};
use crate::store::{Claimed, LaneClaim, Lease, NextDue, Owner, StoreError, encoding};

/// Claims, lane by lane, what is due: queued messages, and those whose lease ran out.
///
/// A message that cannot be read is claimed and left out, and so holds nobody up; it is reported each time its lease
/// has run out.
///
/// # Errors
/// [`StoreError`]
pub(super) fn claim_due(
    connection: &Connection,
    lanes: &[LaneClaim],
    now: Timestamp,
    lease: &Lease,
) -> Result<Claimed, StoreError> {
    let mut claimed = Claimed::default();
    for lane in lanes {
        let taken = due_in_lane(connection, lane, now)?;
        for due in &taken {
            take(connection, due, now, lease)?;
            match load(connection, due.seq) {
                Ok(message) => {
                    if due.lapsed {
                        claimed.lapsed.insert(message.id);
                    }
                    claimed.messages.push(message);
                }
                Err(StoreError::Unusable(reason)) => {
                    let seq = due.seq;
                    tracing::error!(seq, route = %lane.route, reason, "a message cannot be read and is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        let next = next_due(connection, lane, &taken.iter().map(|due| due.seq).collect())?;
        if next.earliest().is_some() {
            claimed.next_due.insert(lane.route.clone(), next);
        }
    }
    Ok(claimed)
}

/// A message that may be claimed. They sort as they are to be claimed: the oldest due first, in the order stored.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: i64,
    seq: i64,
    /// Whether its lease ran out.
    lapsed: bool,
}

/// What is due in one lane, at most as many as the lane asks for.
fn due_in_lane(connection: &Connection, lane: &LaneClaim, now: Timestamp) -> Result<Vec<Due>, StoreError> {
    const FIRST: &str = "SELECT due_at, seq FROM messages INDEXED BY messages_due
        WHERE state = 'queued' AND turn < 2 AND route = ?1 AND (attempts > 0) = 0 AND due_at <= ?2
        ORDER BY due_at, seq LIMIT ?3";
    const RETRIES: &str = "SELECT due_at, seq FROM messages INDEXED BY messages_due
        WHERE state = 'queued' AND turn < 2 AND route = ?1 AND (attempts > 0) = 1 AND due_at <= ?2
        ORDER BY due_at, seq LIMIT ?3";
    const LAPSED: &str = "SELECT due_at, seq FROM messages INDEXED BY messages_leased
        WHERE state = 'in_flight' AND route = ?1 AND lease_until <= ?2 ORDER BY due_at, seq LIMIT ?3";
    let mut due = Vec::new();
    for (sql, lapsed, limit) in
        [(FIRST, false, lane.limit), (RETRIES, false, lane.limit.min(lane.retries)), (LAPSED, true, lane.limit)]
    {
        if limit == 0 {
            continue;
        }
        let mut statement = connection.prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![lane.route.as_str(), encoding::millis(now), limit], |row| {
            Ok(Due { at: row.get(0)?, seq: row.get(1)?, lapsed })
        })?;
        for row in rows {
            due.push(row?);
        }
    }
    due.sort_unstable();
    due.truncate(lane.limit);
    Ok(due)
}

/// Puts a message under the lease. What may have been attempted under one that ran out is written down.
fn take(connection: &Connection, due: &Due, now: Timestamp, lease: &Lease) -> Result<(), StoreError> {
    let until = encoding::millis(lease.until);
    if due.lapsed {
        let mut statement = connection.prepare_cached(
            "UPDATE messages SET lease_owner = ?2, lease_until = ?3, journal = journal + 1 WHERE seq = ?1
             RETURNING seq, journal, route",
        )?;
        interrupt(connection, statement.query(params![due.seq, lease.owner.0, until])?, now)?;
    } else {
        connection
            .prepare_cached(
                "UPDATE messages SET state = 'in_flight', lease_owner = ?2, lease_until = ?3 WHERE seq = ?1",
            )?
            .execute(params![due.seq, lease.owner.0, until])?;
    }
    Ok(())
}

fn load(connection: &Connection, seq: i64) -> Result<Message, StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        encoding::message_columns!(),
        " FROM messages m JOIN requests r ON r.seq = m.seq WHERE m.seq = ?1"
    ))?;
    let message = statement.query_row([seq], |row| Ok(rows::message(row))).optional()?;
    message.unwrap_or_else(|| Err(StoreError::Unusable("it has a message without its request".to_owned())))
}

/// When the lane's next messages are due or a lease runs out, those just `taken` apart.
fn next_due(connection: &Connection, lane: &LaneClaim, taken: &BTreeSet<i64>) -> Result<NextDue, StoreError> {
    const FIRST: &str = "SELECT min(due_at) FROM messages INDEXED BY messages_due
        WHERE state = 'queued' AND turn < 2 AND route = ?1 AND (attempts > 0) = 0";
    const RETRY: &str = "SELECT min(due_at) FROM messages INDEXED BY messages_due
        WHERE state = 'queued' AND turn < 2 AND route = ?1 AND (attempts > 0) = 1";
    let soonest = |sql| -> rusqlite::Result<Option<i64>> {
        connection.prepare_cached(sql)?.query_row([lane.route.as_str()], |row| row.get(0))
    };
    let (first, retry) = (soonest(FIRST)?, soonest(RETRY)?);
    let mut statement = connection.prepare_cached(
        "SELECT lease_until, seq FROM messages INDEXED BY messages_leased
         WHERE state = 'in_flight' AND route = ?1 ORDER BY lease_until",
    )?;
    // Those just taken have the latest leases, so the first row nearly always decides.
    let mut leased = None;
    let mut rows = statement.query([lane.route.as_str()])?;
    while let Some(row) = rows.next()? {
        if !taken.contains(&row.get(1)?) {
            leased = Some(row.get::<_, i64>(0)?);
            break;
        }
    }
    let first = [first, leased].into_iter().flatten().min();
    Ok(NextDue { first: first.map(encoding::timestamp), retry: retry.map(encoding::timestamp) })
}

/// Prolongs leases; answers the messages that are still held.
///
/// # Errors
/// [`StoreError`]
pub(super) fn extend_lease(
    connection: &Connection,
    ids: &[MessageId],
    lease: &Lease,
) -> Result<Vec<MessageId>, StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE messages SET lease_until = ?3 WHERE id = ?1 AND state = 'in_flight' AND lease_owner = ?2",
    )?;
    let mut held = Vec::with_capacity(ids.len());
    for id in ids {
        if statement.execute(params![id.as_bytes(), lease.owner.0, encoding::millis(lease.until)])? > 0 {
            held.push(*id);
        }
    }
    Ok(held)
}

/// Gives messages back, each with the turn it had and its attempt written down as interrupted.
///
/// # Errors
/// [`StoreError`]
pub(super) fn release(
    connection: &Connection,
    ids: &[MessageId],
    owner: &Owner,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE messages SET state = 'queued', lease_owner = NULL, lease_until = NULL, journal = journal + 1
         WHERE id = ?1 AND state = 'in_flight' AND lease_owner = ?2 RETURNING seq, journal, route",
    )?;
    for id in ids {
        interrupt(connection, statement.query(params![id.as_bytes(), owner.0])?, now)?;
    }
    Ok(())
}

/// Queues what other owners hold, due `now`, with the attempts they were making written down as interrupted, and frees
/// the keys they had opened. Answers how many were queued.
///
/// # Errors
/// [`StoreError`]
pub(super) fn recover(connection: &Connection, owner: &Owner, now: Timestamp) -> Result<u64, StoreError> {
    keys::recover(connection, &owner.0)?;
    transactions::recover(connection, owner, now)?;
    feeds::recover(connection, owner)?;
    let mut statement = connection.prepare(
        "UPDATE messages SET state = 'queued', due_at = ?2, lease_owner = NULL, lease_until = NULL, journal = journal + 1
         WHERE state = 'in_flight' AND lease_owner <> ?1 RETURNING seq, journal, route",
    )?;
    interrupt(connection, statement.query(params![owner.0, encoding::millis(now)])?, now)
}

/// Writes down that the attempts on these messages were interrupted; answers how many.
fn interrupt(connection: &Connection, mut messages: Rows<'_>, now: Timestamp) -> Result<u64, StoreError> {
    let mut interrupted = 0;
    while let Some(row) = messages.next()? {
        let route: String = row.get(2)?;
        let record = AttemptRecord::interrupted(row.get(1)?, &route, now);
        append_attempt(connection, row.get(0)?, &encoding::encode_attempt(&record)?)?;
        interrupted += 1;
    }
    Ok(interrupted)
}
