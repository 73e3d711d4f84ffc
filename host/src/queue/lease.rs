//! The leases this host holds: prolonged while their messages are attempted.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::message::MessageId;
use crate::store::{Lease, Owner, Store};

/// The messages held. Bounded by the sum of the routes' `concurrency`.
#[derive(Default, Debug)]
pub(super) struct Leases {
    held: Mutex<HashSet<MessageId>>,
    /// When they were prolonged last, or did not have to be, in milliseconds since the epoch.
    prolonged_at: AtomicU64,
}

impl Leases {
    /// Holds a lease; false when it is held already, for an attempt that goes on.
    pub(super) fn hold(&self, id: MessageId) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    pub(super) fn let_go(&self, id: MessageId) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(super) fn held(&self) -> Vec<MessageId> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
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
