//! The leases this host holds: prolonged while their messages are attempted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::message::MessageId;
use crate::store::{Lease, Owner, Store};

/// The messages held. Bounded by twice the sum of the routes' `concurrency`: as many attempts as may be made at once may
/// be being written down.
#[derive(Default, Debug)]
pub(super) struct Leases {
    held: Mutex<HashMap<MessageId, Holding>>,
    /// When they were prolonged last, or did not have to be, in milliseconds since the epoch.
    prolonged_at: AtomicU64,
}

/// Who holds a message's lease.
#[derive(Default, Debug)]
struct Holding {
    /// The attempts that do. Mostly one; two, where the end of one is on disk and has not been heard of yet.
    attempts: usize,
    /// Those of them whose end will yet be written down.
    open: usize,
}

/// A lease held for an attempt: let go at its end, even if the attempt panics.
#[derive(Debug)]
pub(super) struct Held<'a> {
    leases: &'a Leases,
    id: MessageId,
    open: AtomicBool,
}

impl<'a> Held<'a> {
    /// What [`Leases::hold`] began.
    pub(super) fn of(leases: &'a Leases, id: MessageId) -> Self {
        Self { leases, id, open: AtomicBool::new(true) }
    }

    /// Its end is with the store, which may have written it down before it is heard of.
    pub(super) fn is_being_written(&self) {
        self.set_open(false);
    }

    /// The store did not say that it has written it: it will be asked again.
    pub(super) fn is_to_be_written_again(&self) {
        self.set_open(true);
    }

    fn set_open(&self, open: bool) {
        if self.open.swap(open, Ordering::Relaxed) != open {
            self.leases.set_open(self.id, open);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.set_open(false);
        self.leases.let_go(self.id);
        if std::thread::panicking() {
            tracing::error!(message_id = %self.id, "an attempt panicked; its message is repeated when its lease runs out");
        }
    }
}

impl Leases {
    /// Holds a message's lease for an attempt.
    pub(super) fn hold(&self, id: MessageId) {
        let mut held = self.locked();
        let holding = held.entry(id).or_default();
        holding.attempts += 1;
        holding.open += 1;
    }

    /// Whether an attempt of this message is under way, and will write down its end under the lease there is: a second
    /// attempt would then lose its own lease to it.
    pub(super) fn is_open(&self, id: MessageId) -> bool {
        self.locked().get(&id).is_some_and(|holding| holding.open > 0)
    }

    /// Whether any attempt holds this message's lease.
    pub(super) fn is_held(&self, id: MessageId) -> bool {
        self.locked().contains_key(&id)
    }

    /// One more attempt of this message is open, or one fewer.
    fn set_open(&self, id: MessageId, open: bool) {
        if let Some(holding) = self.locked().get_mut(&id) {
            holding.open = if open { holding.open + 1 } else { holding.open.saturating_sub(1) };
        }
    }

    /// An attempt of this message is over.
    fn let_go(&self, id: MessageId) {
        if let Entry::Occupied(mut holding) = self.locked().entry(id) {
            holding.get_mut().attempts -= 1;
            if holding.get().attempts == 0 {
                holding.remove();
            }
        }
    }

    pub(super) fn held(&self) -> Vec<MessageId> {
        self.locked().keys().copied().collect()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<MessageId, Holding>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prolongs every lease held, three times in its length, for ever. A lease that could not be prolonged saves
    /// nothing and loses nothing: another host repeats the attempt, and the finish of this one is refused.
    pub(super) async fn heartbeat(
        &self,
        store: &Arc<dyn Store>,
        owner: &Owner,
        clock: &Arc<dyn Clock>,
        length: Duration,
    ) {
        loop {
            self.prolong(store, owner, clock.now(), length).await;
            clock.sleep(length / 3).await;
        }
    }

    /// Prolongs every lease held if that is overdue at `now`: the wall clock was set forward, or the store was away. To
    /// be called before messages are claimed, so that the host does not claim from itself what it is attempting.
    pub(super) async fn catch_up(&self, store: &Arc<dyn Store>, owner: &Owner, now: Timestamp, length: Duration) {
        let prolonged_at = Timestamp::from_millis(self.prolonged_at.load(Ordering::Relaxed));
        if now.since(prolonged_at) > length / 3 * 2 {
            self.prolong(store, owner, now, length).await;
        }
    }

    async fn prolong(&self, store: &Arc<dyn Store>, owner: &Owner, now: Timestamp, length: Duration) {
        let ids = self.held();
        let lease = Lease { owner: owner.clone(), until: now.after(length) };
        let prolonged = if ids.is_empty() { Ok(Vec::new()) } else { store.extend_lease(ids, lease).await };
        match prolonged {
            Ok(_) => self.prolonged_at.store(now.as_millis(), Ordering::Relaxed),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "could not prolong leases"),
        }
    }
}
