//! A lane: one route's share of the queue. What happens in one lane does not hold up another.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Timestamp;
use crate::config::Route;

/// The right to make one attempt on a lane.
pub type Permit = OwnedSemaphorePermit;

/// A route's lane.
#[derive(Debug)]
pub struct Lane {
    /// The route.
    pub route: Arc<Route>,
    /// The destination's origin, which holds are kept by.
    pub destination: String,
    permits: Arc<Semaphore>,
    /// A permit that the queue stood in line for, among the callers that wait, and has yet to use.
    reserved: Mutex<Option<Permit>>,
    /// Whether the queue stands in line.
    in_line: AtomicBool,
    /// Messages that have not ended, queued or in flight: what `max_queued` bounds.
    open: AtomicU64,
    /// When the earliest queued message that is known of is due.
    next_due: Mutex<Option<Timestamp>>,
    /// Places for callers that wait: no route may take all that the ingress has.
    callers: Arc<Semaphore>,
}

impl Lane {
    /// The lane of `route`, with `open` messages waiting in the store, and places for so many `callers` that wait.
    pub fn new(route: Arc<Route>, open: u64, callers: usize) -> Self {
        Self {
            destination: route.destination.origin(),
            permits: Arc::new(Semaphore::new(route.concurrency)),
            reserved: Mutex::default(),
            in_line: AtomicBool::new(false),
            open: AtomicU64::new(open),
            // Something may be due: the first claim tells.
            next_due: Mutex::new((open > 0).then_some(Timestamp::from_millis(0))),
            callers: Arc::new(Semaphore::new(callers)),
            route,
        }
    }

    /// The right to make one attempt, if one is free.
    pub fn try_permit(&self) -> Option<Permit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// The right to make one attempt, once it is this caller's turn.
    pub async fn permit(&self) -> Option<Permit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// The rights to make up to `most` attempts: the one the queue stood in line for, and what is free besides.
    pub fn permits(&self, most: usize) -> Vec<Permit> {
        let reserved = lock(&self.reserved).take();
        reserved.into_iter().chain(std::iter::from_fn(|| self.try_permit())).take(most).collect()
    }

    /// A place for one more caller that waits, if there is one.
    pub fn caller(&self) -> Option<Permit> {
        Arc::clone(&self.callers).try_acquire_owned().ok()
    }

    /// Takes a place in line; false when the queue stands there already, or has its turn.
    pub fn line_up(&self) -> bool {
        lock(&self.reserved).is_none() && !self.in_line.swap(true, Ordering::AcqRel)
    }

    /// The queue's turn has come.
    pub fn reserve(&self, permit: Option<Permit>) {
        *lock(&self.reserved) = permit;
        self.in_line.store(false, Ordering::Release);
    }

    /// Whether the queue waits for its turn: until then there is no use in looking at the lane.
    pub fn is_in_line(&self) -> bool {
        self.in_line.load(Ordering::Acquire)
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
        let mut next = lock(&self.next_due);
        *next = Some(next.map_or(due, |known| known.min(due)));
    }

    /// Forgets when the lane was to be looked at: whoever calls this looks now, and says when next.
    pub fn look(&self) {
        lock(&self.next_due).take();
    }

    /// When the lane is to be looked at next.
    pub fn expected(&self) -> Option<Timestamp> {
        *lock(&self.next_due)
    }

    /// Whether messages wait that were there before one that comes now.
    pub fn has_backlog(&self, now: Timestamp) -> bool {
        self.expected().is_some_and(|due| due <= now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
