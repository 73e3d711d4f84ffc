//! The queue: messages that are due are claimed under a lease and attempted, each route in its own lane.
//!
//! The store is the truth. A wake-up is only a hint that something may be due, and a periodic scan of every lane
//! repairs whatever a lost hint left behind. A message leaves the queue only by a transition that is on disk; whatever
//! happens between claim and finish leads to a repeat with the same id, never to a loss.

mod holds;
mod lane;
mod lease;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::{Attempts, Made, Terms};
use crate::clock::{Clock, Timestamp};
use crate::config::Route;
use crate::message::{AttemptRecord, Message, MessageId, RouteName, State};
use crate::store::{
    Acceptance, Accepted, Entry, Finish, Finished, Hold, KeyClaim, LaneClaim, Lease, Owner, Selection, Store,
    StoreError, Then,
};
use crate::watch::Watch;

pub use holds::Holds;
pub use lane::{Lane, Permit};
use lease::Leases;

/// The longest time between two looks at every lane, whatever the hints say.
const SCAN_EVERY: Duration = Duration::from_secs(5);
/// Messages claimed for one lane at once.
const CLAIM_PER_LANE: usize = 64;
/// How long a lease lasts, and how often it is prolonged while its message is attempted.
const LEASE: Duration = Duration::from_secs(30);
/// How long the queue waits after the store failed it, at first and at most.
const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The queue.
pub struct Queue {
    lanes: BTreeMap<RouteName, Arc<Lane>>,
    store: Arc<dyn Store>,
    attempts: Arc<Attempts>,
    holds: Arc<Holds>,
    watch: Arc<Watch>,
    clock: Arc<dyn Clock>,
    owner: Owner,
    leases: Leases,
    wake: Notify,
    stop: CancellationToken,
    /// Attempts in flight: awaited at a shutdown, within the grace period, and then aborted.
    in_flight: TaskTracker,
    abort: CancellationToken,
}

/// What became of a message that was offered.
#[derive(Clone, Debug, PartialEq)]
pub enum Offered {
    /// It is on disk.
    Accepted,
    /// Its idempotency key was used before.
    Key(crate::store::KeyState),
    /// `max_queued` messages wait on its route.
    Saturated,
}

impl Queue {
    /// A queue with a lane for each of `lanes`.
    #[expect(clippy::too_many_arguments, reason = "the wiring has one home, and this is its seam")]
    pub fn new(
        lanes: BTreeMap<RouteName, Arc<Lane>>,
        store: Arc<dyn Store>,
        attempts: Arc<Attempts>,
        holds: Arc<Holds>,
        watch: Arc<Watch>,
        clock: Arc<dyn Clock>,
        owner: Owner,
        stop: CancellationToken,
    ) -> Self {
        Self {
            lanes,
            store,
            attempts,
            holds,
            watch,
            clock,
            owner,
            leases: Leases::default(),
            wake: Notify::new(),
            stop,
            in_flight: TaskTracker::new(),
            abort: CancellationToken::new(),
        }
    }

    /// The lane of `route`.
    pub fn lane(&self, route: &RouteName) -> Option<&Arc<Lane>> {
        self.lanes.get(route)
    }

