//! Half messages: written down, settled by the first word, claimed to be asked about.
//!
//! Whoever says a word, or resumes, locks the transaction's row first and looks at it then: of words that come at once,
//! on whatever hosts, one is the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connections::Connection;
use super::failure::Failure;
use super::rows::{self, plain, text, uuid};
use super::{accept, keys};
use crate::clock::Timestamp;
use crate::message::{Message, MessageId, Origin, Progress, Request, RouteName};
use crate::store::encoding::{self, EncodedAcceptance, millis, unreadable};
use crate::store::selecting::page_of;
use crate::store::transacting::{resumed_before, said_before, state};
use crate::store::{
    Acceptance, Check, CheckNote, ClaimedChecks, Confirmed, Entry, KeyState, Lease, Preparation, Prepared, Said,
    Saying, TransactionFilter,
};
use crate::transaction::{Transaction, TransactionState, Word};

/// Writes a half message down, unless its idempotency key was used before. `headers` are its header fields, encoded.
///
/// # Errors
/// [`Failure`]
pub(super) async fn prepare(
    connection: Connection<'_>,
    preparation: &Preparation,
    headers: &[u8],
) -> Result<Prepared, Failure> {
    const INSERT: &str = "WITH t AS (
            INSERT INTO transactions (id, route, state, prepared_at, due_at, checks, unreached, reason, keep_until,
                idempotency_key, order_key, method, path)
            VALUES ($1, $2, 'prepared', $3, $4, 0, 0, '', $5, $6, $7, $8, $9))
        INSERT INTO half_requests (id, headers, body) VALUES ($1, $10, $11)";
    let Preparation { message, order, first_check, key } = preparation;
    connection.begin().await?;
    if let Some(claim) = key {
        match keys::store(&connection, claim, message.id, message.accepted_at).await? {
            KeyState::Fresh => {}
            used => {
                connection.roll_back().await?;
                return Ok(match used {
                    // Stored by this very call, whose answer was lost, before it was repeated.
                    KeyState::Stored(id) if id == message.id => Prepared::Stored,
                    used => Prepared::Key(used),
                });
            }
        }
    }
    connection
        .query(
            INSERT,
            &[
                &uuid(message.id),
                &message.route.as_str(),
                &millis(message.accepted_at),
                &millis(*first_check),
                &key.as_ref().map_or(0, |claim| millis(claim.keep_until)),
                &message.idempotency_key.as_deref().map(text),
                &order.as_deref().map(text),
                &message.request.method.as_str(),
                &text(&message.request.path),
                &headers,
                &&message.request.body[..],
            ],
        )
        .await?;
    connection.commit().await?;
    Ok(Prepared::Stored)
}

/// Makes a message of an open transaction.
///
/// # Errors
/// [`Failure`]
pub(super) async fn confirm(
    connection: Connection<'_>,
    saying: &Saying,
    entry: &Entry,
) -> Result<Said<Confirmed>, Failure> {
    connection.begin().await?;
    if let Some(said) = said_so_far(&connection, saying.id, Word::Confirm).await? {
        connection.roll_back().await?;
        return Ok(said);
    }
    let Some((message, order, headers)) = whole(&connection, saying.id).await? else { return Err(without_request()) };
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
    let call = EncodedAcceptance { acceptance, headers, attempts: Vec::new() };
    let behind = accept::store(&connection, &call).await?;
    end(&connection, saying, Word::Confirm).await?;
    connection.commit().await?;
    Ok(Said::Taken(Confirmed { message, behind }))
}

/// Forgets what an open transaction would have delivered.
///
/// # Errors
/// [`Failure`]
pub(super) async fn cancel(connection: Connection<'_>, saying: &Saying) -> Result<Said<()>, Failure> {
    connection.begin().await?;
    if let Some(said) = said_so_far(&connection, saying.id, Word::Cancel).await? {
        connection.roll_back().await?;
        return Ok(said);
    }
    end(&connection, saying, Word::Cancel).await?;
    connection.commit().await?;
    Ok(Said::Taken(()))
}

