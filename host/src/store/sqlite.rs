//! The embedded store: one SQLite file, for one host.
//!
//! Writes go to one thread, which lets everything that waits share a commit (`sqlite/writer.rs`); reads go to a few
//! read-only connections of their own (`sqlite/reader.rs`), so that a long list never delays a message. What the file
//! holds, byte for byte, is described in `sqlite/schema.rs`.
//!
//! It refuses to share: a lock beside the file (`NAME.lock`) turns a second host away. It refuses to guess: a file
//! that is damaged, foreign or of a newer version is [`StoreError::Unusable`], and is left as it was. Damage anywhere in
//! it, or in its log, is looked for at the start, unless the file is larger than 256 MiB. A file that is removed or
//! replaced while the host runs makes every write [`StoreError::Unavailable`] until it is back.

mod accept;
mod claim;
mod feeding;
mod feeds;
mod finish;
mod keys;
mod log;
mod matching;
mod opening;
mod presence;
mod order;
mod reader;
mod rows;
mod schema;
mod sweep;
mod transacting;
mod transactions;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;

use self::reader::Readers;
use self::writer::Writer;
use super::encoding::EncodedAcceptance;
use super::selecting::{self, Amendment};
use super::{
    Acceptance, Accepted, ArchiveLine, Claimed, Filter, Finish, Finished, Hold, KeyClaim, KeyState, LaneClaim, Lease,
    Owner, Retention, Selection, Store, StoreError, Stored, Summary, encoding,
};
use crate::clock::Timestamp;
use crate::message::{Answer, MessageId, State};

/// Messages in one SQLite file.
///
/// Let it go with [`SqliteStore::close`]. Dropping it instead also finishes what waits, but blocks the thread that
/// drops it while it does.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
}

impl SqliteStore {
    /// Opens the file at `path`, or makes it (readable by its owner only) when there is none. Blocks; call it off the
    /// async threads.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when another host has the file, or it is damaged, not a Backstop store, or of a newer
    /// version; [`StoreError::Unavailable`] when it cannot be opened or written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = opening::open(path)?;
        let readers = Readers::open(&opened.path)?;
        let writer = Writer::start(opened.connection, opened.lock, writer::Bounds::default())?;
        Ok(Self { writer, readers })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn accept(&self, acceptance: Acceptance) -> Result<Accepted, StoreError> {
        let weight = acceptance.message.request.body.len();
        let encoded = EncodedAcceptance::of(acceptance)?;
        self.writer.run(weight, move |connection| accept::accept(connection, &encoded)).await
    }

    async fn open_key(&self, claim: KeyClaim, now: Timestamp) -> Result<KeyState, StoreError> {
        self.writer.run(0, move |connection| keys::open(connection, &claim, now)).await
    }

    async fn close_key(&self, claim: KeyClaim, answer: Option<Answer>) -> Result<(), StoreError> {
        let weight = answer.as_ref().map_or(0, |answer| answer.body.len());
        self.writer.run(weight, move |connection| keys::close(connection, &claim, answer.as_ref())).await
    }

    async fn claim_due(&self, lanes: Vec<LaneClaim>, now: Timestamp, lease: Lease) -> Result<Claimed, StoreError> {
        self.writer.run(0, move |connection| claim::claim_due(connection, &lanes, now, &lease)).await
    }

    async fn finish(&self, finish: Finish) -> Result<Finished, StoreError> {
        let record = encoding::encode_attempt(&finish.attempt)?;
        let is_awaited = finish.is_awaited;
        let work = move |connection: &rusqlite::Connection| finish::finish(connection, &finish, &record);
        if is_awaited { self.writer.run(0, work).await } else { self.writer.run_in_company(work).await }
    }

    async fn extend_lease(&self, ids: Vec<MessageId>, lease: Lease) -> Result<Vec<MessageId>, StoreError> {
        self.writer.run(0, move |connection| claim::extend_lease(connection, &ids, &lease)).await
    }

    async fn release(&self, ids: Vec<MessageId>, owner: Owner, now: Timestamp) -> Result<(), StoreError> {
        self.writer.run(0, move |connection| claim::release(connection, &ids, &owner, now)).await
    }

    async fn message(&self, id: MessageId) -> Result<Option<Stored>, StoreError> {
        self.readers.run(move |connection| reader::message(connection, id)).await
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Summary>, StoreError> {
        self.readers.run(move |connection| matching::list(connection, &filter)).await
    }

    async fn archived(&self, after: Option<MessageId>, limit: u32) -> Result<Vec<ArchiveLine>, StoreError> {
        self.readers.run(move |connection| matching::archived(connection, after, limit)).await
    }

    /// A selection of more than 500 messages is redriven 500 at a time, so that the messages on their way are not kept
    /// waiting. If one of these steps fails, those before it stand.
    async fn redrive(&self, selection: Selection, now: Timestamp) -> Result<u64, StoreError> {
        self.amend(selection, Amendment::Redrive { now }).await
    }

    /// In steps, as [`SqliteStore::redrive`] is.
    async fn discard(&self, selection: Selection, now: Timestamp) -> Result<u64, StoreError> {
        self.amend(selection, Amendment::Discard { now }).await
    }

    /// In steps, as [`SqliteStore::redrive`] is.
    async fn discard_queued(&self, route: String, reason: Option<String>, now: Timestamp) -> Result<u64, StoreError> {
        self.amend(selecting::queued_on(route, reason), Amendment::DiscardQueued { now }).await
    }

    async fn sweep(&self, retention: Retention, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.writer.run(0, move |connection| sweep::sweep(connection, &retention, now, limit)).await
    }

    async fn tally(&self) -> Result<BTreeMap<(String, State), u64>, StoreError> {
        self.readers.run(reader::tally).await
    }

    async fn holds(&self, now: Timestamp) -> Result<Vec<Hold>, StoreError> {
        self.readers.run(move |connection| reader::holds(connection, now)).await
    }

    async fn hold(&self, hold: Hold) -> Result<(), StoreError> {
        self.writer.run(0, move |connection| finish::hold(connection, &hold)).await
    }

    async fn backlog(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.readers.run(reader::backlog).await
    }

    /// There is only one host at a time, so every owner but `owner` is gone.
    async fn recover(&self, owner: Owner, now: Timestamp) -> Result<u64, StoreError> {
        self.writer.run(0, move |connection| claim::recover(connection, &owner, now)).await
    }

    /// Also writes everything into the main file.
    async fn close(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        let ending = self.writer.stop();
        tokio::task::spawn_blocking(move || ending.wait())
            .await
            .map_err(|error| StoreError::Unavailable(error.into()))?
    }
}

impl SqliteStore {
    /// Amends what is selected, one bounded step after another.
    async fn amend(&self, selection: Selection, amendment: Amendment) -> Result<u64, StoreError> {
        let mut amended = 0;
        let mut next = Some(matching::Cursor::new(selection));
        while let Some(cursor) = next {
            let step =
                self.writer.run(0, move |connection| matching::amend(connection, cursor.clone(), amendment)).await?;
            amended += step.amended;
            next = step.rest;
        }
        Ok(amended)
    }
}

/// Sorts SQLite's errors into those that a later call may not meet and those that will stay.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        match &error {
            Error::SqliteFailure(failure, _)
                if matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) =>
            {
                Self::Unusable(format!("its file is damaged ({error})"))
            }
            Error::FromSqlConversionFailure(..) | Error::IntegralValueOutOfRange(..) | Error::InvalidColumnType(..) => {
                Self::Unusable(format!("a row cannot be read ({error})"))
            }
            _ => Self::Unavailable(error.into()),
        }
    }
}
