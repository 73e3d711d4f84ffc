//! The check-back: senders of half messages that have not said their word in time are asked what became of their
//! operations.
//!
//! The store is the truth: which transaction is asked about when, and how often it was, is written there, and a
//! transaction is claimed under a lease before its sender is asked, so that of several hosts one asks at a time. A host
//! that dies in between changes nothing: the check it may have sent is not counted, and is made again once the lease has
//! run out. A hint brings the loop here sooner; a periodic scan repairs whatever a lost hint left behind.
//!
//! An answer is a word like the sender's own: the first one holds, so one that comes late changes nothing. Nothing is
//! asked about that has ended: it is not claimed.

mod asking;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Timestamp};
use crate::config::{CheckBack, Route};
use crate::dispatch::Transport;
use crate::message::RouteName;
use crate::policy::Catalog;
use crate::queue::{Agenda, Holds, Queue};
use crate::routes::{self, Routes};
use crate::store::{ClaimedChecks, Lease, Owner, Store, StoreError};

/// The longest time between two looks at every route, whatever the hints say.
const SCAN_EVERY: Duration = Duration::from_secs(5);

/// How long a route is left alone after the store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Checks made at once on one route, and on all of them: senders that hang leave room for the others'.
const AT_ONCE: (usize, usize) = (16, 64);

/// Makes checks.
pub struct CheckBacks {
    /// The routes by name.
    pub routes: Arc<Routes>,
    /// Who reads the answers.
    pub catalog: Arc<Catalog>,
    /// How a check reaches the sender.
    pub transport: Arc<dyn Transport>,
    /// Where transactions are kept.
    pub store: Arc<dyn Store>,
    /// Where what is settled goes.
    pub queue: Arc<Queue>,
    /// Which origins asked for quiet.
    pub holds: Arc<Holds>,
    /// When each route is to be looked at.
    pub agenda: Arc<Agenda>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who holds the leases.
    pub owner: Owner,
    /// How much longer than its check may take a lease lasts: the time its answer has to be written down.
    pub lease: Duration,
}

/// What bounds the checks under way.
struct Places {
    by_route: BTreeMap<RouteName, Arc<Semaphore>>,
    in_all: Arc<Semaphore>,
}

/// The right to make one check.
type Place = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Places {
    fn new() -> Self {
        Self { by_route: BTreeMap::new(), in_all: Arc::new(Semaphore::new(AT_ONCE.1)) }
    }

    /// Those that are free for checks on `route`.
    fn free(&mut self, route: &RouteName) -> Vec<Place> {
        let on_route = self.by_route.entry(route.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE.0)));
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        std::iter::from_fn(|| Some((take(on_route)?, take(&self.in_all)?))).collect()
    }
}

impl CheckBacks {
    /// Asks whoever is to be asked, until told to stop. Checks under way are then given up: they are made again when
    /// their leases have run out, or by the next start.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let under_way = TaskTracker::new();
        let mut places = Places::new();
        let mut next_scan = self.clock.now();
        while !stop.is_cancelled() {
            let now = self.clock.now();
            let scans = now >= next_scan;
            if scans {
                next_scan = now.after(SCAN_EVERY);
            }
            let table = self.routes.table();
            places.by_route.retain(|name, _| table.contains_key(name));
            let due = self.agenda.take_due(now);
            for route in routes::served(&table).filter(|route| scans || due.contains(&route.name)) {
                if let Some(back) = &route.check_back {
                    self.look_at(route, back, &mut places, &under_way, &stop).await;
                }
            }
            let next = self.agenda.next().map_or(next_scan, |due| due.min(next_scan));
            tokio::select! {
                () = self.clock.sleep_until(next) => {}
                () = self.agenda.news() => {}
                () = stop.cancelled() => {}
            }
        }
        under_way.close();
        under_way.wait().await;
    }

    /// Claims what is due on a route, as much as may be asked about now, and asks.
    async fn look_at(
        self: &Arc<Self>,
        route: &Arc<Route>,
        back: &CheckBack,
        places: &mut Places,
        under_way: &TaskTracker,
        stop: &CancellationToken,
    ) {
        if let Some(until) = self.holds.held_until(&back.sender.origin(), self.clock.now()) {
            return self.agenda.put(&route.name, until);
        }
        let places = places.free(&route.name);
        if places.is_empty() {
            // Whoever gives one back has the route looked at again.
            return;
        }
        let (now, limit) = (self.clock.now(), u32::try_from(places.len()).unwrap_or(u32::MAX));
        let claimed = match self.claim(route, back, limit, now).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    route = %route.name,
                    "could not look for half messages to ask about"
                );
                return self.agenda.put(&route.name, now.after(STORE_RETRY));
            }
        };
        // Where more is due than there are places for, the route is looked at when one comes free.
        let is_crowded = claimed.next_due.is_some_and(|due| due <= now);
        if let Some(due) = claimed.next_due.filter(|_| !is_crowded) {
            self.agenda.put(&route.name, due);
        }
        for (check, place) in claimed.checks.into_iter().zip(places) {
            let (this, route, stop) = (Arc::clone(self), Arc::clone(route), stop.clone());
            under_way.spawn(async move {
                tokio::select! {
                    next = this.ask(&route, check) => {
                        drop(place);
                        if let Some(look) = if is_crowded { Some(this.clock.now()) } else { next } {
                            this.agenda.put(&route.name, look);
                        }
                    }
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    async fn claim(
        &self,
        route: &Route,
        back: &CheckBack,
        limit: u32,
        now: Timestamp,
    ) -> Result<ClaimedChecks, StoreError> {
        let until = now.after(back.sender.timeout.saturating_add(self.lease));
        let lease = Lease { owner: self.owner.clone(), until };
        self.store.claim_checks(route.name.clone(), limit, now, lease).await
    }
}