/// What `word` comes to; none when it is the first one. The transaction stays locked until the database's ends.
async fn said_so_far<T>(connection: &Connection<'_>, id: MessageId, word: Word) -> Result<Option<Said<T>>, Failure> {
    Ok(match locked(connection, id).await? {
        Some(state) => said_before(state, word),
        None => Some(Said::Unknown),
    })
}

async fn locked(connection: &Connection<'_>, id: MessageId) -> Result<Option<TransactionState>, Failure> {
    let row = connection.query_opt("SELECT state FROM transactions WHERE id = $1 FOR UPDATE", &[&uuid(id)]).await?;
    row.map(|row| Ok(state(rows::column(&row, "state")?)?)).transpose()
}

async fn end(connection: &Connection<'_>, saying: &Saying, word: Word) -> Result<(), Failure> {
    connection
        .query(
            "WITH gone AS (DELETE FROM half_requests WHERE id = $1)
             UPDATE transactions SET state = $2, reason = $3, ended_at = $4, checks = checks + $5, due_at = NULL,
                 lease_owner = NULL
             WHERE id = $1",
            &[
                &uuid(saying.id),
                &word.leads_to().as_str(),
                &text(&saying.reason),
                &millis(saying.at),
                &i64::from(saying.checked),
            ],
        )
        .await?;
    Ok(())
}

/// What an open transaction would deliver, the order it belongs to, and its header fields as they are encoded.
async fn whole(
    connection: &Connection<'_>,
    id: MessageId,
) -> Result<Option<(Message, Option<String>, Vec<u8>)>, Failure> {
    const WHOLE: &str = concat!(
        "SELECT ",
        encoding::half_message_columns!(),
        ", h.body, t.order_key FROM transactions AS t JOIN half_requests AS h ON h.id = t.id WHERE t.id = $1"
    );
    let Some(row) = connection.query_opt(WHOLE, &[&uuid(id)]).await? else { return Ok(None) };
    let body = Bytes::from(rows::column::<Vec<u8>>(&row, "body")?);
    let order = rows::column::<Option<&str>>(&row, "order_key")?.map(plain);
    Ok(Some((message(&row, body)?, order, rows::column(&row, "headers")?)))
}

fn without_request() -> Failure {
    Failure::Unusable("it has an open transaction without its request".to_owned())
}

/// A half message from `encoding::half_message_columns`.
fn message(row: &Row, body: Bytes) -> Result<Message, Failure> {
    let route: &str = rows::column(row, "route")?;
    let method: &str = rows::column(row, "method")?;
    Ok(Message {
        id: rows::id(row)?,
        route: RouteName::new(route).map_err(unreadable)?,
        idempotency_key: rows::column::<Option<&str>>(row, "idempotency_key")?.map(plain),
        accepted_at: rows::moment(row, "prepared_at")?,
        progress: Progress::default(),
        origin: Origin::default(),
        request: Arc::new(Request {
            method: Method::from_bytes(method.as_bytes()).map_err(unreadable)?,
            path: plain(rows::column(row, "path")?),
            headers: encoding::decode_headers(rows::column(row, "headers")?)?,
            body,
        }),
    })
}

