//! Reading beside the writer, on read-only connections of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::Semaphore;

use super::{opening, rows, transactions};
use crate::clock::Timestamp;
use crate::message::{MessageId, State};
use crate::store::{Blocker, Hold, StoreError, Stored, Turn, encoding};

/// Reads at the same time.
const CONNECTIONS: usize = 4;

/// Reads under way or waiting; more are refused as saturated.
const WAITING: usize = 256;

/// The connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    /// One permit for each connection; closed with the store.
    turns: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Readers {
    /// Opens the connections. The file must have been prepared.
    ///
    /// # Errors
    /// [`StoreError`]
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let idle = (0..CONNECTIONS).map(|_| opening::connect_reader(path)).collect::<Result<_, _>>()?;
        Ok(Self {
            idle: Arc::new(Mutex::new(idle)),
            turns: Arc::new(Semaphore::new(CONNECTIONS)),
            waiting: Semaphore::new(WAITING),
        })
    }

    /// Has `read` done on a thread where it may block, within one snapshot of the store.
    ///
    /// # Errors
    /// What `read` failed with; [`StoreError::Saturated`] when too many wait; [`StoreError::Unavailable`] when the
    /// store is closed.
    pub(super) async fn run<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let _place = self.waiting.try_acquire().map_err(|_| StoreError::Saturated)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| closed())?;
        let idle = Arc::clone(&self.idle);
        let work = move || {
            // The turn is held until the connection is back, even if the caller has gone.
            let _turn = turn;
            let connection = idle.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(closed)?;
            let result = within_snapshot(&connection, read);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable(error.into()))?
    }

    /// Waits for the reads under way and closes the connections.
    pub(super) async fn close(&self) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        if let Ok(turns) = self.turns.acquire_many(all).await {
            self.turns.close();
            turns.forget();
            let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
            // Closing a connection touches the file.
            let _ = tokio::task::spawn_blocking(move || drop(idle)).await;
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

fn within_snapshot<T>(
    connection: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    // Ends, by rollback, when it is dropped; there is nothing to commit.
    let snapshot = connection.unchecked_transaction()?;
    read(&snapshot)
}

/// A message and its journal.
///
/// # Errors
/// [`StoreError`]
pub(super) fn message(connection: &Connection, id: MessageId) -> Result<Option<Stored>, StoreError> {
    let head = connection
        .prepare_cached(concat!(
            "SELECT ",
            encoding::summary_columns!(),
            ", m.seq FROM messages m JOIN requests r ON r.seq = m.seq WHERE m.id = ?1"
        ))?
        .query_row([id.as_bytes()], |row| Ok((rows::summary(row), row.get::<_, i64>(12)?)))
        .optional()?;
    let Some((summary, seq)) = head else { return Ok(None) };
    let message = connection
        .prepare_cached(concat!(
            "SELECT ",
            encoding::message_columns!(),
            " FROM messages m JOIN requests r ON r.seq = m.seq WHERE m.seq = ?1"
        ))?
        .query_row([seq], |row| Ok(rows::message(row)))?;
    let mut statement = connection.prepare_cached("SELECT record FROM attempts WHERE seq = ?1 ORDER BY ordinal")?;
    let mut attempts = Vec::new();
    let mut records = statement.query([seq])?;
    while let Some(row) = records.next()? {
        attempts.push(encoding::decode_attempt(row.get_ref(0)?.as_str().map_err(encoding::unreadable)?)?);
    }
    let summary = summary?;
    let blocked_by = if summary.turn == Some(Turn::Behind) { blocker(connection, seq)? } else { None };
    Ok(Some(Stored { message: message?, summary, attempts, blocked_by }))
}

/// The message whose turn it is in the order of the message `seq`.
fn blocker(connection: &Connection, seq: i64) -> Result<Option<Blocker>, StoreError> {
    connection
        .prepare_cached(
            "SELECT b.id, b.state FROM messages m JOIN messages b INDEXED BY messages_in_order
                 ON b.order_route = m.order_route AND b.order_key = m.order_key AND b.turn > 0 AND b.turn = 1
             WHERE m.seq = ?1",
        )?
        .query_row([seq], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
        .optional()?
        .map(|(id, state)| Ok(Blocker { id: MessageId::from_bytes(id), state: encoding::state(&state)? }))
        .transpose()
}

/// How many messages there are, by route and state. Walks over all of them, in indexes only: about a third of a second
/// for every million.
///
/// # Errors
/// [`StoreError`]
pub(super) fn tally(connection: &Connection) -> Result<BTreeMap<(String, State), u64>, StoreError> {
    let mut tally = BTreeMap::new();
    for state in State::ALL {
        let counts = count_by_route(connection, state)?;
        tally.extend(counts.into_iter().map(|(route, count)| ((route, state), count)));
    }
    Ok(tally)
}

/// How many messages have not ended, by route, open transactions counted in. Walks over those, as [`tally`] does.
///
/// # Errors
/// [`StoreError`]
pub(super) fn backlog(connection: &Connection) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut backlog = count_by_route(connection, State::Queued)?;
    for (route, count) in count_by_route(connection, State::InFlight)? {
        *backlog.entry(route).or_default() += count;
    }
    for ((route, _), count) in transactions::count_open(connection)? {
        *backlog.entry(route).or_default() += count;
    }
    Ok(backlog)
}

fn count_by_route(connection: &Connection, state: State) -> Result<BTreeMap<String, u64>, StoreError> {
    const FINISHED: &str = "SELECT route FROM messages INDEXED BY messages_finished
        WHERE ended_at IS NOT NULL AND state NOT IN ('answered', 'dead') AND state = ?1";
    const IN_FLIGHT: &str = "SELECT route FROM messages INDEXED BY messages_leased
        WHERE state = 'in_flight' AND state = ?1";
    const OTHERS: &str = "SELECT route FROM messages INDEXED BY messages_by_state
        WHERE state NOT IN ('delivered', 'in_flight') AND state = ?1";
    let mut statement = connection.prepare_cached(match state {
        State::Delivered | State::Dropped | State::Discarded => FINISHED,
        State::InFlight => IN_FLIGHT,
        State::Queued | State::Answered | State::Dead => OTHERS,
    })?;
    let mut routes = statement.query([state.as_str()])?;
    // Counted here, because SQLite would sort them first.
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(row) = routes.next()? {
        let route = row.get_ref(0)?.as_str().map_err(encoding::unreadable)?;
        match counts.get_mut(route) {
            Some(count) => *count += 1,
            None => {
                counts.insert(route.to_owned(), 1);
            }
        }
    }
    Ok(counts)
}

/// Holds that have not run out.
///
/// # Errors
/// [`StoreError`]
pub(super) fn holds(connection: &Connection, now: Timestamp) -> Result<Vec<Hold>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT destination, until FROM holds WHERE until > ?1 ORDER BY destination")?;
    let holds = statement.query_map(params![encoding::millis(now)], |row| {
        Ok(Hold { destination: row.get(0)?, until: encoding::timestamp(row.get(1)?) })
    })?;
    Ok(holds.collect::<rusqlite::Result<_>>()?)
}
