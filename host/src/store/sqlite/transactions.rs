//! Half messages: written down, settled by the first word, claimed to be asked about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{accept, keys};
use crate::clock::Timestamp;
use crate::message::{Message, MessageId, Origin, Progress, Request, RouteName};
use crate::store::encoding::{self, EncodedAcceptance, millis, timestamp, unreadable};
use crate::store::selecting::page_of;
use crate::store::transacting::{resumed_before, said_before, state};
use crate::store::{
    Acceptance, Accepted, Check, CheckNote, ClaimedChecks, Confirmed, Entry, KeyState, Lease, Owner, Preparation,
    Prepared, Said, Saying, StoreError, TransactionFilter,
};
use crate::transaction::{Transaction, TransactionState, Word};

/// Greater than every id, which has 16 bytes.
const BEYOND_IDS: [u8; 17] = [0xff; 17];

/// Writes a half message down, unless its idempotency key was used before. `headers` are its header fields, encoded.
///
/// # Errors
/// [`StoreError`]
pub(super) fn prepare(
    connection: &Connection,
    preparation: &Preparation,
    headers: &[u8],
) -> Result<Prepared, StoreError> {
    let Preparation { message, order, first_check, key } = preparation;
    if let Some(claim) = key {
        match keys::store(connection, claim, message.accepted_at)? {
            KeyState::Fresh => {}
            used => return Ok(Prepared::Key(used)),
        }
    }
    let request = &message.request;
    connection
        .prepare_cached(
            "INSERT INTO transactions (id, route, state, prepared_at, due_at, checks, unreached, reason, keep_until,
                 idempotency_key, order_key, method, path)
             VALUES (?1, ?2, 'prepared', ?3, ?4, 0, 0, '', ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            message.id.as_bytes(),
            message.route.as_str(),
            millis(message.accepted_at),
            millis(*first_check),
            key.as_ref().map_or(0, |claim| millis(claim.keep_until)),
            message.idempotency_key,
            order,
            request.method.as_str(),
            request.path,
        ])?;
    connection
        .prepare_cached("INSERT INTO half_requests (seq, headers, body) VALUES (?1, ?2, ?3)")?
        .execute(params![connection.last_insert_rowid(), headers, &request.body[..]])?;
    Ok(Prepared::Stored)
}

/// Makes a message of an open transaction.
///
/// # Errors
/// [`StoreError`]
pub(super) fn confirm(connection: &Connection, saying: &Saying, entry: &Entry) -> Result<Said<Confirmed>, StoreError> {
    let seq = match open(connection, saying.id, Word::Confirm)? {
        Ok(seq) => seq,
        Err(said) => return Ok(said),
    };
    let (message, order, headers) = whole(connection, seq)?;
    let message = Message { accepted_at: saying.at, ..message };
    let acceptance = Acceptance {
        message: message.clone(),
        entry: entry.clone(),
        attempts: Vec::new(),
        // It was taken when the transaction was prepared.
        key: None,
        hold: None,
        order,
    };
    let accepted = accept::accept(connection, &EncodedAcceptance { acceptance, headers, attempts: Vec::new() })?;
    end(connection, seq, saying, Word::Confirm)?;
    Ok(Said::Taken(Confirmed { message, behind: accepted == Accepted::Behind }))
}

/// Forgets what an open transaction would have delivered.
///
/// # Errors
/// [`StoreError`]
pub(super) fn cancel(connection: &Connection, saying: &Saying) -> Result<Said<()>, StoreError> {
    match open(connection, saying.id, Word::Cancel)? {
        Ok(seq) => end(connection, seq, saying, Word::Cancel).map(Said::Taken),
        Err(said) => Ok(said),
    }
}

/// The row of a transaction of which `word` is the first; otherwise what it comes to.
fn open<T>(connection: &Connection, id: MessageId, word: Word) -> Result<Result<i64, Said<T>>, StoreError> {
    let found = connection
        .prepare_cached("SELECT seq, state FROM transactions WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    let Some((seq, name)) = found else { return Ok(Err(Said::Unknown)) };
    Ok(said_before(state(&name)?, word).map_or(Ok(seq), Err))
}

fn end(connection: &Connection, seq: i64, saying: &Saying, word: Word) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE transactions SET state = ?2, reason = ?3, ended_at = ?4, checks = checks + ?5, due_at = NULL,
                 lease_owner = NULL
             WHERE seq = ?1",
        )?
        .execute(params![seq, word.leads_to().as_str(), saying.reason, millis(saying.at), saying.checked])?;
    connection.prepare_cached("DELETE FROM half_requests WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

/// What a transaction delivers, the order it belongs to, and its header fields as they are encoded.
fn whole(connection: &Connection, seq: i64) -> Result<(Message, Option<String>, Vec<u8>), StoreError> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            encoding::half_message_columns!(),
            ", h.body, t.order_key FROM transactions t JOIN half_requests h ON h.seq = t.seq WHERE t.seq = ?1"
        ))?
        .query_row([seq], |row| {
            let body = Bytes::from(row.get::<_, Vec<u8>>(7)?);
            let headers = row.get::<_, Vec<u8>>(6)?;
            let order = row.get(8)?;
            Ok(message(row, body).map(|message| (message, order, headers)))
        })
        .optional()?
        .unwrap_or_else(|| Err(StoreError::Unusable("it has an open transaction without its request".to_owned())))
}