/// Claims the transactions on a route whose senders are to be asked. Rows that another host has locked are passed over.
/// One that cannot be read is claimed and left out, and so holds nobody up; it is reported each time its lease has run
/// out.
///
/// # Errors
/// [`Failure`]
pub(super) async fn claim(
    connection: Connection<'_>,
    route: &RouteName,
    limit: u32,
    now: Timestamp,
    lease: &Lease,
) -> Result<ClaimedChecks, Failure> {
    const CLAIM: &str = concat!(
        "WITH picked AS MATERIALIZED (
            SELECT id, due_at AS due FROM transactions WHERE state = 'prepared' AND route = $1 AND due_at <= $2
            ORDER BY due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED)
         UPDATE transactions AS t SET due_at = $4, lease_owner = $5
         FROM picked AS p LEFT JOIN half_requests AS h ON h.id = p.id
         WHERE t.id = p.id
         RETURNING p.due, t.checks, t.unreached, ",
        encoding::half_message_columns!()
    );
    connection.begin().await?;
    let taken = connection
        .query(CLAIM, &[&route.as_str(), &millis(now), &i64::from(limit), &millis(lease.until), &lease.owner.0])
        .await?;
    let next = connection
        .query_opt(
            "SELECT due_at FROM transactions WHERE state = 'prepared' AND route = $1 ORDER BY due_at LIMIT 1",
            &[&route.as_str()],
        )
        .await?;
    let next_due = next.map(|row| rows::moment(&row, "due_at")).transpose()?;
    connection.commit().await?;
    let mut checks: Vec<(i64, Check)> = Vec::with_capacity(taken.len());
    for row in &taken {
        match check(row) {
            Ok(check) => checks.push(check),
            Err(failure) => {
                let id = rows::id(row).map(|id| id.to_string()).unwrap_or_default();
                tracing::error!(message_id = id, %route, %failure, "a transaction cannot be read and is passed over");
            }
        }
    }
    checks.sort_unstable_by_key(|(due, check)| (*due, check.message.id));
    Ok(ClaimedChecks { checks: checks.into_iter().map(|(_, check)| check).collect(), next_due })
}

fn check(row: &Row) -> Result<(i64, Check), Failure> {
    let (checks, unreached) = (rows::count(row, "checks")?, rows::count(row, "unreached")?);
    Ok((rows::column(row, "due")?, Check { message: message(row, Bytes::new())?, checks, unreached }))
}

/// Writes down what a check came to that settled nothing; answers whether its lease was still held.
///
/// # Errors
/// [`Failure`]
pub(super) async fn note(connection: Connection<'_>, note: &CheckNote) -> Result<bool, Failure> {
    let state = if note.next.is_some() { TransactionState::Prepared } else { TransactionState::Parked };
    let noted = connection
        .query(
            "UPDATE transactions SET state = $3, due_at = $4, reason = $5, checks = $6, unreached = $7, lease_owner = NULL
             WHERE id = $1 AND state = 'prepared' AND lease_owner = $2 RETURNING id",
            &[
                &uuid(note.id),
                &note.owner.0,
                &state.as_str(),
                &note.next.map(millis),
                &text(&note.reason),
                &i64::from(note.checks),
                &i64::from(note.unreached),
            ],
        )
        .await?;
    Ok(!noted.is_empty())
}

/// Has the sender of a parked transaction asked again.
///
/// # Errors
/// [`Failure`]
pub(super) async fn resume(connection: Connection<'_>, id: MessageId, now: Timestamp) -> Result<Said<()>, Failure> {
    connection.begin().await?;
    let said = match locked(&connection, id).await? {
        None => Said::Unknown,
        Some(state) => match resumed_before(state) {
            Some(said) => said,
            None => {
                connection
                    .query(
                        "UPDATE transactions SET state = 'prepared', due_at = $2, checks = 0, unreached = 0
                         WHERE id = $1",
                        &[&uuid(id), &millis(now)],
                    )
                    .await?;
                Said::Taken(())
            }
        },
    };
    connection.commit().await?;
    Ok(said)
}

/// A transaction.
///
/// # Errors
/// [`Failure`]
pub(super) async fn one(connection: Connection<'_>, id: MessageId) -> Result<Option<Transaction>, Failure> {
    const ONE: &str = concat!("SELECT ", encoding::transaction_columns!(), " FROM transactions WHERE id = $1");
    connection.query_opt(ONE, &[&uuid(id)]).await?.map(|row| transaction(&row)).transpose()
}

/// What an open transaction would deliver.
///
/// # Errors
/// [`Failure`]
pub(super) async fn half_message(connection: Connection<'_>, id: MessageId) -> Result<Option<Message>, Failure> {
    Ok(whole(&connection, id).await?.map(|(message, ..)| message))
}