    /// Every lane, by route.
    pub fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.lanes.values()
    }

    /// Takes responsibility for a message that nobody waits for. When this returns [`Offered::Accepted`] it is on
    /// disk; where its lane is free it is already being attempted, under a lease taken in the same write.
    ///
    /// Not to be cancelled between its call and its return: it belongs on a task of its own.
    ///
    /// # Errors
    /// [`StoreError`]; the message is then not ours.
    pub async fn offer(self: &Arc<Self>, message: Message, key: Option<KeyClaim>) -> Result<Offered, StoreError> {
        let Some(lane) = self.lanes.get(&message.route) else { return Ok(Offered::Saturated) };
        let now = self.clock.now();
        let at_once = !lane.has_backlog(now)
            && self.holds.held_until(&lane.destination, now).is_none()
            && !self.stop.is_cancelled();
        let permit = if at_once { lane.try_permit() } else { None };
        let entry = match permit {
            Some(_) => Entry::Leased(self.lease()),
            None => Entry::Queued { due: now },
        };
        let acceptance =
            Acceptance { message: message.clone(), entry, attempts: Vec::new(), key, hold: None, order: None };
        let offered = self.accept(lane, acceptance).await?;
        if offered == Offered::Accepted {
            match permit {
                Some(permit) => self.start(message, Arc::clone(lane), permit),
                None => self.expect(lane, now),
            }
        }
        Ok(offered)
    }

    /// Takes responsibility for a message whose caller waited in vain so far: it is queued with the attempts made.
    ///
    /// # Errors
    /// [`StoreError`]; the message is then not ours.
    pub async fn take_over(
        &self,
        message: Message,
        due: Timestamp,
        attempts: Vec<AttemptRecord>,
        hold: Option<Hold>,
        key: Option<KeyClaim>,
    ) -> Result<Offered, StoreError> {
        let Some(lane) = self.lanes.get(&message.route) else { return Ok(Offered::Saturated) };
        let offered = self
            .accept(lane, Acceptance { message, entry: Entry::Queued { due }, attempts, key, hold, order: None })
            .await?;
        if offered == Offered::Accepted {
            self.expect(lane, due);
        }
        Ok(offered)
    }

    /// Stores a message that has a place in its lane from then on, and none if it is not stored.
    async fn accept(&self, lane: &Lane, acceptance: Acceptance) -> Result<Offered, StoreError> {
        if !lane.enter() {
            return Ok(Offered::Saturated);
        }
        let accepted = self.store.accept(acceptance).await;
        if !matches!(accepted, Ok(Accepted::Stored | Accepted::Behind)) {
            lane.leave();
        }
        Ok(match accepted? {
            Accepted::Stored | Accepted::Behind => Offered::Accepted,
            Accepted::Key(state) => Offered::Key(state),
        })
    }

    /// Queues dead letters again, due at once. Goes on to its end even if the caller does not wait for it.
    ///
    /// # Errors
    /// [`StoreError`]; some may have been redriven before it.
    pub async fn redrive(self: &Arc<Self>, selection: Selection) -> Result<u64, StoreError> {
        let queue = Arc::clone(self);
        let redriving = self.in_flight.spawn(async move {
            let now = queue.clock.now();
            let redriven = queue.store.redrive(selection, now).await;
            match queue.store.tally().await {
                Ok(tally) => queue.lanes.iter().for_each(|(name, lane)| lane.recount(open_in(&tally, name))),
                // The count is only a bound on intake; it is right again when the lane has been empty.
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "could not count what waits"),
            }
            queue.lanes.values().for_each(|lane| lane.expect_by(now));
            queue.wake.notify_one();
            redriven
        });
        redriving.await.unwrap_or_else(|broken| Err(StoreError::Unavailable(Box::new(broken))))
    }

    /// Claims and attempts until told to stop. Then everything in flight is given `grace` to finish; what has not is
    /// aborted and given back. Answers how many were.
    pub async fn run(self: Arc<Self>, grace: Duration) -> usize {
        let heartbeat = self.leases.heartbeat(&self.store, &self.owner, &self.clock, LEASE);
        tokio::select! {
            () = self.claim_until_stopped() => {}
            () = heartbeat => {}
        }
        self.in_flight.close();
        // Leases are prolonged while we wait, so that no other host repeats what is about to finish.
        tokio::select! {
            () = self.in_flight.wait() => {}
            () = self.clock.sleep(grace) => {}
            () = self.leases.heartbeat(&self.store, &self.owner, &self.clock, LEASE) => {}
        }
        self.abort.cancel();
        self.in_flight.wait().await;
        let left = self.leases.held();
        let count = left.len();
        if count > 0
            && let Err(error) = self.store.release(left, self.owner.clone(), self.clock.now()).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not give messages back; they run out with their leases"
            );
        }
        count
    }

    async fn claim_until_stopped(self: &Arc<Self>) {
        let mut scan = true;
        let mut next_scan = self.clock.sleep(SCAN_EVERY);
        let mut trouble = STORE_RETRY.0;
        while !self.stop.is_cancelled() {
            let now = self.clock.now();
            if let Err(error) = self.claim(now, scan).await {
                tracing::error!(error = &error as &dyn std::error::Error, "could not claim messages");
                tokio::select! {
                    () = self.clock.sleep(trouble) => {}
                    () = self.stop.cancelled() => return,
                }
                trouble = (trouble * 2).min(STORE_RETRY.1);
                continue;
            }
            trouble = STORE_RETRY.0;
            let look = self.next_look();
            tokio::select! {
                () = self.clock.sleep_until(look.unwrap_or(now)), if look.is_some() => scan = false,
                () = self.wake.notified() => scan = false,
                () = &mut next_scan => {
                    scan = true;
                    next_scan = self.clock.sleep(SCAN_EVERY);
                }
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// When the next lane has something due; a held one, when its hold runs out. A lane in which the queue stands in
    /// line for a permit wakes it when its turn comes.
    fn next_look(&self) -> Option<Timestamp> {
        let now = self.clock.now();
        self.lanes
            .values()
            .filter(|lane| !lane.is_in_line())
            .filter_map(|lane| {
                let due = lane.expected()?;
                Some(self.holds.held_until(&lane.destination, now).map_or(due, |held| held.max(due)))
            })
            .min()
    }

    /// One look at the lanes where something is due (at every lane, when `scan`).
    async fn claim(self: &Arc<Self>, now: Timestamp, scan: bool) -> Result<(), StoreError> {
        let mut rights = BTreeMap::new();
        let mut claims = Vec::new();
        for (name, lane) in &self.lanes {
            let due = lane.has_backlog(now);
            if !(due || scan) || self.holds.held_until(&lane.destination, now).is_some() {
                continue;
            }
            let permits = lane.permits(CLAIM_PER_LANE);
            if permits.is_empty() {
                if due {
                    self.line_up(lane);
                }
                continue;
            }
            // Forgotten before the claim: a message that is queued meanwhile says so again.
            lane.look();
            claims.push(LaneClaim { route: name.clone(), limit: permits.len(), retries: permits.len() });
            rights.insert(name.clone(), permits);
        }
        if claims.is_empty() {
            return Ok(());
        }
        let claimed = match self.store.claim_due(claims, now, self.lease()).await {
            Ok(claimed) => claimed,
            Err(error) => {
                for lane in rights.keys().filter_map(|name| self.lanes.get(name)) {
                    lane.expect_by(now);
                }
                return Err(error);
            }
        };
        for (name, next) in &claimed.next_due {
            if let (Some(lane), Some(due)) = (self.lanes.get(name), next.earliest()) {
                lane.expect_by(due);
            }
        }
        for message in claimed.messages {
            let permit = rights.get_mut(&message.route).and_then(Vec::pop);
            match (self.lanes.get(&message.route), permit) {
                (Some(lane), Some(permit)) => self.start(message, Arc::clone(lane), permit),
                _ => tracing::error!(
                    message_id = %message.id,
                    route = %message.route,
                    "the store claimed a message that was not asked for; its lease will run out"
                ),
            }
        }
        Ok(())
    }

    /// Stands in line for a permit of a lane that is at its concurrency, among the callers that wait for one too: the
    /// queue has its turn however many there are.
    fn line_up(self: &Arc<Self>, lane: &Arc<Lane>) {
        if !lane.line_up() {
            return;
        }
        let (queue, lane) = (Arc::clone(self), Arc::clone(lane));
        self.in_flight.spawn(async move {
            tokio::select! {
                permit = lane.permit() => {
                    lane.reserve(permit);
                    queue.wake.notify_one();
                }
                () = queue.stop.cancelled() => lane.reserve(None),
            }
        });
    }

    /// Attempts a message that is ours, on a task of its own.
    fn start(self: &Arc<Self>, message: Message, lane: Arc<Lane>, permit: Permit) {
        if !self.leases.hold(message.id) {
            // Its lease ran out while it is being attempted here (a clock set forward, a store away for long). The
            // claim has renewed it; the attempt under way goes on.
            tracing::warn!(message_id = %message.id, route = %message.route, "claimed a message that is being attempted");
            return;
        }
        let queue = Arc::clone(self);
        self.in_flight.spawn(async move {
            let held = Held { queue: &queue, id: message.id };
            tokio::select! {
                () = queue.attempt(message, &lane) => drop(held),
                // Still held: it is given back with all that is left.
                () = queue.abort.cancelled() => std::mem::forget(held),
            }
            drop(permit);
        });
    }

    async fn attempt(&self, message: Message, lane: &Lane) {
        let made = self.attempts.make(&message, &lane.route, Terms::QUEUED).await;
        let then = made.then(&message, self.clock.now());
        if self.finish(&message, made, then.clone()).await == Finished::LeaseLost {
            tracing::warn!(message_id = %message.id, route = %message.route, "lease lost: another host repeats this attempt");
            return;
        }
        match then {
            Then::End { state, .. } => {
                lane.leave();
                self.watch.ended(&message, state);
            }
            Then::Queue { due, route } => {
                if let Some(next) = self.lanes.get(&route) {
                    if route != message.route {
                        lane.leave();
                        next.enter_anyway();
                    }
                    self.expect(next, due);
                }
            }
        }
    }

    /// Writes the transition down, however often it takes: until it is on disk the message is not done.
    async fn finish(&self, message: &Message, made: Made, then: Then) -> Finished {
        let finish = Finish {
            id: message.id,
            owner: self.owner.clone(),
            attempt: made.record,
            then,
            progress: made.progress,
            hold: made.hold,
            blocks: false,
        };
        let mut wait = STORE_RETRY.0;
        loop {
            match self.store.finish(finish.clone()).await {
                Ok(finished) => return finished,
                Err(error) => {
                    tracing::error!(
                        message_id = %message.id,
                        error = &error as &dyn std::error::Error,
                        "could not write down an attempt; trying again"
                    );
                    self.clock.sleep(wait).await;
                    wait = (wait * 2).min(STORE_RETRY.1);
                }
            }
        }
    }

    fn expect(&self, lane: &Lane, due: Timestamp) {
        lane.expect_by(due);
        self.wake.notify_one();
    }

    fn lease(&self) -> Lease {
        Lease { owner: self.owner.clone(), until: self.clock.now().after(LEASE) }
    }
}

/// A lease held for an attempt: let go at its end, even if the attempt panics.
struct Held<'a> {
    queue: &'a Queue,
    id: MessageId,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.queue.leases.let_go(self.id);
        if std::thread::panicking() {
            tracing::error!(message_id = %self.id, "an attempt panicked; its message is repeated when its lease runs out");
        }
    }
}

/// How many messages there are, by route and state.
pub type Tally = BTreeMap<(String, State), u64>;

/// A lane for each of `routes`, with what waits in the store. Callers that wait may take half of the `places` that the
/// ingress has on one route, so that a destination that hangs leaves room for the others.
pub fn lanes<'a>(
    routes: impl IntoIterator<Item = &'a Arc<Route>>,
    tally: &Tally,
    places: usize,
) -> BTreeMap<RouteName, Arc<Lane>> {
    let callers = |route: &Route| route.concurrency.saturating_mul(4).max(256).min(places.div_ceil(2));
    let lane = |route: &Arc<Route>| Arc::new(Lane::new(Arc::clone(route), open_in(tally, &route.name), callers(route)));
    routes.into_iter().map(|route| (route.name.clone(), lane(route))).collect()
}

/// How many messages of `route` have not ended.
fn open_in(tally: &Tally, route: &RouteName) -> u64 {
    tally.iter().filter(|((of, state), _)| of == route.as_str() && !state.is_terminal()).map(|(_, count)| count).sum()
}
