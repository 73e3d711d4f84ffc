//! A lane: one route's share of the queue. What happens in one lane does not hold up another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::places::{Place, Places};
use crate::clock::Timestamp;
use crate::config::Route;

/// The right to make one attempt on a lane.
pub type Permit = Place;

/// A route's lane, as the present configuration has it. What outlives a change of the configuration is its
/// [`Standing`], which the lane before it and the lane after it share.
#[derive(Debug)]
pub struct Lane {
    /// The route.
    pub route: Arc<Route>,
    /// The destination's origin, which holds are kept by.
    pub destination: String,
    standing: Arc<Standing>,
    turn: Mutex<Turn>,
}

/// What a lane has taken on, and what goes on when its route changes.
#[derive(Debug)]
pub(super) struct Standing {
    /// Attempts at once: the route's `concurrency`.
    attempts: Arc<Places>,
    /// Callers that wait: no route may take all the places that the ingress has.
    callers: Arc<Places>,
    /// Messages that have not ended, queued or in flight: what `max_queued` bounds.
    open: AtomicU64,
    /// When the earliest queued message that is known of is due.
    next_due: Mutex<Option<Timestamp>>,
}

/// Whether the queue stands in line for a permit, among the callers that wait.
#[derive(Debug, Default)]
enum Turn {
    #[default]
    None,
    /// It stands there.
    InLine,
    /// Its turn has come, and it has yet to use it.
    Come(Permit),
    /// Another lane has taken this one's place: nothing is claimed here any more.
    Over,
}

impl Standing {
    /// For a route with so many `open` messages in the store, and places for so many `callers` that wait.
    pub(super) fn new(route: &Route, open: u64, callers: usize) -> Arc<Self> {
        Arc::new(Self {
            attempts: Places::new(route.concurrency),
            callers: Places::new(callers),
            open: AtomicU64::new(open),
            next_due: Mutex::default(),
        })
    }

    /// Goes on under a configuration with other limits.
    pub(super) fn resize(&self, route: &Route, callers: usize) {
        self.attempts.resize(route.concurrency);
        self.callers.resize(callers);
    }

    /// Sets the number of messages that have not ended to what the store counted.
    pub(super) fn recount(&self, open: u64) {
        self.open.store(open, Ordering::Release);
    }
}

impl Lane {
    /// The lane of `route`.
    pub(super) fn new(route: Arc<Route>, standing: Arc<Standing>) -> Self {
        Self { destination: route.destination.origin(), route, standing, turn: Mutex::default() }
    }

    pub(super) const fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// The right to make one attempt, if one is free.
    pub fn try_permit(&self) -> Option<Permit> {
        self.standing.attempts.try_take()
    }

    /// The right to make one attempt, once it is this caller's turn.
    pub async fn permit(&self) -> Option<Permit> {
        self.standing.attempts.take().await
    }

    /// The rights to make up to `most` attempts: the one the queue stood in line for, and what is free besides.
    pub(super) fn permits(&self, most: usize) -> Vec<Permit> {
        let mut turn = lock(&self.turn);
        let reserved = match &mut *turn {
            Turn::Over => return Vec::new(),
            Turn::None | Turn::InLine => None,
            come @ Turn::Come(_) => match std::mem::take(come) {
                Turn::Come(permit) => Some(permit),
                _ => None,
            },
        };
        drop(turn);
        reserved.into_iter().chain(std::iter::from_fn(|| self.try_permit())).take(most).collect()
    }

    /// A place for one more caller that waits, if there is one.
    pub fn caller(&self) -> Option<Place> {
        self.standing.callers.try_take()
    }

    /// Takes a place in line; false when the queue stands there already, has its turn, or has no business here.
    pub(super) fn line_up(&self) -> bool {
        let mut turn = lock(&self.turn);
        let free = matches!(*turn, Turn::None);
        if free {
            *turn = Turn::InLine;
        }
        free
    }

    /// The queue's turn has come; without a permit, it leaves the line.
    pub(super) fn reserve(&self, permit: Option<Permit>) {
        let mut turn = lock(&self.turn);
        if matches!(*turn, Turn::InLine) {
            *turn = permit.map_or(Turn::None, Turn::Come);
        }
    }

    /// Whether the queue waits for its turn: until then there is no use in looking at the lane.
    pub(super) fn is_in_line(&self) -> bool {
        matches!(*lock(&self.turn), Turn::InLine)
    }

    /// Another lane takes over: from now on the queue claims nothing here. Attempts under way go on.
    pub(super) fn retire(&self) {
        let before = std::mem::replace(&mut *lock(&self.turn), Turn::Over);
        // The permit goes back when nobody holds the lock any more.
        drop(before);
    }

    /// Takes a place in the lane for one more message; false when `max_queued` are taken.
    pub fn enter(&self) -> bool {
        let most = self.route.max_queued as u64;
        let entered = |open: u64| (open < most).then_some(open + 1);
        self.standing.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, entered).is_ok()
    }

    /// Takes a place whatever the bound: a message that is already ours must go somewhere.
    pub fn enter_anyway(&self) {
        self.standing.open.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives a place back.
    pub fn leave(&self) {
        let left = |open: u64| open.checked_sub(1);
        let _ = self.standing.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, left);
    }

    /// Messages that have not ended.
    pub fn open(&self) -> u64 {
        self.standing.open.load(Ordering::Acquire)
    }

    /// Sets the number of messages that have not ended to what the store counted.
    pub fn recount(&self, open: u64) {
        self.standing.recount(open);
    }

    /// A message is due then: the lane is looked at no later. True when that is news.
    pub(super) fn expect_by(&self, due: Timestamp) -> bool {
        let mut next = lock(&self.standing.next_due);
        let sooner = next.is_none_or(|known| due < known);
        if sooner {
            *next = Some(due);
        }
        sooner
    }

    /// Forgets when the lane was to be looked at: whoever calls this looks now, and says when next.
    pub(super) fn look(&self) {
        lock(&self.standing.next_due).take();
    }

    /// When the earliest queued message that is known of is due.
    pub fn expected(&self) -> Option<Timestamp> {
        *lock(&self.standing.next_due)
    }

    /// Whether messages wait that were there before one that comes now.
    pub fn has_backlog(&self, now: Timestamp) -> bool {
        self.expected().is_some_and(|due| due <= now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
