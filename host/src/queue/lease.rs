//! The leases this host holds: prolonged while their messages are attempted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::message::MessageId;
use crate::store::{Lease, Owner, Store};

/// The messages held. Bounded by the sum of the routes' `concurrency`.
#[derive(Default, Debug)]
pub(super) struct Leases(Mutex<HashSet<MessageId>>);

impl Leases {
    /// Holds a lease; false when it is held already, for an attempt that goes on.
    pub(super) fn hold(&self, id: MessageId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    pub(super) fn let_go(&self, id: MessageId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(super) fn held(&self) -> Vec<MessageId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
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
            clock.sleep(length / 3).await;
            let ids = self.held();
            if ids.is_empty() {
                continue;
            }
            let lease = Lease { owner: owner.clone(), until: clock.now().after(length) };
            if let Err(error) = store.extend_lease(ids, lease).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not prolong leases");
            }
        }
    }
}
