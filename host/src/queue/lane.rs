//! A lane: one route's share of the queue. What happens in one lane does not hold up another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Timestamp;
use crate::config::Route;

/// A route's lane.
#[derive(Debug)]
pub struct Lane {
    /// The route.
    pub route: Arc<Route>,
    /// The destination's origin, which holds are kept by.
    pub destination: String,
    permits: Arc<Semaphore>,
    /// Messages that have not ended, queued or in flight: what `max_queued` bounds.
    open: AtomicU64,
    /// When the earliest queued message that is known of is due.
    next_due: Mutex<Option<Timestamp>>,
}

impl Lane {
    /// The lane of `route`, with `open` messages waiting in the store.
    pub fn new(route: Arc<Route>, open: u64) -> Self {
        Self {
            destination: route.destination.origin(),
            permits: Arc::new(Semaphore::new(route.concurrency)),
            open: AtomicU64::new(open),
            // Something may be due: the first claim tells.
            next_due: Mutex::new((open > 0).then_some(Timestamp::from_millis(0))),
            route,
        }
    }

    /// Whether an attempt could be made now.
    pub fn has_permit(&self) -> bool {
        self.permits.available_permits() > 0
    }

    /// The right to make one attempt, if one is free.
    pub fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// The right to make one attempt, once one is free.
    pub async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// The rights to make up to `most` attempts, as many as are free.
    pub fn permits(&self, most: usize) -> Vec<OwnedSemaphorePermit> {
        std::iter::from_fn(|| self.try_permit()).take(most).collect()
    }

    /// Takes a place in the lane for one more message; false when `max_queued` are taken.
    pub fn enter(&self) -> bool {
        let most = self.route.max_queued as u64;
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < most).then_some(open + 1)).is_ok()
    }

    /// Takes a place whatever the bound: a message that is already ours must go somewhere.
    pub fn enter_anyway(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives a place back.
    pub fn leave(&self) {
        let _ = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| open.checked_sub(1));
    }

    /// Messages that have not ended.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// Sets the number of messages that have not ended to what the store counted.
    pub fn recount(&self, open: u64) {
        self.open.store(open, Ordering::Release);
    }

    /// A message is due then: the lane is looked at no later.
    pub fn expect_by(&self, due: Timestamp) {
        let mut next = self.next_due.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Some(next.map_or(due, |known| known.min(due)));
    }

    /// When the lane is to be looked at next, and forgets it: whoever asked looks, or says so again.
    pub fn take_expected(&self) -> Option<Timestamp> {
        self.next_due.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// When the lane is to be looked at next.
    pub fn expected(&self) -> Option<Timestamp> {
        *self.next_due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether messages wait that were there before one that comes now.
    pub fn has_backlog(&self, now: Timestamp) -> bool {
        self.expected().is_some_and(|due| due <= now)
    }
}
