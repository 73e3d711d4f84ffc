//! The store: where messages are kept, so that accepted means committed.
//!
//! Every method is a whole transaction; none is the first half of a get-then-set. A method returns only when its
//! change is on disk. Implementations batch: many callers share one commit. They know SQL; nothing else does.
//!
//! [`sqlite`] is the embedded default, for one host. Its bounds: 8192 calls that write and 256 that read may wait,
//! and the bodies of the former may come to 256 MiB; a call beyond that is [`StoreError::Saturated`].
//!
//! [`postgres`] is for hosts that share their messages. Its bounds, for each host and for each of acceptances,
//! acceptances with an idempotency key, and finishes: 8192 may wait, with bodies of 256 MiB. Of all other calls 1024
//! may wait.

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod memory;
mod encoding;
mod feeding;
pub mod postgres;
mod selecting;
pub mod sqlite;
mod transacting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::message::{Answer, AttemptRecord, Message, MessageId, Progress, RouteName, State};

pub use feeding::{Checkpoint, Feeding, Partition, PartitionClaim, PartitionsClaimed, share};
pub use postgres::{PostgresStore, PostgresTarget};
pub use sqlite::SqliteStore;
pub use transacting::{
    Check, CheckNote, ClaimedChecks, Confirmed, Preparation, Prepared, Said, Saying, Transacting, TransactionFilter,
};

/// Who holds a lease: one running host. New at every start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner(pub String);

/// A seam: where messages are kept.
#[async_trait]
pub trait Store: Transacting + Feeding + Send + Sync + 'static {
    /// Takes responsibility for a message: writes it, in whatever state it comes, with the attempts already made.
    /// With an idempotency key the key is looked up and taken in the same transaction.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is then stored.
    async fn accept(&self, acceptance: Acceptance) -> Result<Accepted, StoreError>;

    /// Takes an idempotency key for a request that is answered while its caller waits, before it is first attempted.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn open_key(&self, claim: KeyClaim, now: Timestamp) -> Result<KeyState, StoreError>;

    /// Writes down the answer given under a key that was opened with this claim, or, with `None`, gives the key back. A
    /// key that another message has taken since is left alone.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn close_key(&self, claim: KeyClaim, answer: Option<Answer>) -> Result<(), StoreError>;

    /// Claims messages that are due, oldest due first, for each lane at most `limit`, under a lease. No message is
    /// ever held under two leases, and of those in one order only the first is ever claimed. Where a lease had lapsed,
    /// the attempt that may have been made under it is written down as [`AttemptRecord::interrupted`].
    ///
    /// # Errors
    /// [`StoreError`]; nothing is then claimed.
    async fn claim_due(&self, lanes: Vec<LaneClaim>, now: Timestamp, lease: Lease) -> Result<Claimed, StoreError>;

    /// Writes down an attempt and what follows from it, if the lease is still held.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is then changed, and the caller tries again.
    async fn finish(&self, finish: Finish) -> Result<Finished, StoreError>;

    /// Prolongs the lease of messages still being attempted; answers those of them that are still held.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn extend_lease(&self, ids: Vec<MessageId>, lease: Lease) -> Result<Vec<MessageId>, StoreError>;

    /// Gives back what `owner` holds and has not finished, at a shutdown: an attempt that may have been made is
    /// written down as [`AttemptRecord::interrupted`]. Nothing is counted against the route's limits.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn release(&self, ids: Vec<MessageId>, owner: Owner, now: Timestamp) -> Result<(), StoreError>;

    /// A message and its journal, if it is known.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn message(&self, id: MessageId) -> Result<Option<Stored>, StoreError>;

    /// Messages that fit `filter`, newest first.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn list(&self, filter: Filter) -> Result<Vec<Summary>, StoreError>;

    /// The archive's lines after the message `after` (none: from the first), oldest first, at most `limit`: every message
    /// that is kept has one.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn archived(&self, after: Option<MessageId>, limit: u32) -> Result<Vec<ArchiveLine>, StoreError>;

    /// Queues what is selected again, due at once, with its attempts counted afresh. Only messages that ended dead,
    /// answered or dropped are redriven; the others that were named are left alone. Answers how many were.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn redrive(&self, selection: Selection, now: Timestamp) -> Result<u64, StoreError>;

    /// Gives up the dead letters selected: they become [`State::Discarded`]. Answers how many did.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn discard(&self, selection: Selection, now: Timestamp) -> Result<u64, StoreError>;

    /// Gives up what is queued on `route` and whose reason contains `reason`, if that is given: it becomes
    /// [`State::Discarded`]. What is being attempted is left alone. Whoever calls this knows that nobody serves the
    /// route. Answers how many messages were given up.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn discard_queued(&self, route: String, reason: Option<String>, now: Timestamp) -> Result<u64, StoreError>;

    /// Removes, at most `limit` at a time, what has ended longer ago than it is to be kept, transactions that have and
    /// whose key is no longer kept either, and idempotency keys past their time. Answers how many rows went; the caller
    /// comes again while that is `limit`.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn sweep(&self, retention: Retention, now: Timestamp, limit: u32) -> Result<u64, StoreError>;

    /// How many messages there are, by route and state.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn tally(&self) -> Result<BTreeMap<(String, State), u64>, StoreError>;

    /// How many messages have not ended, by route; half messages that wait for their sender's word are counted in.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn backlog(&self) -> Result<BTreeMap<String, u64>, StoreError>;

    /// Holds on destinations that have not run out by `now`.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn holds(&self, now: Timestamp) -> Result<Vec<Hold>, StoreError>;

    /// Writes a hold down by itself: for a message that is not kept here. Of two holds on one destination the later end
    /// counts.
    ///
    /// # Errors
    /// [`StoreError`]; it is then not written.
    async fn hold(&self, hold: Hold) -> Result<(), StoreError>;

    /// Takes over, at a start, what hosts that are surely gone left: what they held is queued again and due `now`, their
    /// attempts are written down as interrupted, and the keys they had opened are free. To be called once, before
    /// anything is claimed. A store that other hosts may share takes nothing over: leases lapse by themselves. Answers
    /// how many messages were taken over.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is then changed.
    async fn recover(&self, owner: Owner, now: Timestamp) -> Result<u64, StoreError>;

    /// Finishes what waits and lets go of everything. Calls made after this find the store unavailable. Closing twice
    /// does no harm.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it did not end in good order. What was answered before is on disk even then.
    async fn close(&self) -> Result<(), StoreError>;
}

