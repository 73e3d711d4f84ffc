//! The store that hosts share: one schema in a Postgres database.
//!
//! What is accepted and what is finished goes in batches (`postgres/batches.rs`), everything else call by call, on a few
//! connections (`postgres/connections.rs`). What the schema holds is described in `postgres/schema.rs`.
//!
//! It uses plain SQL, so that databases which speak Postgres' language serve as well: no advisory locks, no `LISTEN`, no
//! procedures, no extensions. It refuses to wait: a call is answered within 10 s, or a minute where it walks over many
//! rows, whatever the network does; while the database is away, calls fail at once. It refuses to guess: a schema of a
//! newer version is [`StoreError::Unusable`], and is left as it was.

mod accept;
mod batches;
mod claim;
mod clocks;
mod connections;
mod failure;
mod feeds;
mod finish;
mod keys;
mod matching;
mod order;
mod reading;
mod rows;
mod schema;
mod sweep;
mod target;
mod transactions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use self::accept::{Keyed, Plain};
use self::batches::Batches;
use self::clocks::Clocks;
use self::connections::{Connections, LONG_PATIENCE, PATIENCE};
use self::failure::Failure;
use self::finish::Finishes;
use super::encoding::EncodedAcceptance;
use super::selecting::{self, Amendment};
use super::{
    Acceptance, Accepted, ArchiveLine, Claimed, Filter, Finish, Finished, Hold, KeyClaim, KeyState, LaneClaim, Lease,
    Owner, Retention, Selection, Store, StoreError, Stored, Summary,
};
use crate::clock::{Clock, Timestamp};
use crate::message::{Answer, MessageId, State};

pub(crate) use connections::{dial, tls_for};
pub use target::{InvalidTarget, PostgresTarget, SCHEMA};

/// Calls that are not batched and wait for a connection; more are refused as saturated.
const WAITING: usize = 1024;

/// Calls that walk over many rows, at the same time: they leave connections to the others.
const WALKING: usize = 3;

/// Connections that messages may be accepted on at once that join an order.
const ORDERING: usize = 3;

/// How long a close waits for what is still to be written.
const CLOSING: Duration = Duration::from_secs(15);

/// Messages in a Postgres database that other hosts may share.
pub struct PostgresStore {
    connections: Arc<Connections>,
    plain: Batches<Plain>,
    keyed: Batches<Keyed>,
    finishes: Finishes,
    waiting: Semaphore,
    ordering: Semaphore,
    walking: Semaphore,
    /// What serves the batches.
    tasks: TaskTracker,
    clocks: Clocks,
    clock: Arc<dyn Clock>,
}

impl PostgresStore {
    /// Connects, and brings the schema up to date or makes it.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the schema is of a newer version or the database does not keep text as UTF-8;
    /// [`StoreError::Unavailable`] when it cannot be reached or refuses.
    pub async fn open(target: &PostgresTarget, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (target, ticking) = (target.clone(), Arc::clone(&clock));
        // Reads the system's certificate authorities.
        let connections = tokio::task::spawn_blocking(move || Connections::new(target, ticking))
            .await
            .map_err(|error| StoreError::Unavailable(error.into()))??;
        schema::prepare(&connections).await?;
        let (connections, clocks) = (Arc::new(connections), Clocks::new(Arc::clone(&clock)));
        let comparing = &clocks;
        connections
            .call(PATIENCE, |connection| Box::pin(async move { comparing.compare(&connection).await.map(drop) }))
            .await?;
        let tasks = TaskTracker::new();
        Ok(Self {
            plain: Batches::start(Plain(Arc::clone(&connections)), &tasks),
            keyed: Batches::start(Keyed(Arc::clone(&connections)), &tasks),
            finishes: Finishes::start(&connections, &tasks),
            waiting: Semaphore::new(WAITING),
            walking: Semaphore::new(WALKING),
            ordering: Semaphore::new(ORDERING),
            connections,
            tasks,
            clocks,
            clock,
        })
    }

    /// Runs a call that is not batched.
    async fn call<T: Send>(&self, call: impl Future<Output = Result<T, Failure>> + Send) -> Result<T, StoreError> {
        let _place = self.waiting.try_acquire().map_err(|_| StoreError::Saturated)?;
        Ok(call.await?)
    }

    /// Runs a call that walks over many rows.
    async fn walk<T: Send>(&self, call: impl Future<Output = Result<T, Failure>> + Send) -> Result<T, StoreError> {
        self.call(async {
            let _turn = self.walking.acquire().await.map_err(|_| Failure::Closed)?;
            call.await
        })
        .await
    }
}

/// One call on a connection of its own, within [`PATIENCE`].
macro_rules! call {
    ($store:expr, |$connection:ident| $work:expr) => {
        $store.call($store.connections.call(PATIENCE, |$connection| Box::pin($work))).await
    };
}

