//! The gate of a lane: rate, circuit breaker and retry budget, which every attempt passes, whoever makes it.
//!
//! What may begin is reserved here before it is claimed, and handed back by whatever holds it: a permit that is
//! dropped, in a panic even, leaves nothing taken. The rules themselves are pure and stand in files of their own; here
//! they are asked under one lock, their changes are said, and whoever waits is woken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::agenda::Agenda;
use super::breaker::{Came, Change, Circuit, Pass, Room};
use super::budget::Budget;
use super::permit::{Permit, RetryRight};
use super::places::Places;
use super::rate::Pace;
use super::status::{BreakerStatus, LaneStatus};
use crate::clock::{Clock, Timestamp};
use crate::config::Route;
use crate::message::RouteName;

/// The gate.
#[derive(Debug)]
pub(super) struct Gate {
    route: RouteName,
    agenda: Arc<Agenda>,
    parts: Mutex<Parts>,
    /// Somebody who waits may get through, or has waited for nothing.
    changed: Notify,
    /// Those who wait for the rate stand in line here; only the first looks at the clock.
    line: tokio::sync::Mutex<()>,
    /// What was reserved of the rate is free again: the first in line had counted it in.
    returned: Notify,
    /// Retries that were made later than they were due for want of budget.
    withheld: AtomicU64,
}

/// Each is there if the route has it.
#[derive(Debug, Default)]
struct Parts {
    pace: Option<Pace>,
    circuit: Option<Circuit>,
    budget: Option<Budget>,
    /// Counts the changes of the configuration: what was reserved under one means nothing under another.
    epoch: Epoch,
    /// Whether a retry is due that the budget withholds.
    withholding: bool,
    /// Whether the budget withholds the retry of a caller that waits, who has not been woken since.
    withholding_callers: bool,
}

/// When each part was last set; of the breaker, the era it began with.
#[derive(Clone, Copy, Default, Debug)]
struct Epoch {
    pace: u64,
    circuit: u64,
    budget: u64,
}

/// What the gate gives for one attempt: a reserved place in the rate, and what the breaker hands out.
#[derive(Debug)]
pub(super) struct Grant {
    /// The epoch of the rate that it was reserved in; none where there is no rate, or when it has been used.
    token: Option<u64>,
    pass: Option<Pass>,
}

/// Why no attempt may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shut {
    /// The breaker is open until then.
    Open(Timestamp),
    /// The breaker is half-open, and its probes are under way.
    Probing,
    /// The rate allows the next one then.
    Rate(Timestamp),
}

impl std::fmt::Display for Shut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(until) => write!(f, "the route's circuit breaker is open until {until}"),
            Self::Probing => f.write_str("the route's circuit breaker is half-open, and its probes are under way"),
            Self::Rate(until) => write!(f, "the route's rate is used up until {until}"),
        }
    }
}

impl Gate {
    pub(super) fn new(route: &Route, agenda: Arc<Agenda>) -> Arc<Self> {
        let gate = Self {
            route: route.name.clone(),
            agenda,
            parts: Mutex::default(),
            changed: Notify::new(),
            line: tokio::sync::Mutex::new(()),
            returned: Notify::new(),
            withheld: AtomicU64::new(0),
        };
        gate.set(route);
        Arc::new(gate)
    }

    /// Keeps to the settings of `route` from now on. A part whose settings have not changed goes on as it was.
    pub(super) fn set(&self, route: &Route) {
        let mut parts = self.parts();
        if parts.pace.as_ref().map(Pace::rate) != route.rate {
            parts.pace = route.rate.map(Pace::new);
            parts.epoch.pace += 1;
        }
        if parts.budget.as_ref().map(Budget::settings) != route.retry_budget {
            parts.budget = route.retry_budget.map(Budget::new);
            parts.epoch.budget += 1;
            parts.withholding = false;
        }
        if parts.circuit.as_ref().map(Circuit::settings) != route.breaker {
            // The passes of a breaker that is gone are of no era of any later one.
            let last = parts.circuit.as_ref().map_or(parts.epoch.circuit, Circuit::era);
            parts.epoch.circuit = last + 1;
            parts.circuit = route.breaker.map(|breaker| Circuit::new(breaker, last + 1));
        }
        drop(parts);
        self.changed.notify_waiters();
    }

    /// Lets up to `most` attempts through; answers what each is given. None while others stand in line.
    pub(super) fn enter(&self, most: usize, now: Timestamp) -> Vec<Grant> {
        if most == 0 || self.line.try_lock().is_err() {
            return Vec::new();
        }
        self.enter_past_line(most, now)
    }

