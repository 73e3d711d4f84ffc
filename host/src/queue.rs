//! The queue: messages that are due are claimed under a lease and attempted, each route in its own lane.
//!
//! The store is the truth. A wake-up is only a hint that something may be due, and a periodic scan of every lane
//! repairs whatever a lost hint left behind. A message leaves the queue only by a transition that is on disk; whatever
//! happens between claim and finish leads to a repeat with the same id, never to a loss.

mod agenda;
mod attempting;
mod breaker;
mod budget;
mod claiming;
mod gate;
mod holds;
mod lane;
mod lanes;
mod lease;
mod order;
mod permit;
mod places;
mod rate;
mod republishing;
mod status;
mod transacting;
#[cfg(test)]
pub(crate) mod bench;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::Attempts;
use crate::clock::{Clock, Stopwatch, Timestamp};
use crate::config::Route;
use crate::message::{AttemptRecord, Message, RouteName};
use crate::store::{Acceptance, Accepted, Entry, Hold, KeyClaim, Lease, Owner, Selection, Store, StoreError};
use crate::watch::Watch;

pub use agenda::Agenda;
pub use gate::Shut;
pub use holds::Holds;
pub use lane::Lane;
use lane::Waits;
pub use lanes::{ByRoute, Lanes, lanes};
use lease::Leases;
pub use permit::{Permit, RetryRight};
pub use republishing::{BadRun, Republished, Run};
pub use status::{BreakerStatus, LaneStatus};
pub use transacting::Spoken;

/// How long a lease lasts unless something else is said.
const LEASE: Duration = Duration::from_secs(30);
/// How long a message that comes in is kept waiting for a permit before it is stored without.
const PERMIT_WITHIN: Duration = Duration::from_millis(50);
/// How long the queue waits after the store failed it, at first and at most.
pub(crate) const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The queue.
pub struct Queue {
    lanes: Lanes,
    store: Arc<dyn Store>,
    attempts: Arc<Attempts>,
    holds: Arc<Holds>,
    watch: Arc<Watch>,
    clock: Arc<dyn Clock>,
    owner: Owner,
    leases: Leases,
    lease_length: Duration,
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
    /// Its route is gone, or takes nothing in.
    Closed,
}

impl Queue {
    /// A queue with these lanes.
    #[expect(clippy::too_many_arguments, reason = "the wiring has one home, and this is its seam")]
    pub fn new(
        lanes: Lanes,
        store: Arc<dyn Store>,
        attempts: Arc<Attempts>,
        holds: Arc<Holds>,
        watch: Arc<Watch>,
        clock: Arc<dyn Clock>,
        owner: Owner,
        stop: CancellationToken,
    ) -> Self {
        let queue = Self {
            lanes,
            store,
            attempts,
            holds,
            watch,
            clock,
            owner,
            leases: Leases::default(),
            lease_length: LEASE,
            stop,
            in_flight: TaskTracker::new(),
            abort: CancellationToken::new(),
        };
        queue.lanes.all().values().for_each(|lane| queue.welcome(lane));
        queue
    }

    /// The same with leases of this length. They are prolonged three times in it while their messages are attempted.
    #[must_use]
    pub fn with_lease(self, length: Duration) -> Self {
        Self { lease_length: length, ..self }
    }