/// A message to be taken responsibility for.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// The message.
    pub message: Message,
    /// The state it is stored in.
    pub entry: Entry,
    /// Attempts made before it was stored (while a caller waited), in order.
    pub attempts: Vec<AttemptRecord>,
    /// The idempotency key to take with it. For a key opened before with [`Store::open_key`], the message's id is
    /// written beside it and it becomes [`KeyState::Stored`].
    pub key: Option<KeyClaim>,
    /// A hold to write down with it.
    pub hold: Option<Hold>,
    /// The order it belongs to: of the messages that came to its route with the same key, only the first that has not
    /// ended is ever claimed. At most 255 bytes.
    pub order: Option<String>,
}

/// The state a message is stored in.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Waiting, due then.
    Queued {
        /// When its next attempt is due.
        due: Timestamp,
    },
    /// Already claimed by the accepting host, which attempts it at once.
    Leased(Lease),
    /// Ended already: a terminal state, and why.
    Ended {
        /// The state.
        state: State,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
}

/// What became of an acceptance.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// It is on disk, as its entry says.
    Stored,
    /// It is on disk, queued whatever its entry says: another message of its order is before it.
    Behind,
    /// It is not: its idempotency key was used before.
    Key(KeyState),
}

/// An idempotency key that a request brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyClaim {
    /// The route: keys of different routes are different keys.
    pub route: RouteName,
    /// The key, unquoted, at most 255 bytes.
    pub key: String,
    /// SHA-256 of the payload (method, path and body), to tell a repeat from another request.
    pub fingerprint: [u8; 32],
    /// The message it is for.
    pub message: MessageId,
    /// The host that serves it: a key opened by a host that is gone is free again.
    pub owner: Owner,
    /// Until when the request is surely being served, or its host is gone: where hosts share a store, a key opened by
    /// another one is free again from then on.
    pub opened_until: Timestamp,
    /// Until when the key is kept.
    pub keep_until: Timestamp,
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyState {
    /// It is new, and now taken.
    Fresh,
    /// The first request with it is still being served.
    InFlight,
    /// It came with another payload.
    OtherPayload,
    /// The request was answered; this was the answer.
    Answered(Answer),
    /// The request was stored as this message and answered 202.
    Stored(MessageId),
}

/// A lease: who holds a message, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who.
    pub owner: Owner,
    /// Until when; then anyone may claim it.
    pub until: Timestamp,
}

/// What one lane asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneClaim {
    /// Its route.
    pub route: RouteName,
    /// How many at most; with 0 only `next_due` is answered.
    pub limit: usize,
    /// How many of these, at most, may have been attempted before: the others wait for a retry budget. Messages whose
    /// lease lapsed are not counted.
    pub retries: usize,
}