    fn enter_past_line(&self, most: usize, now: Timestamp) -> Vec<Grant> {
        let mut parts = self.advanced(now);
        let most = match parts.circuit.as_ref().map_or(Room::Free, Circuit::room) {
            Room::Free => most,
            Room::Probes(free) => most.min(free as usize),
            Room::NoneUntil(_) => 0,
        };
        let most = parts.pace.as_mut().map_or(most, |pace| pace.reserve(most, now));
        let token = parts.pace.as_ref().map(|_| parts.epoch.pace);
        (0..most).map(|_| Grant { token, pass: parts.circuit.as_mut().and_then(Circuit::enter) }).collect()
    }

    /// Waits for one of `places` and for the gate, however often it shuts before it is this one's turn.
    pub(super) async fn pass(self: &Arc<Self>, places: &Arc<Places>, clock: &dyn Clock) -> Option<Permit> {
        loop {
            self.until_breaker_lets(clock).await;
            let place = places.take().await?;
            if let Some(grant) = self.enter(1, clock.now()).pop() {
                return Some(Permit::new(place, self, grant));
            }
            let _first = self.line.lock().await;
            loop {
                let (changed, returned) = (self.changed.notified(), self.returned.notified());
                let now = clock.now();
                if let Some(grant) = self.enter_past_line(1, now).pop() {
                    return Some(Permit::new(place, self, grant));
                }
                match self.shut(now) {
                    Some(Shut::Rate(until)) => tokio::select! {
                        () = clock.sleep_until(until) => {}
                        () = changed => {}
                        () = returned => {}
                    },
                    // Nobody waits for a breaker with a place in hand.
                    Some(Shut::Open(_) | Shut::Probing) => break,
                    None => {}
                }
            }
        }
    }

    async fn until_breaker_lets(&self, clock: &dyn Clock) {
        loop {
            let changed = self.changed.notified();
            match self.shut(clock.now()) {
                Some(Shut::Open(until)) => tokio::select! {
                    () = clock.sleep_until(until) => {}
                    () = changed => {}
                },
                Some(Shut::Probing) => changed.await,
                Some(Shut::Rate(_)) | None => return,
            }
        }
    }

    /// Why no attempt may begin `now`, if none may.
    pub(super) fn shut(&self, now: Timestamp) -> Option<Shut> {
        let parts = self.advanced(now);
        match parts.circuit.as_ref().map_or(Room::Free, Circuit::room) {
            Room::NoneUntil(until) => return Some(Shut::Open(until)),
            Room::Probes(0) => return Some(Shut::Probing),
            Room::Free | Room::Probes(_) => {}
        }
        parts.pace.as_ref().map(|pace| pace.next(now)).filter(|next| *next > now).map(Shut::Rate)
    }

    /// Completes when something has changed here since this was called.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// The right to make a retry, or when there may be one.
    pub(super) fn retry(self: &Arc<Self>, now: Timestamp) -> Result<RetryRight, Timestamp> {
        if let Some(right) = self.retries(1, now).pop() {
            return Ok(right);
        }
        self.parts().withholding_callers = true;
        // Asked after that was said: whatever is paid in meanwhile is either seen here or wakes the caller.
        Err(self.retries_from(now))
    }

    /// The rights to make up to `most` retries.
    pub(super) fn retries(self: &Arc<Self>, most: usize, now: Timestamp) -> Vec<RetryRight> {
        let mut parts = self.parts();
        let epoch = parts.epoch.budget;
        let (allowed, right) = match &mut parts.budget {
            Some(budget) => (budget.reserve(most, now), true),
            None => (most, false),
        };
        (0..allowed).map(|_| if right { RetryRight::reserved(self, epoch) } else { RetryRight::free() }).collect()
    }

    /// When a retry that is due may be made: `now`, or when the budget has room for it.
    pub(super) fn retries_from(&self, now: Timestamp) -> Timestamp {
        match &mut self.parts().budget {
            Some(budget) => budget.next(now),
            None => now,
        }
    }

    /// Whether retries that are due are withheld from now on.
    pub(super) fn set_withholding(&self, withholding: bool) {
        let mut parts = self.parts();
        parts.withholding = withholding && parts.budget.is_some();
    }

    /// Whether retries that were due have been withheld until now.
    pub(super) fn is_withholding(&self) -> bool {
        self.parts().withholding
    }