    /// Has lanes for exactly these routes from now on. `open` says how many messages of each wait in the store; only
    /// lanes of routes that are new, or come back, need it.
    ///
    /// A route that has not changed notices nothing. One that has goes on with its messages, its attempts in flight
    /// and, where their settings are the same, its rate, breaker and retry budget. One that is gone has its attempts in
    /// flight finished, and its messages stay in the store.
    pub fn set_routes<'a>(&self, routes: impl IntoIterator<Item = &'a Arc<Route>>, open: &BTreeMap<String, u64>) {
        for name in self.lanes.set(routes, open) {
            if let Some(lane) = self.lanes.get(&name) {
                self.welcome(&lane);
            }
        }
    }

    /// Has a lane that is new looked at at once: what waits for it in the store is not known yet.
    fn welcome(&self, lane: &Lane) {
        let at_once = Timestamp::from_millis(0);
        if lane.open() > 0 {
            lane.expect_by(Waits::First, at_once);
        }
        self.lanes.agenda.put(&lane.route.name, at_once);
    }

    /// The lane of `route`.
    pub fn lane(&self, route: &RouteName) -> Option<Arc<Lane>> {
        self.lanes.get(route)
    }

    /// Every lane, by route, as they are now.
    pub fn lanes(&self) -> Arc<ByRoute> {
        self.lanes.all()
    }

    /// Takes responsibility for a message that nobody waits for. When this returns [`Offered::Accepted`] it is on
    /// disk; where its lane is free it is already being attempted, under a lease taken in the same write.
    ///
    /// Not to be cancelled between its call and its return: it belongs on a task of its own.
    ///
    /// # Errors
    /// [`StoreError`]; the message is then not ours.
    pub async fn offer(self: &Arc<Self>, message: Message, key: Option<KeyClaim>) -> Result<Offered, StoreError> {
        let Some(lane) = self.lanes.get(&message.route) else { return Ok(Offered::Closed) };
        let order = self.order_of(&lane, &message).await;
        let now = self.clock.now();
        let permit = if self.is_free(&lane, now) { self.permit_soon(&lane, now).await } else { None };
        let asked = Stopwatch::start();
        let entry = match permit {
            Some(_) => Entry::Leased(self.lease()),
            None => Entry::Queued { due: now },
        };
        let acceptance = Acceptance { message: message.clone(), entry, attempts: Vec::new(), key, hold: None, order };
        let (offered, is_behind) = self.accept(&lane, acceptance).await?;
        match permit {
            // Whoever is before it wakes the lane when it ends.
            _ if is_behind || offered != Offered::Accepted => {}
            // The store took longer than the lease lasts: by now another host may have the message.
            Some(_) if asked.elapsed() >= self.lease_length => self.expect(&lane, Waits::First, self.clock.now()),
            Some(permit) => self.start(message, lane, permit, false),
            None => self.expect(&lane, Waits::First, now),
        }
        Ok(offered)
    }

    /// Whether a message that comes now has nothing before it, but attempts under way.
    fn is_free(&self, lane: &Lane, now: Timestamp) -> bool {
        !lane.has_backlog(now) && self.holds.held_until(&lane.destination, now).is_none() && !self.stop.is_cancelled()
    }

    /// A permit for a message that has nothing before it but attempts under way: waited for a moment, because a message
    /// that is stored under a lease needs no claim, which costs the store more than everything else about it. That
    /// also keeps a crowd of callers at the pace of their destination instead of building up a backlog.
    async fn permit_soon(&self, lane: &Lane, now: Timestamp) -> Option<Permit> {
        if let Some(permit) = lane.try_permit(now) {
            return Some(permit);
        }
        // A breaker or a rate keeps it waiting longer than that.
        if lane.route.rate.is_some() || lane.shut(now).is_some() {
            return None;
        }
        let permit = tokio::select! {
            permit = lane.permit(&*self.clock) => permit?,
            () = self.clock.sleep(PERMIT_WITHIN) => return None,
            () = self.stop.cancelled() => return None,
        };
        // Meanwhile the destination may have asked for quiet.
        self.holds.held_until(&lane.destination, self.clock.now()).is_none().then_some(permit)
    }

    /// The order that the message joins, where its route has one.
    async fn order_of(&self, lane: &Lane, message: &Message) -> Option<String> {
        let key = &lane.route.order.as_ref()?.key;
        if !order::takes_long(key, &message.request) {
            return order::key_of(key, &message.request);
        }
        let (key, request) = (key.clone(), Arc::clone(&message.request));
        // A body that long is not read on a thread that serves others.
        tokio::task::spawn_blocking(move || order::key_of(&key, &request)).await.ok().flatten()
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
        let Some(lane) = self.lanes.get(&message.route) else { return Ok(Offered::Closed) };
        let what = if message.progress.attempts > 0 { Waits::Retry } else { Waits::First };
        let (offered, _) = self
            .accept(&lane, Acceptance { message, entry: Entry::Queued { due }, attempts, key, hold, order: None })
            .await?;
        if offered == Offered::Accepted {
            self.expect(&lane, what, due);
        }
        Ok(offered)
    }

    /// Stores a message that has a place in its lane from then on, and none if it is not stored. Answers as well
    /// whether it is behind another one of its order.
    async fn accept(&self, lane: &Lane, acceptance: Acceptance) -> Result<(Offered, bool), StoreError> {
        if !lane.route.enabled {
            return Ok((Offered::Closed, false));
        }
        if !lane.enter() {
            return Ok((Offered::Saturated, false));
        }
        let accepted = self.store.accept(acceptance).await;
        if !matches!(accepted, Ok(Accepted::Stored | Accepted::Behind)) {
            lane.leave();
        }
        Ok(match accepted? {
            Accepted::Stored => (Offered::Accepted, false),
            Accepted::Behind => (Offered::Accepted, true),
            Accepted::Key(state) => (Offered::Key(state), false),
        })
    }

    /// Queues dead letters again, due at once. Goes on to its end even if the caller does not wait for it.
    ///
    /// # Errors
    /// [`StoreError`]; some may have been redriven before it.
    pub async fn redrive(self: &Arc<Self>, selection: Selection) -> Result<u64, StoreError> {
        let queue = Arc::clone(self);
        self.onward(async move {
            let now = queue.clock.now();
            let redriven = queue.store.redrive(selection, now).await;
            queue.recount().await;
            queue.lanes.all().values().for_each(|lane| queue.expect(lane, Waits::First, now));
            redriven
        })
        .await
    }

    /// Counts what has not ended anew: other hosts that share the store add to it and take from it, and a host that
    /// only counted what it does itself would in the end take nothing in.
    async fn recount(&self) {
        let lanes = self.lanes.all();
        let before: Vec<_> = lanes.values().map(|lane| (Arc::clone(lane), lane.open())).collect();
        match self.store.backlog().await {
            Ok(open) => before.into_iter().for_each(|(lane, before)| {
                lane.recount_since(before, open.get(lane.route.name.as_str()).copied().unwrap_or(0));
            }),
            // The count is only a bound on intake, and is taken again.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "could not count what waits"),
        }
    }

    /// Gives dead letters up. Those behind them in their order may go on. Goes on to its end even if the caller does not
    /// wait for it.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn discard(self: &Arc<Self>, selection: Selection) -> Result<u64, StoreError> {
        let queue = Arc::clone(self);
        self.onward(async move {
            let now = queue.clock.now();
            let discarded = queue.store.discard(selection, now).await;
            queue.look_at_orders(now);
            discarded
        })
        .await
    }

    /// Gives up what is queued on a route that nobody serves, as [`Store::discard_queued`] does. Those behind them in their
    /// order may go on. Goes on to its end even if the caller does not wait for it.
    ///
    /// # Errors
    /// [`StoreError`]; some may have been given up before it.
    pub async fn discard_queued(self: &Arc<Self>, route: String, reason: Option<String>) -> Result<u64, StoreError> {
        let queue = Arc::clone(self);
        self.onward(async move {
            let now = queue.clock.now();
            let discarded = queue.store.discard_queued(route, reason, now).await;
            queue.recount().await;
            queue.look_at_orders(now);
            discarded
        })
        .await
    }

    /// Does `work` on a task that a shutdown waits for: it goes on to its end even if its caller does not wait for it.
    async fn onward<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.in_flight.spawn(work).await.unwrap_or_else(|broken| Err(StoreError::Unavailable(Box::new(broken))))
    }

    /// Has every lane looked at where messages wait for their turn: one of them may have it now.
    fn look_at_orders(&self, now: Timestamp) {
        let ordered = |lane: &&Arc<Lane>| lane.route.order.is_some();
        self.lanes.all().values().filter(ordered).for_each(|lane| self.expect(lane, Waits::First, now));
    }

    /// Has the lane looked at when something is due there.
    fn expect(&self, lane: &Lane, what: Waits, due: Timestamp) {
        if lane.expect_by(what, due) {
            self.look_when_due(lane);
        }
    }

    /// Has the lane looked at when something that is known of may be attempted.
    fn look_when_due(&self, lane: &Lane) {
        if let Some(when) = lane.next_look(self.clock.now()) {
            self.lanes.agenda.put(&lane.route.name, when);
        }
    }

    fn lease(&self) -> Lease {
        Lease { owner: self.owner.clone(), until: self.clock.now().after(self.lease_length) }
    }
}