/// One that walks over many rows, within [`LONG_PATIENCE`].
macro_rules! walk {
    ($store:expr, |$connection:ident| $work:expr) => {
        $store.walk($store.connections.call(LONG_PATIENCE, |$connection| Box::pin($work))).await
    };
}

// Beside the macros that they use.
mod feeding;
mod transacting;

#[async_trait]
impl Store for PostgresStore {
    async fn accept(&self, acceptance: Acceptance) -> Result<Accepted, StoreError> {
        let encoded = EncodedAcceptance::of(acceptance)?;
        match &encoded.acceptance {
            Acceptance { order: Some(_), .. } => {
                // They wait for one another on their order's row: not on all connections at once.
                let accepting = self
                    .connections
                    .call(PATIENCE, |connection| Box::pin(accept::accept_in_order(connection, &encoded)));
                self.call(async {
                    let _turn = self.ordering.acquire().await.map_err(|_| Failure::Closed)?;
                    accepting.await
                })
                .await
            }
            Acceptance { key: Some(_), .. } => self.keyed.run(encoded).await,
            _ => self.plain.run(encoded).await,
        }
    }

    async fn open_key(&self, claim: KeyClaim, now: Timestamp) -> Result<KeyState, StoreError> {
        call!(self, |connection| keys::open(connection, &claim, now))
    }

    async fn close_key(&self, claim: KeyClaim, answer: Option<Answer>) -> Result<(), StoreError> {
        call!(self, |connection| keys::close(connection, &claim, answer.as_ref()))
    }

    async fn claim_due(&self, lanes: Vec<LaneClaim>, now: Timestamp, lease: Lease) -> Result<Claimed, StoreError> {
        let length = lease.until.since(now);
        let (clocks, lanes, lease) = (&self.clocks, &lanes, &lease);
        call!(self, |connection| async move {
            clocks.check(&connection, length).await?;
            claim::claim_due(connection, lanes, now, lease).await
        })
    }

    async fn finish(&self, finish: Finish) -> Result<Finished, StoreError> {
        self.finishes.finish(finish).await
    }

    async fn extend_lease(&self, ids: Vec<MessageId>, lease: Lease) -> Result<Vec<MessageId>, StoreError> {
        call!(self, |connection| claim::extend_lease(connection, &ids, &lease))
    }

    async fn release(&self, ids: Vec<MessageId>, owner: Owner, now: Timestamp) -> Result<(), StoreError> {
        call!(self, |connection| claim::release(connection, &ids, &owner, now))
    }

    async fn message(&self, id: MessageId) -> Result<Option<Stored>, StoreError> {
        call!(self, |connection| reading::message(connection, id))
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Summary>, StoreError> {
        walk!(self, |connection| matching::list(connection, &filter))
    }

    async fn archived(&self, after: Option<MessageId>, limit: u32) -> Result<Vec<ArchiveLine>, StoreError> {
        walk!(self, |connection| matching::archived(connection, after, limit))
    }

    /// A selection of more than 500 messages is redriven 500 at a time. If one of these steps fails, those before it
    /// stand.
    async fn redrive(&self, selection: Selection, now: Timestamp) -> Result<u64, StoreError> {
        self.walk(matching::amend(&self.connections, &selection, Amendment::Redrive { now })).await
    }

    /// In steps, as [`PostgresStore::redrive`] is.
    async fn discard(&self, selection: Selection, now: Timestamp) -> Result<u64, StoreError> {
        self.walk(matching::amend(&self.connections, &selection, Amendment::Discard { now })).await
    }

    /// In steps, as [`PostgresStore::redrive`] is.
    async fn discard_queued(&self, route: String, reason: Option<String>, now: Timestamp) -> Result<u64, StoreError> {
        let selection = selecting::queued_on(route, reason);
        self.walk(matching::amend(&self.connections, &selection, Amendment::DiscardQueued { now })).await
    }

    async fn sweep(&self, retention: Retention, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        walk!(self, |connection| sweep::sweep(connection, &retention, now, limit))
    }

    async fn tally(&self) -> Result<BTreeMap<(String, State), u64>, StoreError> {
        walk!(self, |connection| reading::tally(connection))
    }

    async fn backlog(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        walk!(self, |connection| reading::backlog(connection))
    }

    async fn holds(&self, now: Timestamp) -> Result<Vec<Hold>, StoreError> {
        call!(self, |connection| reading::holds(connection, now))
    }

    async fn hold(&self, hold: Hold) -> Result<(), StoreError> {
        call!(self, |connection| finish::hold(connection, &hold))
    }

    /// Takes nothing over: the other hosts may be alive. What they hold is claimed when their leases lapse.
    async fn recover(&self, _: Owner, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.plain.stop();
        self.keyed.stop();
        self.finishes.stop();
        self.tasks.close();
        let written = tokio::select! {
            () = self.tasks.wait() => Ok(()),
            () = self.clock.sleep(CLOSING) => Err(Failure::Late(CLOSING)),
        };
        self.connections.close().await;
        Ok(written?)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("connections", &self.connections).finish_non_exhaustive()
    }
}
