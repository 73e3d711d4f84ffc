//! Claiming: the loop that looks at lanes when something is due there, and takes it under a lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::{Lane, Permit, Queue, RetryRight, STORE_RETRY, Shut, Waits};
use crate::clock::{Stopwatch, Timestamp};
use crate::message::RouteName;
use crate::store::{LaneClaim, StoreError};

/// The longest time between two looks at every lane, whatever the hints say.
const SCAN_EVERY: Duration = Duration::from_secs(5);
/// How long the queue lets a lane's permits gather, once it had to stand in line for one, before it claims again.
const PERMITS_GATHER: Duration = Duration::from_millis(1);
/// Messages claimed for one lane at once.
const CLAIM_PER_LANE: usize = 64;
/// Messages and lanes claimed in one transaction: while it lasts, nobody else writes.
const CLAIM_AT_ONCE: (usize, usize) = (256, 64);

/// Scans between two counts of what has not ended.
const RECOUNT_EVERY: u32 = 12;

/// What looks around beside the claiming, one look at a time.
#[derive(Default)]
struct LookingAround {
    busy: AtomicBool,
    scans: AtomicU32,
}

/// What one transaction claims: lanes, and the rights held for what is claimed there.
#[derive(Default)]
struct Claim {
    asked: Vec<LaneClaim>,
    rights: BTreeMap<RouteName, Rights>,
}

/// What may be begun on a lane.
struct Rights {
    lane: Arc<Lane>,
    permits: Vec<Permit>,
    retries: Vec<RetryRight>,
}

