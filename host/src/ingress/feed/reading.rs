//! A partition being read: a batch of rows, each stored as a message, then the checkpoint; and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::failure::FeedFailure;
use super::session::Session;
use super::table::After;
use crate::dispatch::nats::headers::is_key;
use crate::ingress::source::{Brought, Stored, fields};
use crate::message::hex;
use crate::queue::STORE_RETRY;
use crate::store::Checkpoint;

/// Rows that are stored side by side, where no order is to be kept: they share the store's commits.
const SIDE_BY_SIDE: usize = 16;
/// The shortest pause before a row is brought again that could not be stored.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// The longest value of a field, in bytes: a key may be longer.
const LONGEST_FIELD: usize = 1024;

/// A row as it was read.
struct Row {
    cursor: Cursor,
    cursor_text: String,
    key: String,
    json: String,
}

impl Session {
    /// Reads a partition from `place` on, until `end` or until it is another host's. What was begun is stored then, and
    /// its place written down.
    ///
    /// # Errors
    /// [`FeedFailure`] when the table cannot be read.
    pub(super) async fn read(
        self: Arc<Self>,
        partition: u32,
        place: Option<Checkpoint>,
        readable: watch::Receiver<Option<Cursor>>,
        end: CancellationToken,
    ) -> Result<(), FeedFailure> {
        self.show(partition, place.as_ref());
        let read = self.read_on(partition, place, readable, &end).await;
        self.progress.let_go(partition);
        read
    }

    async fn read_on(
        &self,
        partition: u32,
        mut place: Option<Checkpoint>,
        mut readable: watch::Receiver<Option<Cursor>>,
        end: &CancellationToken,
    ) -> Result<(), FeedFailure> {
        while !end.is_cancelled() {
            let further = readable.wait_for(|upper| upper.is_some_and(|upper| leads_further(upper, place.as_ref())));
            let upper = tokio::select! {
                biased;
                () = end.cancelled() => break,
                further = further => match further.as_deref() {
                    Ok(Some(upper)) => *upper,
                    Ok(None) | Err(_) => break,
                },
            };
            let rows = tokio::select! {
                biased;
                () = end.cancelled() => break,
                rows = self.batch(partition, place.as_ref(), upper) => rows?,
            };
            let Read { rows, was_last } = rows;
            let next = match self.store_all(partition, rows, end).await {
                Batch { all: true, .. } if was_last => Some(Checkpoint { cursor: upper.0, key: None }),
                Batch { up_to, .. } => up_to,
            };
            if let Some(next) = next {
                if !self.note(partition, &next, end).await {
                    break;
                }
                self.stored.store(true, Ordering::Relaxed);
                self.show(partition, Some(&next));
                place = Some(next);
            }
        }
        Ok(())
    }

    /// Reads the next rows of a partition, in order, up to `upper`.
    async fn batch(&self, partition: u32, place: Option<&Checkpoint>, upper: Cursor) -> Result<Read, FeedFailure> {
        let _turn = self.batches.acquire().await.map_err(|_| FeedFailure::BrokeOff)?;
        let after = place.map(|place| Cursor(place.cursor));
        let key = place.and_then(|place| place.key.as_ref());
        let (after_what, parameters): (After, Vec<&(dyn ToSql + Sync)>) = match (&after, &key) {
            (None, _) => (After::Nothing, vec![&upper]),
            (Some(after), None) => (After::Cursor, vec![&upper, after]),
            (Some(after), Some(key)) => (After::Row, vec![&upper, after, key]),
        };
        let rows = self.line.query(&self.table.batch(partition, after_what), &parameters).await?;
        // Of a batch that is too long as a whole, only the beginning has come.
        let there: i64 = rows.first().map_or(Ok(0), |row| row.try_get(4))?;
        let is_whole = i64::try_from(rows.len()).is_ok_and(|come| come == there);
        let was_last = is_whole && there < i64::from(self.settings.batch);
        let rows = rows.iter().map(|row| {
            Ok(Row {
                cursor: row.try_get(0)?,
                cursor_text: row.try_get(1)?,
                key: row.try_get(2)?,
                json: row.try_get(3)?,
            })
        });
        Ok(Read { rows: rows.collect::<Result<_, FeedFailure>>()?, was_last })
    }

