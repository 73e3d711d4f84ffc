//! The leases this host holds: prolonged while their messages are attempted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::message::MessageId;
use crate::store::{Lease, Owner, Store};

/// The messages held. Bounded by the sum of the routes' `concurrency`.
#[derive(Default, Debug)]
pub(super) struct Leases {
    /// Each with how many attempts hold it: two, for the moment between an end on disk and its being heard of.
    held: Mutex<HashMap<MessageId, usize>>,
    /// When they were prolonged last, or did not have to be, in milliseconds since the epoch.
    prolonged_at: AtomicU64,
}

impl Leases {
    /// Holds a message's lease for an attempt.
    pub(super) fn hold(&self, id: MessageId) {
        *self.locked().entry(id).or_default() += 1;
    }

    /// Whether an attempt of this message holds its lease.
    pub(super) fn holds(&self, id: MessageId) -> bool {
        self.locked().contains_key(&id)
    }

    /// An attempt of this message is over.
    pub(super) fn let_go(&self, id: MessageId) {
        if let Entry::Occupied(mut attempts) = self.locked().entry(id) {
            *attempts.get_mut() -= 1;
            if *attempts.get() == 0 {
                attempts.remove();
            }
        }
    }

    pub(super) fn held(&self) -> Vec<MessageId> {
        self.locked().keys().copied().collect()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<MessageId, usize>> {
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
