//! Claiming: the loop that looks at lanes when something is due there, and takes it under a lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Lane, Permit, Queue, STORE_RETRY};
use crate::clock::Timestamp;
use crate::message::RouteName;
use crate::store::{LaneClaim, StoreError};

/// The longest time between two looks at every lane, whatever the hints say.
const SCAN_EVERY: Duration = Duration::from_secs(5);
/// Messages claimed for one lane at once.
const CLAIM_PER_LANE: usize = 64;
/// Messages and lanes claimed in one transaction: while it lasts, nobody else writes.
const CLAIM_AT_ONCE: (usize, usize) = (256, 64);

/// Lanes and the permits held for what is claimed there.
#[derive(Default)]
struct Rights(BTreeMap<RouteName, (Arc<Lane>, Vec<Permit>)>);

impl Queue {
    /// Claims and attempts until told to stop. Then everything in flight is given `grace` to finish; what has not is
    /// aborted and given back. Answers how many were.
    pub async fn run(self: Arc<Self>, grace: Duration) -> usize {
        let heartbeat = self.leases.heartbeat(&self.store, &self.owner, &self.clock, super::LEASE);
        tokio::select! {
            () = self.claim_until_stopped() => {}
            () = heartbeat => {}
        }
        self.in_flight.close();
        // Leases are prolonged while we wait, so that no other host repeats what is about to finish.
        tokio::select! {
            () = self.in_flight.wait() => {}
            () = self.clock.sleep(grace) => {}
            () = self.leases.heartbeat(&self.store, &self.owner, &self.clock, super::LEASE) => {}
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
        let mut next_scan = self.clock.sleep(SCAN_EVERY);
        let mut trouble = STORE_RETRY.0;
        while !self.stop.is_cancelled() {
            if let Err(error) = self.claim_due().await {
                tracing::error!(error = &error as &dyn std::error::Error, "could not claim messages");
                tokio::select! {
                    () = self.clock.sleep(trouble) => {}
                    () = self.stop.cancelled() => return,
                }
                trouble = (trouble * 2).min(STORE_RETRY.1);
                continue;
            }
            trouble = STORE_RETRY.0;
            let look = self.agenda.next();
            tokio::select! {
                () = self.clock.sleep_until(look.unwrap_or(Timestamp::from_millis(0))), if look.is_some() => {}
                () = self.wake.notified() => {}
                () = &mut next_scan => {
                    self.scan();
                    next_scan = self.clock.sleep(SCAN_EVERY);
                }
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Has every lane looked at: what no hint told of is found now.
    fn scan(&self) {
        let now = self.clock.now();
        for name in self.lanes.all().keys() {
            self.agenda.put(name, now);
        }
    }

    /// Looks at the lanes that are to be looked at by now.
    async fn claim_due(self: &Arc<Self>) -> Result<(), StoreError> {
        let now = self.clock.now();
        let names = self.agenda.take_due(now);
        let mut lanes = names.iter().filter_map(|name| self.lanes.get(name));
        loop {
            let (mut claims, mut rights, mut messages) = (Vec::new(), Rights::default(), 0);
            while messages < CLAIM_AT_ONCE.0
                && claims.len() < CLAIM_AT_ONCE.1
                && let Some(lane) = lanes.next()
            {
                if let Some((claim, permits)) = self.look_at(&lane, now) {
                    messages += claim.limit;
                    rights.0.insert(claim.route.clone(), (lane, permits));
                    claims.push(claim);
                }
            }
            if claims.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.claim(claims, rights, now).await {
                // Those not come to yet are looked at again as well.
                lanes.for_each(|lane| _ = self.agenda.put(&lane.route.name, now));
                return Err(error);
            }
        }
    }

    /// What to claim on a lane, with the permits for it; none when nothing can be claimed there now.
    fn look_at(self: &Arc<Self>, lane: &Arc<Lane>, now: Timestamp) -> Option<(LaneClaim, Vec<Permit>)> {
        if !lane.route.enabled || lane.is_in_line() {
            return None;
        }
        if let Some(until) = self.holds.held_until(&lane.destination, now) {
            self.agenda.put(&lane.route.name, until);
            return None;
        }
        // Where nothing is known to be due the store is only asked when something will be: permits are not kept from
        // messages that come in meanwhile.
        let most = if lane.has_backlog(now) { CLAIM_PER_LANE } else { 0 };
        let permits = lane.permits(most);
        if permits.is_empty() && most > 0 {
            self.line_up(lane);
            return None;
        }
        // Forgotten before the claim: a message that is queued meanwhile says so again.
        lane.look();
        Some((LaneClaim { route: lane.route.name.clone(), limit: permits.len(), retries: permits.len() }, permits))
    }

    /// Claims, and starts what was claimed.
    async fn claim(
        self: &Arc<Self>,
        claims: Vec<LaneClaim>,
        mut rights: Rights,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let claimed = match self.store.claim_due(claims, now, self.lease()).await {
            Ok(claimed) => claimed,
            Err(error) => {
                for (lane, _) in rights.0.values() {
                    self.expect(lane, now);
                }
                return Err(error);
            }
        };
        for (name, next) in &claimed.next_due {
            if let (Some((lane, _)), Some(due)) = (rights.0.get(name), next.earliest()) {
                self.expect(lane, due);
            }
        }
        for message in claimed.messages {
            let right = rights.0.get_mut(&message.route);
            match right.and_then(|(lane, permits)| Some((Arc::clone(lane), permits.pop()?))) {
                Some((lane, permit)) => self.start(message, lane, permit),
                None => tracing::error!(
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
                    queue.agenda.put(&lane.route.name, queue.clock.now());
                    queue.wake.notify_one();
                }
                () = queue.stop.cancelled() => lane.reserve(None),
            }
        });
    }
}