fn transaction(row: &Row) -> Result<Transaction, Failure> {
    Ok(Transaction {
        id: rows::id(row)?,
        route: rows::column(row, "route")?,
        state: state(rows::column(row, "state")?)?,
        reason: plain(rows::column(row, "reason")?),
        checks: rows::count(row, "checks")?,
        unreached: rows::count(row, "unreached")?,
        method: rows::column(row, "method")?,
        path: plain(rows::column(row, "path")?),
        prepared_at: rows::moment(row, "prepared_at")?,
        next_check_at: rows::moment_or_none(row, "due_at")?,
        ended_at: rows::moment_or_none(row, "ended_at")?,
    })
}

/// Transactions that fit, newest first.
///
/// # Errors
/// [`Failure`]
pub(super) async fn list(connection: Connection<'_>, filter: &TransactionFilter) -> Result<Vec<Transaction>, Failure> {
    // Along the ids; the few that are open are found along an index of their own.
    const ALL: &str = concat!(
        "SELECT ",
        encoding::transaction_columns!(),
        " FROM transactions WHERE id < $1 AND ($2::text IS NULL OR route = $2) AND ($3::text IS NULL OR state = $3)
         ORDER BY id DESC LIMIT $4"
    );
    const OPEN: &str = concat!(
        "SELECT ",
        encoding::transaction_columns!(),
        " FROM transactions
         WHERE state IN ('prepared', 'parked') AND state = $3::text AND id < $1 AND ($2::text IS NULL OR route = $2)
         ORDER BY id DESC LIMIT $4"
    );
    let limit = page_of(filter.limit);
    let before = filter.before.map_or(Uuid::max(), uuid);
    let states: BTreeSet<Option<TransactionState>> = if filter.states.is_empty() {
        BTreeSet::from([None])
    } else {
        filter.states.iter().copied().map(Some).collect()
    };
    let mut found = Vec::new();
    for state in states {
        let sql = if state.is_some_and(TransactionState::is_open) { OPEN } else { ALL };
        let name = state.map(TransactionState::as_str);
        for row in connection.query(sql, &[&before, &filter.route, &name, &i64::from(limit)]).await? {
            found.push(transaction(&row)?);
        }
    }
    found.sort_unstable_by_key(|transaction| std::cmp::Reverse(transaction.id));
    found.truncate(limit as usize);
    Ok(found)
}

/// How many transactions are open, by route and state. Walks over those.
///
/// # Errors
/// [`Failure`]
pub(super) async fn count_open(
    connection: &Connection<'_>,
) -> Result<BTreeMap<(String, TransactionState), u64>, Failure> {
    const COUNT: &str = "SELECT route, state, count(*) AS transactions FROM transactions
        WHERE state IN ('prepared', 'parked') GROUP BY route, state";
    let mut counts = BTreeMap::new();
    for row in connection.query(COUNT, &[]).await? {
        let count = rows::column::<i64>(&row, "transactions")?.unsigned_abs();
        counts.insert((rows::column(&row, "route")?, state(rows::column(&row, "state")?)?), count);
    }
    Ok(counts)
}

/// Removes at most `limit` transactions that ended before `cutoff` and whose keys are no longer kept. Answers how many.
///
/// # Errors
/// [`Failure`]
pub(super) async fn sweep(
    connection: &Connection<'_>,
    cutoff: i64,
    now: Timestamp,
    limit: i64,
) -> Result<usize, Failure> {
    let removed = connection
        .query(
            "DELETE FROM transactions WHERE id IN
                 (SELECT id FROM transactions WHERE ended_at IS NOT NULL AND ended_at < $1 AND keep_until <= $2
                  ORDER BY ended_at LIMIT $3 FOR UPDATE SKIP LOCKED)
             RETURNING id",
            &[&cutoff, &millis(now), &limit],
        )
        .await?;
    Ok(removed.len())
}