/// A half message from `encoding::half_message_columns`.
fn message(row: &Row<'_>, body: Bytes) -> Result<Message, StoreError> {
    let route: String = row.get(1)?;
    let method: String = row.get(4)?;
    Ok(Message {
        id: MessageId::from_bytes(row.get(0)?),
        route: RouteName::new(&route).map_err(unreadable)?,
        idempotency_key: row.get(2)?,
        accepted_at: timestamp(row.get(3)?),
        progress: Progress::default(),
        origin: Origin::default(),
        request: Arc::new(Request {
            method: Method::from_bytes(method.as_bytes()).map_err(unreadable)?,
            path: row.get(5)?,
            headers: encoding::decode_headers(row.get_ref(6)?.as_blob().map_err(unreadable)?)?,
            body,
        }),
    })
}

/// Claims the transactions on a route whose senders are to be asked. One that cannot be read is claimed and left out, and
/// so holds nobody up; it is reported each time its lease has run out.
///
/// # Errors
/// [`StoreError`]
pub(super) fn claim(
    connection: &Connection,
    route: &RouteName,
    limit: u32,
    now: Timestamp,
    lease: &Lease,
) -> Result<ClaimedChecks, StoreError> {
    let due: Vec<i64> = connection
        .prepare_cached(
            "SELECT seq FROM transactions INDEXED BY transactions_due
             WHERE state = 'prepared' AND route = ?1 AND due_at <= ?2 ORDER BY due_at, seq LIMIT ?3",
        )?
        .query_map(params![route.as_str(), millis(now), limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut checks = Vec::with_capacity(due.len());
    for seq in due {
        connection
            .prepare_cached("UPDATE transactions SET due_at = ?2, lease_owner = ?3 WHERE seq = ?1")?
            .execute(params![seq, millis(lease.until), lease.owner.0])?;
        let check = connection
            .prepare_cached(concat!(
                "SELECT ",
                encoding::half_message_columns!(),
                ", t.checks, t.unreached FROM transactions t JOIN half_requests h ON h.seq = t.seq WHERE t.seq = ?1"
            ))?
            .query_row([seq], |row| {
                let (checks, unreached) = (row.get(7)?, row.get(8)?);
                Ok(message(row, Bytes::new()).map(|message| Check { message, checks, unreached }))
            })?;
        match check {
            Ok(check) => checks.push(check),
            Err(StoreError::Unusable(reason)) => {
                tracing::error!(seq, %route, reason, "a transaction cannot be read and is passed over");
            }
            Err(error) => return Err(error),
        }
    }
    let next_due = connection
        .prepare_cached(
            "SELECT min(due_at) FROM transactions INDEXED BY transactions_due WHERE state = 'prepared' AND route = ?1",
        )?
        .query_row([route.as_str()], |row| row.get::<_, Option<i64>>(0))?;
    Ok(ClaimedChecks { checks, next_due: next_due.map(timestamp) })
}

/// Writes down what a check came to that settled nothing; answers whether its lease was still held.
///
/// # Errors
/// [`StoreError`]
pub(super) fn note(connection: &Connection, note: &CheckNote) -> Result<bool, StoreError> {
    let state = if note.next.is_some() { TransactionState::Prepared } else { TransactionState::Parked };
    let noted = connection
        .prepare_cached(
            "UPDATE transactions SET state = ?3, due_at = ?4, reason = ?5, checks = ?6, unreached = ?7, lease_owner = NULL
             WHERE id = ?1 AND state = 'prepared' AND lease_owner = ?2",
        )?
        .execute(params![
            note.id.as_bytes(),
            note.owner.0,
            state.as_str(),
            note.next.map(millis),
            note.reason,
            note.checks,
            note.unreached,
        ])?;
    Ok(noted > 0)
}

/// Has the sender of a parked transaction asked again.
///
/// # Errors
/// [`StoreError`]
pub(super) fn resume(connection: &Connection, id: MessageId, now: Timestamp) -> Result<Said<()>, StoreError> {
    let resumed = connection
        .prepare_cached(
            "UPDATE transactions SET state = 'prepared', due_at = ?2, checks = 0, unreached = 0
             WHERE id = ?1 AND state = 'parked'",
        )?
        .execute(params![id.as_bytes(), millis(now)])?;
    if resumed > 0 {
        return Ok(Said::Taken(()));
    }
    let found = one(connection, id)?;
    Ok(found.and_then(|transaction| resumed_before(transaction.state)).unwrap_or(Said::Unknown))
}

/// Has those asked about again, at once, whom a host other than `owner` was asking about.
///
/// # Errors
/// [`StoreError`]
pub(super) fn recover(connection: &Connection, owner: &Owner, now: Timestamp) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE transactions SET due_at = ?2, lease_owner = NULL WHERE state = 'prepared' AND lease_owner <> ?1",
        params![owner.0, millis(now)],
    )?;
    Ok(())
}

