//! The store's part in half messages (`crate::transaction`).
//!
//! A transaction is kept apart from the messages: nothing that claims, lists or redrives messages can come upon one.
//! Confirming moves it over in one step, so that there is never both, and never neither.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Entry, KeyClaim, KeyState, Lease, Owner, StoreError};
use crate::clock::Timestamp;
use crate::message::{Message, MessageId, RouteName};
use crate::transaction::{Transaction, TransactionState, Word};

/// A part of the seam [`Store`](super::Store): where half messages are kept.
#[async_trait]
pub trait Transacting: Send + Sync + 'static {
    /// Writes a half message down, which nobody delivers. With an idempotency key the key is looked up and taken in the
    /// same transaction.
    ///
    /// # Errors
    /// [`StoreError`]; unless the store broke off in the middle of a commit, nothing is then stored.
    async fn prepare(&self, preparation: Preparation) -> Result<Prepared, StoreError>;

    /// Makes a message of an open transaction, in the state that `entry` says; it joins its order, if it has one, now.
    /// The message keeps the transaction's id, and was accepted when it was confirmed.
    ///
    /// # Errors
    /// [`StoreError`]; the caller says it again.
    async fn confirm(&self, saying: Saying, entry: Entry) -> Result<Said<Confirmed>, StoreError>;

    /// Forgets what an open transaction would have delivered.
    ///
    /// # Errors
    /// [`StoreError`]; the caller says it again.
    async fn cancel(&self, saying: Saying) -> Result<Said<()>, StoreError>;

    /// Claims the transactions on `route` whose senders are to be asked by `now`, the longest due first, at most `limit`,
    /// under a lease: nobody else claims them until it has run out.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is then claimed.
    async fn claim_checks(
        &self,
        route: RouteName,
        limit: u32,
        now: Timestamp,
        lease: Lease,
    ) -> Result<ClaimedChecks, StoreError>;

    /// Writes down what a check came to that settled nothing, if its lease is still held and no word was said meanwhile.
    /// Answers whether that was so; otherwise nothing is changed.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is then changed.
    async fn note_check(&self, note: CheckNote) -> Result<bool, StoreError>;

    /// Has the sender of a parked transaction asked again, due `now`, its checks counted afresh. One that is not parked
    /// stays as it is: prepared, which is [`Said::Already`], or ended, which is [`Said::Contrary`].
    ///
    /// # Errors
    /// [`StoreError`]
    async fn resume(&self, id: MessageId, now: Timestamp) -> Result<Said<()>, StoreError>;

    /// A transaction, if it is known.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn transaction(&self, id: MessageId) -> Result<Option<Transaction>, StoreError>;

    /// What an open transaction would deliver; none of one that has ended.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn half_message(&self, id: MessageId) -> Result<Option<Message>, StoreError>;

    /// Transactions that fit `filter`, newest first.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn transactions(&self, filter: TransactionFilter) -> Result<Vec<Transaction>, StoreError>;

    /// How many transactions are open, by route and state.
    ///
    /// # Errors
    /// [`StoreError`]
    async fn open_transactions(&self) -> Result<BTreeMap<(String, TransactionState), u64>, StoreError>;
}

/// A half message to be written down.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// What is to be delivered once it is confirmed; `accepted_at` is when it is prepared.
    pub message: Message,
    /// The order it will belong to, as [`Acceptance::order`](super::Acceptance::order).
    pub order: Option<String>,
    /// When its sender is to be asked, should no word have come by then.
    pub first_check: Timestamp,
    /// The idempotency key to take with it. The transaction is kept at least as long as the key.
    pub key: Option<KeyClaim>,
}

/// What became of a preparation.
#[derive(Clone, Debug, PartialEq)]
pub enum Prepared {
    /// It is on disk.
    Stored,
    /// It is not: its idempotency key was used before.
    Key(KeyState),
}

/// A word that is said of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    /// The transaction.
    pub id: MessageId,
    /// When.
    pub at: Timestamp,
    /// Who said it, in words.
    pub reason: String,
    /// Whether it answers a check, which is then counted.
    pub checked: bool,
}

/// What saying a word came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<T> {
    /// It was the first word, and holds.
    Taken(T),
    /// It had been said before.
    Already,
    /// The other word was said before: nothing is changed.
    Contrary,
    /// There is no such transaction.
    Unknown,
}

/// The message that a transaction became.
#[derive(Clone, Debug)]
pub struct Confirmed {
    /// The message.
    pub message: Message,
    /// Whether it is queued, whatever its entry said, behind another one of its order.
    pub behind: bool,
}

/// Checks to be made.
#[derive(Clone, Debug, Default)]
pub struct ClaimedChecks {
    /// They are under the lease.
    pub checks: Vec<Check>,
    /// When the next one on the route is due, or a lease on one runs out. None when there is none.
    pub next_due: Option<Timestamp>,
}

/// A check to be made.
#[derive(Clone, Debug)]
pub struct Check {
    /// What it is about. Its body is left out.
    pub message: Message,
    /// Checks that were sent before.
    pub checks: u32,
    /// Checks in a row that reached nobody.
    pub unreached: u32,
}

/// What a check came to that settled nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckNote {
    /// The transaction.
    pub id: MessageId,
    /// Who must still hold it.
    pub owner: Owner,
    /// What it came to, in words.
    pub reason: String,
    /// Checks sent by now.
    pub checks: u32,
    /// Checks in a row that reached nobody by now.
    pub unreached: u32,
    /// When the next one is due; none parks it.
    pub next: Option<Timestamp>,
}

/// Which transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransactionFilter {
    /// On this route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// In one of these states; empty means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<TransactionState>,
    /// Older than this one: the last id of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<MessageId>,
    /// At most so many, 1 to 1000; 0 stands for 100.
    #[serde(default)]
    pub limit: u32,
}

/// What `word` comes to of a transaction in this state; none when it is the first one.
pub(super) fn said_before<T>(state: TransactionState, word: Word) -> Option<Said<T>> {
    match state {
        TransactionState::Prepared | TransactionState::Parked => None,
        ended if ended == word.leads_to() => Some(Said::Already),
        TransactionState::Confirmed | TransactionState::Cancelled => Some(Said::Contrary),
    }
}

/// What resuming comes to of a transaction in this state; none when it is parked.
pub(super) const fn resumed_before(state: TransactionState) -> Option<Said<()>> {
    match state {
        TransactionState::Parked => None,
        TransactionState::Prepared => Some(Said::Already),
        TransactionState::Confirmed | TransactionState::Cancelled => Some(Said::Contrary),
    }
}

/// A state from its name.
pub(super) fn state(name: &str) -> Result<TransactionState, StoreError> {
    let known = TransactionState::ALL.into_iter().find(|state| state.as_str() == name);
    known.ok_or_else(|| StoreError::Unusable(format!("it has a transaction in the unknown state {name:?}")))
}
