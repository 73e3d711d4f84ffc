//! One connection to the table's database, and what goes on over it: the fence moves up, partitions are held and read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::Source;
use super::cursor::Cursor;
use super::failure::FeedFailure;
use super::fence::Fence;
use super::holding;
use super::line::Line;
use super::settings::Settings;
use super::shown::Progress;
use super::table::Table;
use crate::clock::Clock;
use crate::ingress::contact::Contact;
use crate::ingress::source::Intake;
use crate::store::{Owner, Store};

/// Batches read at once, of however many partitions.
const BATCHES_AT_ONCE: usize = 4;

/// A connection, and what works over it.
pub(super) struct Session {
    pub(super) settings: Arc<Settings>,
    pub(super) table: Table,
    /// The feed, as the store knows it.
    pub(super) feed: String,
    pub(super) line: Line,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) store: Arc<dyn Store>,
    pub(super) owner: Owner,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) progress: Arc<Progress>,
    /// Batches that are read at once: they share the connection, and a statement's patience begins when it is sent.
    pub(super) batches: Semaphore,
    /// Partitions of which a batch is being read, or could not be.
    pub(super) reading: AtomicUsize,
    /// Rows that were put aside since one could be read, in whichever session.
    pub(super) aside: Arc<AtomicU32>,
    /// How the source stands, for onlookers.
    pub(super) contact: Arc<Contact>,
    /// Whether the table has been looked at, and whether something of it was stored.
    looked: AtomicBool,
    pub(super) stored: AtomicBool,
    /// The furthest cursor up to which anything was read, as far as this session knows.
    pub(super) furthest: AtomicI64,
}

/// How a session ended.
pub(super) enum Ended {
    /// The host stops.
    Stopped,
    /// The table cannot be read any more.
    Lost {
        failure: FeedFailure,
        /// Whether it had been read at all.
        served: bool,
    },
}

impl Source {
    /// Connects, and looks the table up. `aside` is how many rows were put aside in a row.
    ///
    /// # Errors
    /// [`FeedFailure`]
    pub(super) async fn connect(&self, aside: &Arc<AtomicU32>) -> Result<Session, FeedFailure> {
        let settings = &self.settings;
        let line = Line::open(&settings.database, &self.clock).await?;
        let table = Table::look_up(&line, settings).await?;
        // Another table, cursor or key is another feed, and begins anew: rows are split and sorted by the key.
        let Settings { name, table: of, cursor, key, .. } = &**settings;
        let feed = format!("{name} {of} {cursor} {} {key} {}", table.cursor_type, table.key_type);
        Ok(Session {
            settings: Arc::clone(settings),
            table,
            feed,
            line,
            intake: Arc::clone(&self.intake),
            store: Arc::clone(&self.store),
            owner: self.owner.clone(),
            clock: Arc::clone(&self.clock),
            progress: Arc::clone(&self.progress),
            batches: Semaphore::new(BATCHES_AT_ONCE),
            reading: AtomicUsize::new(0),
            aside: Arc::clone(aside),
            contact: Arc::clone(&self.contact),
            looked: AtomicBool::new(false),
            stored: AtomicBool::new(false),
            furthest: AtomicI64::new(i64::MIN),
        })
    }
}

