//! A partition being read: a batch of rows, each stored as a message, then the checkpoint; and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::caution::{Caution, Next};
use super::cursor::Cursor;
use super::failure::FeedFailure;
use super::part::{Part, Place};
use super::row::{Mark, Row};
use super::session::Session;
use super::unreadable::Unreadable;
use crate::ingress::source::Stored;
use crate::queue::STORE_RETRY;
use crate::store::Checkpoint;

/// Rows that are stored side by side, where no order is to be kept: they share the store's commits.
const SIDE_BY_SIDE: usize = 16;
/// Rows put aside with none between them that can be read, after which it is no row's fault any more.
const ASIDE_IN_A_ROW: u32 = 100;
/// The shortest pause before a row is brought again that could not be stored.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

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
        let mut caution = Caution::none(self.settings.batch);
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
            self.reading.fetch_add(1, Ordering::Relaxed);
            let rows = tokio::select! {
                biased;
                () = end.cancelled() => None,
                rows = self.batch(partition, place.as_ref(), upper, &mut caution) => Some(rows?),
            };
            self.reading.fetch_sub(1, Ordering::Relaxed);
            let Some(Read { rows, was_last }) = rows else { break };
            let next = match self.store_all(partition, rows, end).await {
                Batch { all: true, .. } if was_last => Some(Checkpoint { cursor: upper.0, key: None }),
                Batch { up_to, .. } => up_to,
            };
            if let Some(next) = next {
                if !self.note(partition, &next, end).await {
                    break;
                }
                self.stored.store(true, Ordering::Relaxed);
                self.serves();
                self.show(partition, Some(&next));
                place = Some(next);
            }
        }
        Ok(())
    }

    /// Reads the next rows of a partition, in order, up to `upper`; of a batch with a row that cannot be read, the rows
    /// before that one, or that one alone.
    async fn batch(
        &self,
        partition: u32,
        place: Option<&Checkpoint>,
        upper: Cursor,
        caution: &mut Caution,
    ) -> Result<Read, FeedFailure> {
        let up_to = Place { cursor: upper, key: None };
        let all = Part { partition, after: place.map(Place::from), up_to };
        loop {
            let Some(most) = caution.part() else {
                match self.rows(&all).await {
                    Err(FeedFailure::Unreadable(_)) => caution.batch_failed(),
                    read => return read,
                }
                continue;
            };
            let places = self.places(&all, most).await?;
            let are_all = places.len() < usize::from(most);
            let Some(last) = places.last() else { return Ok(Read { rows: Vec::new(), was_last: true }) };
            let part = Part { up_to: Place { cursor: last.cursor, key: Some(last.key.clone()) }, ..all.clone() };
            match self.rows(&part).await {
                Ok(Read { rows, was_last }) => {
                    caution.went_well();
                    return Ok(Read { rows, was_last: was_last && are_all });
                }
                Err(FeedFailure::Unreadable(why)) => {
                    if caution.part_failed(places.len()) == Next::PutAside {
                        if self.aside.fetch_add(1, Ordering::Relaxed) >= ASIDE_IN_A_ROW {
                            return Err(FeedFailure::NothingReadable { rows: ASIDE_IN_A_ROW, why });
                        }
                        let alone = places.into_iter().map(|mark| Row { mark, json: Err(why.clone()) });
                        return Ok(Read { rows: alone.collect(), was_last: false });
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Reads a part's rows, as many as are read at once.
    async fn rows(&self, part: &Part) -> Result<Read, FeedFailure> {
        let rows = self.query(&self.table.rows(part), part).await?;
        // Of a batch that is too long as a whole, only the beginning has come.
        let there: i64 = rows.first().map_or(Ok(0), |row| row.try_get(4))?;
        let is_whole = i64::try_from(rows.len()).is_ok_and(|come| come == there);
        let was_last = is_whole && there < i64::from(self.settings.batch);
        if !rows.is_empty() {
            self.aside.store(0, Ordering::Relaxed);
        }
        let rows = rows.iter().map(|row| Ok(Row { mark: mark(row)?, json: Ok(row.try_get(3)?) }));
        Ok(Read { rows: rows.collect::<Result<_, FeedFailure>>()?, was_last })
    }

    /// Reads where a part's first rows stand, so many of them, and nothing else of them.
    async fn places(&self, part: &Part, most: u16) -> Result<Vec<Mark>, FeedFailure> {
        self.query(&self.table.places(part, most), part).await?.iter().map(mark).collect()
    }

    /// Asks for rows, in its turn.
    async fn query(&self, sql: &str, part: &Part) -> Result<Vec<tokio_postgres::Row>, FeedFailure> {
        let _turn = self.batches.acquire().await.map_err(|_| FeedFailure::BrokeOff)?;
        self.line.query(sql, &part.parameters()).await.map_err(|failure| match &failure {
            FeedFailure::Refused { code, message } => {
                Unreadable::of(code, message).map_or(failure, FeedFailure::Unreadable)
            }
            _ => failure,
        })
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
        let place = Checkpoint { cursor: row.mark.cursor.0, key: Some(row.mark.key.clone()) };
        let unreadable = row.json.as_ref().err().map(|why| self.tell_unreadable(partition, &row.mark, why));
        let brought = row.brought(&self.settings, partition);
        while !end.is_cancelled() {
            let stored = match &unreadable {
                None => self.intake.store(brought.clone()).await,
                Some(reason) => self.intake.put_aside(brought.clone(), reason.clone()).await,
            };
            match stored {
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

    /// Says in the log that a row is put aside, and answers the reason. Neither quotes the row.
    fn tell_unreadable(&self, partition: u32, mark: &Mark, why: &Unreadable) -> String {
        let (source, cursor) = (&self.settings.name, &mark.cursor_text);
        tracing::warn!(source, partition, cursor, %why, "a row cannot be read: it is put aside as a dead letter");
        format!(
            "the table's server cannot write this row as JSON: {why}. Correct the row, which is then read again, and \
             discard this: redriven, it would be delivered without a body"
        )
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

/// Which row it is: its cursor, that as text, and its key.
fn mark(row: &tokio_postgres::Row) -> Result<Mark, FeedFailure> {
    Ok(Mark { cursor: row.try_get(0)?, cursor_text: row.try_get(1)?, key: row.try_get(2)? })
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
