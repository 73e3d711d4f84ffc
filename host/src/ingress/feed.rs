//! A table as a source: each row that is new or has changed becomes a message of a route.
//!
//! The table has a *cursor*, a column that grows with every insert and update (a sequence's next value, or the time),
//! and a *key* that tells rows apart. Rows are read in the order of both, from a checkpoint on, and stored as messages
//! one batch after the other; the checkpoint moves on after that. The feed is split into partitions by a hash of the
//! key; each is read by the one host that holds its lease, and goes on from its checkpoint at another when that one dies
//! or stops. A row may therefore be brought twice, and is known again by its table, key and cursor for as long as its
//! route keeps idempotency keys; none is passed over. What a row looked like between two readings, nobody sees: a feed
//! brings states, not steps. It sees no deletions; a table that has them marks its rows.
//!
//! # Why no row is passed over
//!
//! Cursors are not committed in the order in which they are drawn: a transaction that drew 9 may commit after the one
//! that drew 10 was read. So no row is read before a *fence* has passed (`feed/fence.rs` has the proof):
//!
//! 1. *U*, the largest cursor that is visible, is read. (Of a time, the largest that is at least a second old.)
//! 2. Then all transactions that run in that database are noted: by their virtual ids, which each has from its first
//!    statement on, whether or not it has written yet.
//! 3. Once none of them runs any more, all prepared transactions (two-phase commit) are noted; once none of these is
//!    left, rows up to *U* are read, by a statement that begins then.
//!
//! Whoever drew a cursor up to *U* drew it before *U* was read; it had ended by then, or was noted. Nobody who writes is
//! ever made to wait: it is the feed that waits, for the longest transaction that was running, whatever that does. A
//! report or a backup that runs for an hour in one transaction delays the feed by an hour; that is logged after 30 s,
//! and shown.
//!
//! This holds under conditions, which are the table's owner's to keep:
//!
//! - The cursor is drawn inside of the transaction that writes the row: by a default, a trigger, or the statement
//!   itself. Not by the application's clock, not in an earlier transaction, not copied from elsewhere (a restored
//!   backup, a replica that is written to by replication).
//! - Every insert and update draws a new one, and it never goes back: a sequence with `CACHE 1` and without `CYCLE`
//!   (that is checked where the column's default names it), or `now()`, `clock_timestamp()` and the like by a clock that
//!   is never set back by more than a second, and takes no more than that second from reading the time to beginning the
//!   transaction that it is for.
//! - The primary is read (that is checked). One that was promoted while it lagged may draw cursors anew that were read
//!   already.
//!
//! # A row that cannot be read
//!
//! A row that the server cannot write as JSON (a cast that raises an exception, text that is not in its encoding, more
//! than a gigabyte) would fail each batch that it is in, for ever. Such a batch is read in parts, down to the one row
//! (`feed/caution.rs`), which becomes a dead letter without a body; the fields of its request say which row it is. The
//! row's key and cursor have to be readable: without them it has no place, and the feed waits before it.
//!
//! # What it costs
//!
//! In memory, for each partition that is held, a batch of rows as JSON: `batch` of them, or 4 MiB and one row more. One
//! connection to the table's database for each host. Each partition reads over the rows of the others, as the hash is
//! not indexed: partitions are for hosts to share, not for speed. It refuses tables whose rows it could not tell apart,
//! cursors that do not sort exactly, and standbys.

mod caution;
mod cursor;
mod failure;
mod fence;
mod holding;
mod line;
mod part;
mod reading;
mod row;
mod session;
mod settings;
mod shown;
mod table;
mod unreadable;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use self::session::{Ended, Session};
use super::contact::Contact;
use super::source::Intake;
use crate::amqp::in_words;
use crate::clock::Clock;
use crate::store::{Owner, Store};

pub use self::failure::FeedFailure;
pub use self::settings::{BATCH, LEASE, MOST_BATCH, MOST_PARTITIONS, POLL, Settings};
pub use self::shown::{Progress, Shown};
pub(crate) use self::table::check_name;
pub use self::table::{InvalidName, TableName};
pub use self::unreadable::Unreadable;

/// A source with all it works with.
pub struct Source {
    /// What it is to do.
    pub settings: Arc<Settings>,
    /// Takes what it brings.
    pub intake: Arc<dyn Intake>,
    /// Keeps its place.
    pub store: Arc<dyn Store>,
    /// Who holds its partitions: this host.
    pub owner: Owner,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How it stands with the table's database, for onlookers.
    pub contact: Arc<Contact>,
    /// How far it has come, for onlookers.
    pub progress: Arc<Progress>,
}

/// Why a source has ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("source {name} gave up: table {table} could not be read at {place}, {attempts} times in a row")]
pub struct SourceError {
    name: String,
    table: String,
    place: String,
    attempts: u32,
    #[source]
    failure: FeedFailure,
}

impl Source {
    /// Warns of what a table lacks that can be read all the same.
    fn warn_of(&self, session: &Session) {
        let Settings { name, table, cursor, .. } = &*self.settings;
        if !session.table.cursor_is_indexed {
            tracing::warn!(source = name, %table, cursor, "no index begins with the cursor: every look at the table \
                           reads all of it");
        }
        if session.table.cursor_may_repeat {
            tracing::warn!(source = name, %table, cursor, "nothing keeps two rows from having the same cursor: one that \
                           draws a number that was read before is passed over; make a unique index on it");
        }
    }

    /// Brings rows in until `stop`, reconnecting as configured. Attempts count anew after each connection that served.
    ///
    /// After `stop` it reads nothing more, waits for what [`Intake`] has in hand, writes down how far it has come, and
    /// gives its partitions back. Dropping the future instead leaves them to their leases.
    ///
    /// # Errors
    /// [`SourceError`], when the table could not be read as often as `connect` allows.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SourceError> {
        let Settings { name, table, connect, .. } = &*self.settings;
        let is_warned = AtomicBool::new(false);
        let (mut failed, aside) = (0_u32, Arc::default());
        loop {
            let connected = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                connected = self.connect(&aside) => connected,
            };
            let failure = match connected {
                Ok(session) => {
                    if !is_warned.swap(true, Ordering::Relaxed) {
                        self.warn_of(&session);
                    }
                    match session.run(&stop).await {
                        Ended::Stopped => return Ok(()),
                        Ended::Lost { failure, served } => {
                            failed = if served { 0 } else { failed };
                            failure
                        }
                    }
                }
                Err(failure) => failure,
            };
            failed = failed.saturating_add(1);
            let why = in_words(&failure);
            self.contact.away(&why, self.clock.now());
            self.progress.lost();
            if connect.retries.is_some_and(|retries| failed > retries) {
                return Err(SourceError {
                    name: name.clone(),
                    table: table.to_string(),
                    place: self.settings.database.without_schema(),
                    attempts: failed,
                    failure,
                });
            }
            tracing::warn!(source = name, %table, attempt = failed, why, "cannot read the table; trying again");
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.clock.sleep(connect.wait) => {}
            }
        }
    }
}