    /// Has rows stored, however often that takes, until `end`.
    async fn store_all(&self, partition: u32, rows: Vec<Row>, end: &CancellationToken) -> Batch {
        let width = if self.intake.keeps_order() { 1 } else { SIDE_BY_SIDE };
        let mut storing = stream::iter(rows).map(|row| self.store_one(partition, row, end)).buffered(width);
        let mut brought = Batch { up_to: None, all: true };
        while let Some(stored) = storing.next().await {
            match stored {
                // Those that were stored behind one that was not are brought again, and known again.
                Some(place) if brought.all => brought.up_to = Some(place),
                Some(_) => {}
                None => brought.all = false,
            }
        }
        brought
    }

    /// Has a row stored. Answers its place; none when it is not stored, and the end has come.
    async fn store_one(&self, partition: u32, row: Row, end: &CancellationToken) -> Option<Checkpoint> {
        let place = Checkpoint { cursor: row.cursor.0, key: Some(row.key.clone()) };
        let brought = self.brought(partition, row);
        while !end.is_cancelled() {
            match self.intake.store(brought.clone()).await {
                Stored::Yes => return Some(place),
                Stored::NotNow(again) => {
                    tokio::select! {
                        biased;
                        () = end.cancelled() => {}
                        () = self.clock.sleep(again.max(SHORTEST_WAIT)) => {}
                    }
                }
            }
        }
        None
    }

    /// A row as the message that it becomes.
    fn brought(&self, partition: u32, row: Row) -> Brought {
        let table = self.settings.table.to_string();
        // The source is named because another one may read a table of that name in another database.
        let own = format!("{} {table} {} {}", self.settings.name, row.cursor_text, row.key);
        let key = if is_key(&own) { own } else { hex(&Sha256::digest(own.as_bytes())) };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [
            (fields::BROKER, "feed".to_owned()),
            (fields::ORIGIN, table),
            (fields::SEQUENCE, row.cursor_text),
            (fields::PARTITION, partition.to_string()),
            (fields::SUBJECT, row.key),
        ] {
            // What is too long or cannot be a field's value, a policy finds in the body.
            if let Ok(value) = HeaderValue::try_from(value)
                && value.len() <= LONGEST_FIELD
            {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        Brought {
            headers,
            body: Bytes::from(row.json),
            key: Some(key),
            // Nothing tells a row's first time from a repeat, after a takeover or a lost checkpoint; but the key is that
            // of this state of this row alone, so what has it is the same.
            delivered_before: 1,
            last_delivery: false,
        }
    }

    /// Writes down how far a partition has come, however often that takes. Answers whether it is still this host's.
    async fn note(&self, partition: u32, place: &Checkpoint, end: &CancellationToken) -> bool {
        let source = &self.settings.name;
        let mut wait = STORE_RETRY.0;
        loop {
            let noted = self.store.checkpoint(self.feed.clone(), partition, self.owner.clone(), place.clone());
            match noted.await {
                Ok(true) => return true,
                Ok(false) => {
                    tracing::warn!(source, partition, "another host has the partition: its rows may be brought twice");
                    return false;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(source, partition, error, "cannot write down how far a partition has come");
                }
            }
            tokio::select! {
                biased;
                () = end.cancelled() => return false,
                () = self.clock.sleep(wait) => {}
            }
            wait = (wait * 2).min(STORE_RETRY.1);
        }
    }

    fn show(&self, partition: u32, place: Option<&Checkpoint>) {
        if let Some(place) = place {
            self.furthest.fetch_max(place.cursor, Ordering::Relaxed);
        }
        let shown = place.map(|place| self.table.kind.shown(Cursor(place.cursor)));
        self.progress.at(partition, shown.unwrap_or_default());
    }
}

/// A batch.
struct Read {
    rows: Vec<Row>,
    /// Whether there were no more.
    was_last: bool,
}

/// What became of a batch.
struct Batch {
    /// The place up to which every row is stored; none: not even the first.
    up_to: Option<Checkpoint>,
    /// Whether all of it is.
    all: bool,
}

/// Whether there may be rows behind `place` when they may be read up to `upper`.
fn leads_further(upper: Cursor, place: Option<&Checkpoint>) -> bool {
    place.is_none_or(|place| upper.0 > place.cursor || (upper.0 == place.cursor && place.key.is_some()))
}