/// What was claimed.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The messages, now under the lease.
    pub messages: Vec<Message>,
    /// Those of them that were not queued, but under a lease that ran out: they may still be being attempted.
    pub lapsed: BTreeSet<MessageId>,
    /// For each lane asked: when what was not claimed is due. Absent when there is nothing.
    pub next_due: BTreeMap<RouteName, NextDue>,
}

/// When the messages that wait in a lane are due. Those behind another one of their order are not counted.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct NextDue {
    /// The next first attempt, or the next lease that runs out.
    pub first: Option<Timestamp>,
    /// The next retry.
    pub retry: Option<Timestamp>,
}

impl NextDue {
    /// Whichever comes first.
    pub fn earliest(&self) -> Option<Timestamp> {
        [self.first, self.retry].into_iter().flatten().min()
    }
}

/// What follows from an attempt.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The message.
    pub id: MessageId,
    /// Who must still hold it.
    pub owner: Owner,
    /// The attempt, for the journal.
    pub attempt: AttemptRecord,
    /// What follows.
    pub then: Then,
    /// How far the message has come.
    pub progress: Progress,
    /// A hold to write down with it.
    pub hold: Option<Hold>,
    /// Whether those behind it in its order go on waiting if it ends dead: until it is redriven, discarded or no longer
    /// kept. Any other end lets the next one go.
    pub blocks: bool,
    /// Whether something waits for this to be on disk, such as the next message of its order. If nothing does, the
    /// store may take a few milliseconds over it, to write several at once.
    pub is_awaited: bool,
}

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// Waiting again.
    Queue {
        /// When.
        due: Timestamp,
        /// On which route: another one after a fallback.
        route: RouteName,
    },
    /// The end.
    End {
        /// The terminal state.
        state: State,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
}

/// What became of a finish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finished {
    /// It is on disk.
    Done,
    /// The lease was lost: another host has the message, and this attempt was one of its repeats.
    LeaseLost,
}

/// Every message to a destination waits until then.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Hold {
    /// The destination's origin, such as `https://api.example.com`.
    pub destination: String,
    /// Until when.
    pub until: Timestamp,
}

/// A message as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The message.
    pub message: Message,
    /// Its line in a list.
    pub summary: Summary,
    /// Its journal, in order.
    pub attempts: Vec<AttemptRecord>,
    /// What it waits for, while it is behind another one of its order.
    pub blocked_by: Option<Blocker>,
}

/// What the archive's own line says of a message, without its request and its journal.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveLine {
    /// Its identity.
    pub id: MessageId,
    /// The publish that it belongs to: see [`Message::uid`].
    pub uid: MessageId,
    /// The route it is on.
    pub route: String,
    /// Its state.
    pub state: State,
    /// When it was accepted; its id may be older.
    pub accepted_at: Timestamp,
}

/// The message whose turn it is in an order, and which those behind it wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blocker {
    /// Its identity.
    pub id: MessageId,
    /// Its state: dead, it waits for a person.
    pub state: State,
}

/// A message in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Its identity.
    pub id: MessageId,
    /// The route it is on.
    pub route: String,
    /// Its state.
    pub state: State,
    /// Why it is in that state: the last attempt's reason.
    pub reason: String,
    /// Attempts made in its life.
    pub attempts: u32,
    /// The request's method.
    pub method: String,
    /// The request's path below the route.
    pub path: String,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When its next attempt is due; none when it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The key of the order it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_key: Option<String>,
    /// Its place in that order; none when it is in no order, or has left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<Turn>,
}

/// A message's place in its order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// It is the one whose turn it is; dead, it keeps the others waiting.
    Now,
    /// It waits for those before it.
    Behind,
}

/// Which messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// On this route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// In one of these states; empty means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<State>,
    /// Whose reason contains this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Older than this message: the last id of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<MessageId>,
    /// At most so many, 1 to 1000; 0 stands for 100.
    #[serde(default)]
    pub limit: u32,
}

/// Which messages something is done to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// These.
    Ids(Vec<MessageId>),
    /// All that fit (its `limit` and `before` hold too; a limit of 0 means no limit here).
    Matching(Filter),
}

/// How long what has ended is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Delivered, dropped and discarded messages, and transactions.
    pub finished: Duration,
    /// Dead letters and messages answered by fallback, by route; routes not named here keep theirs.
    pub dead: BTreeMap<RouteName, Duration>,
}

impl Retention {
    /// The shortest of its periods.
    pub fn shortest(&self) -> Duration {
        self.dead.values().copied().fold(self.finished, Duration::min)
    }
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or written just now; the same call may succeed later.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// More calls wait for it than it takes ([`crate::store`] says the bound).
    #[error("the store is saturated")]
    Saturated,
    /// What it holds cannot be read: a damaged file, or one of a newer version.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
}
