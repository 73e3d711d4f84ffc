//! A lane: one route's share of the queue. What happens in one lane does not hold up another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::futures::Notified;

use super::agenda::Agenda;
use super::gate::{Gate, Shut};
use super::permit::{Permit, RetryRight};
use super::places::{Place, Places};
use super::status::LaneStatus;
use crate::clock::{Clock, Timestamp};
use crate::config::Route;
use crate::store::NextDue;

/// A route's lane, as the present configuration has it. What outlives a change of the configuration is its
/// standing, which the lane before it and the lane after it share.
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
    /// Attempts that are over and not yet on disk: as many again. Each is repeated if the host dies now.
    finishing: Arc<Places>,
    /// Callers that wait: no route may take all the places that the ingress has.
    callers: Arc<Places>,
    /// Messages that have not ended, queued or in flight: what `max_queued` bounds.
    open: AtomicU64,
    /// When the earliest queued messages that are known of are due.
    expected: Mutex<NextDue>,
    gate: Arc<Gate>,
}

/// What waits in a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waits {
    /// A first attempt, or an attempt of nobody any more.
    First,
    /// A retry.
    Retry,
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
    pub(super) fn new(route: &Route, open: u64, callers: usize, agenda: &Arc<Agenda>) -> Arc<Self> {
        Arc::new(Self {
            attempts: Places::new(route.concurrency),
            finishing: Places::new(route.concurrency),
            callers: Places::new(callers),
            open: AtomicU64::new(open),
            expected: Mutex::default(),
            gate: Gate::new(route, Arc::clone(agenda)),
        })
    }

    /// Goes on under a configuration with other limits.
    pub(super) fn set(&self, route: &Route, callers: usize) {
        self.gate.set(route);
        self.attempts.resize(route.concurrency);
        self.finishing.resize(route.concurrency);
        self.callers.resize(callers);
    }

    /// Sets the number of messages that have not ended to what the store counted.
    pub(super) fn recount(&self, open: u64) {
        self.open.store(open, Ordering::Release);
    }

    /// Sets the number of messages that have not ended to what the store counted, and what has come and gone here since
    /// there were `before`.
    fn recount_since(&self, before: u64, counted: u64) {
        let recounted = |now: u64| Some(counted.saturating_add(now).saturating_sub(before));
        let _ = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, recounted);
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

    /// The right to make one attempt, if there is one now.
    pub fn try_permit(&self, now: Timestamp) -> Option<Permit> {
        let place = self.standing.attempts.try_take()?;
        let gate = &self.standing.gate;
        gate.enter(1, now).pop().map(|grant| Permit::new(place, gate, grant))
    }

    /// The right to make one attempt, once it is this caller's turn: by the route's concurrency, its breaker and its
    /// rate. Who waits for the rate has a place already; who waits for the breaker has none.
    pub async fn permit(&self, clock: &dyn Clock) -> Option<Permit> {
        self.standing.gate.pass(&self.standing.attempts, clock).await
    }

    /// A place among the attempts that are over and are being written down, once there is one.
    pub(super) async fn finishing(&self) -> Option<Place> {
        self.standing.finishing.take().await
    }

    /// Whether as many attempts are being written down as may be: one more waits for the first of them.
    pub(super) fn is_finishing_at_most(&self) -> bool {
        self.standing.finishing.is_full()
    }

    /// The rights to make up to `most` attempts: the one the queue stood in line for, and what is free besides.
    pub(super) fn permits(&self, most: usize, now: Timestamp) -> Vec<Permit> {
        let mut permits = Vec::new();
        {
            let mut turn = lock(&self.turn);
            match std::mem::take(&mut *turn) {
                Turn::Come(permit) => permits.push(permit),
                Turn::Over => {
                    *turn = Turn::Over;
                    return permits;
                }
                before @ (Turn::None | Turn::InLine) => *turn = before,
            }
        }
        permits.truncate(most);
        let more = most.saturating_sub(permits.len());
        let places: Vec<Place> = std::iter::from_fn(|| self.standing.attempts.try_take()).take(more).collect();
        let gate = &self.standing.gate;
        let grants = gate.enter(places.len(), now);
        permits.extend(places.into_iter().zip(grants).map(|(place, grant)| Permit::new(place, gate, grant)));
        permits
    }

    /// Why no attempt may begin, if none may whatever the concurrency.
    pub fn shut(&self, now: Timestamp) -> Option<Shut> {
        self.standing.gate.shut(now)
    }

    /// Completes when what [`Lane::shut`] or [`Lane::retry`] said may be different since this was called.
    pub fn changed(&self) -> Notified<'_> {
        self.standing.gate.changed()
    }

    /// The right to make a retry.
    ///
    /// # Errors
    /// When the retry budget has none: when it will.
    pub fn retry(&self, now: Timestamp) -> Result<RetryRight, Timestamp> {
        self.standing.gate.retry(now)
    }

    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.standing.gate
    }

    /// A retry is made that was withheld for want of budget.
    pub fn count_withheld(&self) {
        self.standing.gate.count_withheld();
    }

    /// How it stands.
    pub fn status(&self, now: Timestamp) -> LaneStatus {
        self.standing.gate.status(now)
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

    /// Gives the queue's turn up: nothing may be attempted now.
    pub(super) fn forgo_turn(&self) {
        let mut turn = lock(&self.turn);
        if matches!(*turn, Turn::Come(_)) {
            let come = std::mem::take(&mut *turn);
            drop(turn);
            drop(come);
        }
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

    /// Sets the number of messages that have not ended to what the store `counted` since there were `before` here.
    pub(super) fn recount_since(&self, before: u64, counted: u64) {
        self.standing.recount_since(before, counted);
    }

    /// A message is due then: the lane is looked at no later. True when that is news.
    pub(super) fn expect_by(&self, what: Waits, due: Timestamp) -> bool {
        let mut expected = lock(&self.standing.expected);
        let next = match what {
            Waits::First => &mut expected.first,
            Waits::Retry => &mut expected.retry,
        };
        let sooner = next.is_none_or(|known| due < known);
        if sooner {
            *next = Some(due);
        }
        sooner
    }

    /// Forgets when the lane was to be looked at: whoever calls this looks now, and says when next.
    pub(super) fn look(&self) {
        *lock(&self.standing.expected) = NextDue::default();
    }

    /// When the earliest messages that are known of are due.
    pub(super) fn expected(&self) -> NextDue {
        *lock(&self.standing.expected)
    }

    /// When the lane is to be looked at next: when something is due that may be attempted.
    pub(super) fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        let NextDue { first, retry } = self.expected();
        let retry = retry.map(|due| if due <= now { self.standing.gate.retries_from(now) } else { due });
        NextDue { first, retry }.earliest()
    }

    /// Whether messages wait that were there before one that comes now. Retries that are withheld do not count.
    pub(super) fn has_backlog(&self, now: Timestamp) -> bool {
        self.next_look(now).is_some_and(|due| due <= now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