/// A transaction.
///
/// # Errors
/// [`StoreError`]
pub(super) fn one(connection: &Connection, id: MessageId) -> Result<Option<Transaction>, StoreError> {
    connection
        .prepare_cached(concat!("SELECT ", encoding::transaction_columns!(), " FROM transactions WHERE id = ?1"))?
        .query_row([id.as_bytes()], |row| Ok(transaction(row)))
        .optional()?
        .transpose()
}

/// What an open transaction would deliver.
///
/// # Errors
/// [`StoreError`]
pub(super) fn half_message(connection: &Connection, id: MessageId) -> Result<Option<Message>, StoreError> {
    let seq = connection
        .prepare_cached("SELECT seq FROM transactions WHERE id = ?1 AND state IN ('prepared', 'parked')")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    seq.map(|seq| whole(connection, seq).map(|(message, ..)| message)).transpose()
}

fn transaction(row: &Row<'_>) -> Result<Transaction, StoreError> {
    Ok(Transaction {
        id: MessageId::from_bytes(row.get(0)?),
        route: row.get(1)?,
        state: state(row.get_ref(2)?.as_str().map_err(unreadable)?)?,
        reason: row.get(3)?,
        checks: row.get(4)?,
        unreached: row.get(5)?,
        method: row.get(6)?,
        path: row.get(7)?,
        prepared_at: timestamp(row.get(8)?),
        next_check_at: row.get::<_, Option<i64>>(9)?.map(timestamp),
        ended_at: row.get::<_, Option<i64>>(10)?.map(timestamp),
    })
}

/// Transactions that fit, newest first.
///
/// # Errors
/// [`StoreError`]
pub(super) fn list(connection: &Connection, filter: &TransactionFilter) -> Result<Vec<Transaction>, StoreError> {
    // Along the ids; the few that are open are found along an index of their own.
    const ALL: &str = concat!(
        "SELECT ",
        encoding::transaction_columns!(),
        " FROM transactions WHERE id < ?1 AND (?2 IS NULL OR route = ?2) AND (?3 IS NULL OR +state = ?3)
         ORDER BY id DESC LIMIT ?4"
    );
    const OPEN: &str = concat!(
        "SELECT ",
        encoding::transaction_columns!(),
        " FROM transactions INDEXED BY transactions_open
         WHERE state IN ('prepared', 'parked') AND state = ?3 AND id < ?1 AND (?2 IS NULL OR route = ?2)
         ORDER BY id DESC LIMIT ?4"
    );
    let limit = page_of(filter.limit);
    let before = filter.before.as_ref().map_or(&BEYOND_IDS[..], |id| id.as_bytes());
    let states: BTreeSet<Option<TransactionState>> = if filter.states.is_empty() {
        BTreeSet::from([None])
    } else {
        filter.states.iter().copied().map(Some).collect()
    };
    let mut found = Vec::new();
    for state in states {
        let sql = if state.is_some_and(TransactionState::is_open) { OPEN } else { ALL };
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![before, filter.route, state.map(TransactionState::as_str), limit])?;
        while let Some(row) = rows.next()? {
            found.push(transaction(row)?);
        }
    }
    found.sort_unstable_by_key(|transaction| std::cmp::Reverse(transaction.id));
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found)
}

/// How many transactions are open, by route and state. Walks over those, in their index only.
///
/// # Errors
/// [`StoreError`]
pub(super) fn count_open(connection: &Connection) -> Result<BTreeMap<(String, TransactionState), u64>, StoreError> {
    let mut counts = BTreeMap::new();
    let mut statement = connection.prepare_cached(
        "SELECT route, state FROM transactions INDEXED BY transactions_open WHERE state IN ('prepared', 'parked')",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let state = state(row.get_ref(1)?.as_str().map_err(unreadable)?)?;
        *counts.entry((row.get(0)?, state)).or_insert(0) += 1;
    }
    Ok(counts)
}

/// Removes at most `limit` transactions that ended before `cutoff` and whose keys are no longer kept. Answers how many.
///
/// # Errors
/// [`StoreError`]
pub(super) fn sweep(connection: &Connection, cutoff: i64, now: Timestamp, limit: u32) -> Result<u32, StoreError> {
    let removed = connection
        .prepare_cached(
            "DELETE FROM transactions WHERE seq IN
                 (SELECT seq FROM transactions INDEXED BY transactions_ended
                  WHERE ended_at IS NOT NULL AND ended_at < ?1 AND keep_until <= ?2 ORDER BY ended_at LIMIT ?3)",
        )?
        .execute(params![cutoff, millis(now), limit])?;
    Ok(u32::try_from(removed).unwrap_or(u32::MAX))
}