    /// A retry is made that was withheld.
    pub(super) fn count_withheld(&self) {
        self.withheld.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt begins: the rate counts it, and the budget.
    pub(super) fn begin(&self, grant: &mut Grant, is_retry: bool, now: Timestamp) {
        let mut parts = self.parts();
        let epoch = parts.epoch.pace;
        if let Some(pace) = parts.pace.as_mut().filter(|_| grant.token.take() == Some(epoch)) {
            pace.begin(now);
        }
        let Some(budget) = &mut parts.budget else { return };
        budget.count(is_retry, now);
        // First attempts pay for retries, and one that waits may have been paid for.
        if !is_retry && budget.left(now) > 0 {
            self.withhold_no_more(parts, now);
        }
    }

    /// There is room in the budget: retries that it withheld may get through.
    fn withhold_no_more(&self, mut parts: MutexGuard<'_, Parts>, now: Timestamp) {
        let (queue, callers) = (parts.withholding, std::mem::take(&mut parts.withholding_callers));
        drop(parts);
        if queue {
            self.agenda.put(&self.route, now);
        }
        if callers {
            self.changed.notify_waiters();
        }
    }

    /// It is known of an attempt whether its destination failed.
    pub(super) fn came_to(&self, grant: &mut Grant, failed: bool, now: Timestamp) {
        let Some(pass) = grant.pass.take() else { return };
        let mut parts = self.parts();
        let Some(circuit) = &mut parts.circuit else { return };
        let is_probe = pass.is_probe();
        let change = circuit.leave(pass, if failed { Came::Bad } else { Came::Good }, now);
        if let Some(change) = change {
            self.say(change);
        }
        drop(parts);
        if is_probe || change.is_some() {
            self.look_again(now);
        }
    }

    /// What of a grant was not used is free again.
    pub(super) fn give_back(&self, grant: &mut Grant) {
        if grant.token.is_none() && grant.pass.is_none() {
            return;
        }
        let mut parts = self.parts();
        let epoch = parts.epoch.pace;
        if let Some(pace) = parts.pace.as_mut().filter(|_| grant.token.take() == Some(epoch)) {
            pace.give_back();
            self.returned.notify_waiters();
        }
        let mut is_probe = false;
        if let (Some(circuit), Some(pass)) = (&mut parts.circuit, grant.pass.take()) {
            is_probe = pass.is_probe();
            circuit.give_back(pass);
        }
        drop(parts);
        if is_probe {
            // As soon as may be: what time it is, nobody says here.
            self.look_again(Timestamp::from_millis(0));
        }
    }

    /// The right to a retry, reserved in that epoch, is free again.
    pub(super) fn give_retry_back(&self, epoch: u64) {
        let mut parts = self.parts();
        if parts.epoch.budget == epoch
            && let Some(budget) = &mut parts.budget
        {
            budget.give_back();
            if budget.left_as_last_read() > 0 {
                // As soon as may be: what time it is, nobody says here.
                self.withhold_no_more(parts, Timestamp::from_millis(0));
            }
        }
    }

    /// The queue, and whoever else waits, may get through.
    fn look_again(&self, now: Timestamp) {
        self.agenda.put(&self.route, now);
        self.changed.notify_waiters();
    }

    /// How it stands, for onlookers.
    pub(super) fn status(&self, now: Timestamp) -> LaneStatus {
        let mut parts = self.advanced(now);
        LaneStatus {
            breaker: parts.circuit.as_mut().map(|circuit| {
                let counts = circuit.counts(now);
                BreakerStatus {
                    state: circuit.state(),
                    until: match circuit.room() {
                        Room::NoneUntil(until) => Some(until),
                        Room::Free | Room::Probes(_) => None,
                    },
                    attempts: counts.all,
                    failures: counts.marked,
                }
            }),
            rate_free_at: parts.pace.as_ref().map(|pace| pace.next(now)).filter(|next| *next > now),
            retries_left: parts.budget.as_mut().map(|budget| budget.left(now)),
            withheld: self.withheld.load(Ordering::Relaxed),
        }
    }

    /// The parts, gone on with the time.
    fn advanced(&self, now: Timestamp) -> MutexGuard<'_, Parts> {
        let mut parts = self.parts();
        if let Some(change) = parts.circuit.as_mut().and_then(|circuit| circuit.advance(now)) {
            self.say(change);
            self.changed.notify_waiters();
        }
        parts
    }

    fn say(&self, change: Change) {
        let (state, until) = match change {
            Change::Opened { until, .. } | Change::OpenedAgain { until } => ("open", Some(until)),
            Change::HalfOpened => ("half_open", None),
            Change::Closed => ("closed", None),
        };
        let until = until.map(tracing::field::display);
        tracing::warn!(target: "backstop::breaker", route = %self.route, state, why = %change, until, "circuit breaker");
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