impl Session {
    /// Reads until `stop`, or until the connection is lost; then has what is in hand stored, and gives the partitions
    /// back.
    pub(super) async fn run(self, stop: &CancellationToken) -> Ended {
        let session = Arc::new(self);
        let (readable, passed) = watch::channel(None);
        // Raised when reading is to end, whyever.
        let end = CancellationToken::new();
        let mut holding = std::pin::pin!(holding::hold(Arc::clone(&session), passed, end.clone()));
        let failure = tokio::select! {
            biased;
            () = stop.cancelled() => {
                end.cancel();
                holding.await;
                None
            }
            failure = &mut holding => failure,
            failure = session.move_up(readable) => {
                end.cancel();
                holding.await;
                Some(failure)
            }
        };
        if let Err(error) = session.store.leave_feed(session.feed.clone(), session.owner.clone()).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(source = session.settings.name, error, "partitions wait for their leases to run out");
        }
        match failure {
            None => Ended::Stopped,
            Some(failure) => {
                let served = session.has_served(&failure);
                Ended::Lost { failure: session.understood(failure).await, served }
            }
        }
    }

    /// The table is being read: said where it was not before.
    pub(super) fn serves(&self) {
        let Settings { name, table, partitions, .. } = &*self.settings;
        if self.contact.connected(self.clock.now()) {
            tracing::info!(source = name, %table, partitions, "reading the table");
        }
    }

    /// Whether it went well before it failed. A server that answers, but to each batch with the same error, has not
    /// served; one that is being shut down has.
    fn has_served(&self, failure: &FeedFailure) -> bool {
        let refused_for_good = match failure {
            FeedFailure::Refused { code, .. } => !code.starts_with("57"),
            FeedFailure::Unreadable(_) | FeedFailure::NothingReadable { .. } => true,
            _ => false,
        };
        self.stored.load(Ordering::Relaxed) || (self.looked.load(Ordering::Relaxed) && !refused_for_good)
    }

    /// What has changed of the table, in a sentence, where the server refuses a statement for what it names (SQLSTATE class
    /// 42: a column that is gone, a type that cannot be compared); otherwise the failure as it is.
    async fn understood(&self, failure: FeedFailure) -> FeedFailure {
        if !matches!(&failure, FeedFailure::Refused { code, .. } if code.starts_with("42")) {
            return failure;
        }
        let Settings { cursor, key, .. } = &*self.settings;
        let now = match Table::look_up(&self.line, &self.settings).await {
            Ok(now) => now,
            Err(unfit @ FeedFailure::Unfit(_)) => return unfit,
            Err(_) => return failure,
        };
        for (column, was, is) in
            [(cursor, &self.table.cursor_type, &now.cursor_type), (key, &self.table.key_type, &now.key_type)]
        {
            if was != is {
                return FeedFailure::Unfit(format!(
                    "the column {column} was a {was}, and is a {is} now: that is another feed, which begins anew"
                ));
            }
        }
        failure
    }

    /// Moves the cursor up to which rows may be read, until that fails.
    async fn move_up(&self, readable: watch::Sender<Option<Cursor>>) -> FeedFailure {
        let Settings { name, poll, .. } = &*self.settings;
        let fence = Fence {
            source: name,
            line: &self.line,
            clock: &*self.clock,
            progress: &self.progress,
            longest_pause: *poll,
        };
        let mut went_back = false;
        loop {
            let newest = match self.newest().await {
                Ok(newest) => newest,
                Err(failure) => return failure,
            };
            let looked_before = self.looked.swap(true, Ordering::Relaxed);
            // One that was away is only back when it has read what there is, too.
            let has_read = looked_before && self.reading.load(Ordering::Relaxed) == 0;
            if has_read || !self.contact.is_away() {
                self.serves();
            }
            self.look_back(newest, &mut went_back);
            let known = *readable.borrow();
            if let Some(cursor) = newest
                && known < newest
            {
                if let Err(failure) = fence.pass().await {
                    return failure;
                }
                self.progress.readable(self.table.kind.shown(cursor));
                readable.send_replace(newest);
            }
            self.clock.sleep(*poll).await;
        }
    }

    /// Says once when the largest cursor lies before what was read already: rows that draw such cursors are not read.
    fn look_back(&self, newest: Option<Cursor>, went_back: &mut bool) {
        let read = Cursor(self.furthest.load(Ordering::Relaxed));
        let back = newest.filter(|newest| *newest < read);
        if let Some(newest) = back
            && !*went_back
        {
            let Settings { name, table, .. } = &*self.settings;
            let [newest, read] = [newest, read].map(|cursor| self.table.kind.shown(cursor));
            tracing::warn!(
                source = name, %table, %newest, %read,
                "the largest cursor lies before what was read already. If only rows were deleted, nothing is amiss; but if \
                 the table was emptied, restored or replaced, or its cursors begin anew, rows are passed over: give the \
                 source another name, and it begins anew, too"
            );
        }
        *went_back = back.is_some();
        self.progress.went_back(*went_back);
    }

    /// The largest cursor that is visible; none: there are no rows.
    async fn newest(&self) -> Result<Option<Cursor>, FeedFailure> {
        let row = self.line.query_opt(&self.table.newest, &[]).await?;
        Ok(row.map_or(Ok(None), |row| row.try_get(0))?)
    }
}