impl Queue {
    /// Claims and attempts until told to stop. Then everything in flight is given `grace` to finish; what has not is
    /// aborted and given back. Answers how many were.
    pub async fn run(self: Arc<Self>, grace: Duration) -> usize {
        let heartbeat = self.leases.heartbeat(&self.store, &self.owner, &self.clock, self.lease_length);
        tokio::select! {
            () = self.claim_until_stopped() => {}
            () = heartbeat => {}
        }
        self.in_flight.close();
        // Leases are prolonged while we wait, so that no other host repeats what is about to finish.
        tokio::select! {
            () = self.in_flight.wait() => {}
            () = self.clock.sleep(grace) => {}
            () = self.leases.heartbeat(&self.store, &self.owner, &self.clock, self.lease_length) => {}
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
        let looking_around = Arc::new(LookingAround::default());
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
            let look = self.lanes.agenda.next();
            tokio::select! {
                () = self.clock.sleep_until(look.unwrap_or(Timestamp::from_millis(0))), if look.is_some() => {}
                () = self.lanes.agenda.news() => {}
                () = &mut next_scan => {
                    self.scan(&looking_around);
                    next_scan = self.clock.sleep(SCAN_EVERY);
                }
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Has every lane looked at: what no hint told of is found now. What other hosts wrote down is read beside it:
    /// claiming waits for no reader.
    fn scan(self: &Arc<Self>, looking_around: &Arc<LookingAround>) {
        let now = self.clock.now();
        for name in self.lanes.all().keys() {
            self.lanes.agenda.put(name, now);
        }
        if looking_around.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (queue, looking_around) = (Arc::clone(self), Arc::clone(looking_around));
        self.in_flight.spawn(async move {
            tokio::select! {
                () = queue.look_around(&looking_around) => {}
                () = queue.stop.cancelled() => {}
            }
            looking_around.busy.store(false, Ordering::Release);
        });
    }

    /// Learns of the holds that other hosts were asked for, and now and then of how much there is in all.
    async fn look_around(&self, looking_around: &LookingAround) {
        let now = self.clock.now();
        // A store that is away is found out, and complained of, when the lanes are looked at.
        for hold in self.store.holds(now).await.unwrap_or_default() {
            self.holds.hold(&hold.destination, hold.until);
        }
        if looking_around.scans.fetch_add(1, Ordering::Relaxed) % RECOUNT_EVERY == RECOUNT_EVERY - 1 {
            self.recount().await;
        }
    }

    /// Looks at the lanes that are to be looked at by now.
    async fn claim_due(self: &Arc<Self>) -> Result<(), StoreError> {
        let now = self.clock.now();
        let names = self.lanes.agenda.take_due(now);
        let mut lanes = names.iter().filter_map(|name| self.lanes.get(name));
        loop {
            let (mut claim, mut messages) = (Claim::default(), 0);
            while messages < CLAIM_AT_ONCE.0
                && claim.asked.len() < CLAIM_AT_ONCE.1
                && let Some(lane) = lanes.next()
            {
                if let Some(rights) = self.look_at(lane, now) {
                    let (route, limit) = (rights.lane.route.name.clone(), rights.permits.len());
                    messages += limit;
                    claim.asked.push(LaneClaim { route: route.clone(), limit, retries: rights.retries.len() });
                    claim.rights.insert(route, rights);
                }
            }
            if claim.asked.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.claim(claim, now).await {
                // Those not come to yet are looked at again as well.
                lanes.for_each(|lane| self.lanes.agenda.put(&lane.route.name, now));
                return Err(error);
            }
        }
    }

    /// What may be begun on a lane; none when there is no use in asking the store. Where nothing is known to be due,
    /// the store is only asked when something will be: permits are not kept from messages that come in meanwhile.
    fn look_at(self: &Arc<Self>, lane: Arc<Lane>, now: Timestamp) -> Option<Rights> {
        if !lane.route.enabled || lane.is_in_line() {
            return None;
        }
        let held = self.holds.held_until(&lane.destination, now);
        let open = match lane.shut(now) {
            Some(Shut::Open(until)) => Some(until),
            _ => None,
        };
        if let Some(until) = held.max(open) {
            lane.forgo_turn();
            self.lanes.agenda.put(&lane.route.name, until);
            return None;
        }
        let expected = lane.expected();
        let is_due = |due: Option<Timestamp>| due.is_some_and(|due| due <= now);
        let (first, retry) = (is_due(expected.first), is_due(expected.retry));
        let mut retries = if first || retry { lane.gate().retries(CLAIM_PER_LANE, now) } else { Vec::new() };
        let most = match (first, retry) {
            (true, _) => CLAIM_PER_LANE,
            (false, true) => retries.len(),
            (false, false) => 0,
        };
        let permits = lane.permits(most, now);
        if permits.is_empty() && most > 0 {
            self.line_up(&lane);
            return None;
        }
        retries.truncate(permits.len());
        if retry && retries.is_empty() {
            lane.gate().set_withholding(true);
        }
        // Forgotten before the claim: a message that is queued meanwhile says so again.
        lane.look();
        Some(Rights { lane, permits, retries })
    }

    /// Claims, and starts what was claimed.
    async fn claim(self: &Arc<Self>, claim: Claim, now: Timestamp) -> Result<(), StoreError> {
        let Claim { asked, mut rights } = claim;
        self.leases.catch_up(&self.store, &self.owner, now, self.lease_length).await;
        let asking = Stopwatch::start();
        let claimed = match self.store.claim_due(asked, now, self.lease()).await {
            Ok(claimed) => claimed,
            Err(error) => {
                for Rights { lane, .. } in rights.values() {
                    self.expect(lane, Waits::First, now);
                }
                return Err(error);
            }
        };
        if asking.elapsed() >= self.lease_length {
            // The store took longer than the lease lasts: by now another host may have them.
            for Rights { lane, .. } in rights.values() {
                self.expect(lane, Waits::First, self.clock.now());
            }
            return Ok(());
        }
        for message in claimed.messages {
            let right = rights.get_mut(&message.route);
            match right.and_then(|rights| Some((rights.permits.pop()?, rights))) {
                Some((permit, rights)) => {
                    // One whose lease lapsed is a retry that nobody reserved; the budget counts it all the same.
                    let right = (message.progress.attempts > 0).then(|| rights.retries.pop());
                    let withheld = right.is_some() && rights.lane.gate().is_withholding();
                    let id = message.id;
                    if self.leases.is_open(id) || (claimed.lapsed.contains(&id) && self.leases.is_held(id)) {
                        // Its lease ran out while it is being attempted here (a clock set forward, a store away for
                        // long), or its end may be on disk, and is written down again because nobody knows. The claim has
                        // renewed the lease; the attempt under way goes on.
                        tracing::warn!(
                            message_id = %id, route = %message.route, "claimed a message that is being attempted"
                        );
                        continue;
                    }
                    self.start(message, Arc::clone(&rights.lane), permit, withheld);
                }
                None => tracing::error!(
                    message_id = %message.id,
                    route = %message.route,
                    "the store claimed a message that was not asked for; its lease will run out"
                ),
            }
        }
        for (name, rights) in rights {
            let Rights { lane, permits, retries } = rights;
            // What was not used is free again before it is asked when to look next.
            drop((permits, retries));
            let next = claimed.next_due.get(&name).copied().unwrap_or_default();
            match next.retry {
                Some(due) if due <= now && lane.gate().retries_from(now) > now => lane.gate().set_withholding(true),
                Some(due) if due <= now => {}
                _ => lane.gate().set_withholding(false),
            }
            next.first.map(|due| lane.expect_by(Waits::First, due));
            next.retry.map(|due| lane.expect_by(Waits::Retry, due));
            self.look_when_due(&lane);
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
                permit = lane.permit(&*queue.clock) => {
                    // Permits come free one by one, and a claim of one message costs nearly as much as one of many.
                    queue.clock.sleep(PERMITS_GATHER).await;
                    lane.reserve(permit);
                    queue.lanes.agenda.put(&lane.route.name, queue.clock.now());
                }
                () = queue.stop.cancelled() => lane.reserve(None),
            }
        });
    }
}
