//! Attempting what was claimed: each message on a task of its own, from its permit to its transition on disk.

use std::sync::Arc;

use super::lease::Held;
use super::{Lane, Permit, Queue, STORE_RETRY, Waits};
use crate::attempt::{Made, Terms};
use crate::config::OnFailure;
use crate::message::Message;
use crate::store::{Finish, Finished, Then};

impl Queue {
    /// Attempts a message that is ours, on a task of its own. An earlier attempt of the same message may not have heard
    /// yet that its end is on disk, which is how it came to be claimed again.
    pub(super) fn start(self: &Arc<Self>, message: Message, lane: Arc<Lane>, mut permit: Permit, withheld: bool) {
        self.leases.hold(message.id);
        permit.begin(message.progress.attempts > 0, self.clock.now());
        if withheld {
            lane.count_withheld();
        }
        let queue = Arc::clone(self);
        self.in_flight.spawn(async move {
            let held = Held::of(&queue.leases, message.id);
            tokio::select! {
                () = queue.attempt(message, &lane, permit, withheld, &held) => drop(held),
                // Still held: it is given back with all that is left.
                () = queue.abort.cancelled() => std::mem::forget(held),
            }
        });
    }

    async fn attempt(&self, message: Message, lane: &Lane, mut permit: Permit, withheld: bool, held: &Held<'_>) {
        let terms = Terms { withheld, ..Terms::QUEUED };
        let made = self.attempts.make(&message, &lane.route, terms).await;
        if let Some(failed) = made.destination_failed() {
            permit.came_to(failed, self.clock.now());
        }
        // The next attempt need not wait for the disk, as long as no more than that wait for it.
        let finishing = lane.finishing().await;
        drop(permit);
        let then = made.then(&message, self.clock.now());
        // The next message of its order waits for it, or the next attempt that is over.
        let is_awaited = lane.route.order.is_some() || message.progress.hops > 0 || lane.is_finishing_at_most();
        let finished = self.finish(&message, made, then.clone(), is_awaited, held).await;
        drop(finishing);
        if finished == Finished::LeaseLost {
            tracing::warn!(message_id = %message.id, route = %message.route, "lease lost: another host repeats this attempt");
            // Whoever has it now counts it, too.
            lane.leave();
            return;
        }
        match then {
            Then::End { state, .. } => {
                lane.leave();
                self.watch.ended(&message, state);
                self.let_next(&message, lane);
            }
            Then::Queue { due, route } => {
                let is_same = route == message.route;
                if !is_same {
                    lane.leave();
                }
                if let Some(next) = self.lanes.get(&route) {
                    if !is_same {
                        next.enter_anyway();
                    }
                    self.expect(&next, if is_same { Waits::Retry } else { Waits::First }, due);
                }
            }
        }
    }

    /// Whether those behind `message` in its order go on waiting if it ends dead.
    fn blocks(&self, message: &Message) -> bool {
        let blocks = |lane: &Arc<Lane>| lane.route.order.as_ref().map(|order| order.on_failure == OnFailure::Block);
        if message.progress.hops == 0 {
            // A route that is gone meanwhile does not say: nobody overtakes.
            return self.lanes.get(&message.route).is_none_or(|lane| blocks(&lane).unwrap_or(false));
        }
        // A fallback led it here from a route whose order it is still in. Which one that was is not known any more;
        // where routes differ, nobody overtakes.
        let lanes = self.lanes.all();
        lanes.values().filter_map(blocks).any(|blocks| blocks)
    }

    /// Has the lane looked at that the next message of an order may wait in.
    fn let_next(&self, message: &Message, lane: &Lane) {
        let now = self.clock.now();
        if message.progress.hops > 0 {
            self.look_at_orders(now);
        } else if lane.route.order.is_some() {
            // Another host may have accepted the next one: what this one counts does not tell.
            self.expect(lane, Waits::First, now);
        }
    }

    /// Writes the transition down, however often it takes: until it is on disk the message is not done.
    async fn finish(&self, message: &Message, made: Made, then: Then, is_awaited: bool, held: &Held<'_>) -> Finished {
        let finish = Finish {
            id: message.id,
            owner: self.owner.clone(),
            attempt: made.record,
            then,
            progress: made.progress,
            hold: made.hold,
            blocks: self.blocks(message),
            is_awaited,
        };
        let mut wait = STORE_RETRY.0;
        held.is_being_written();
        loop {
            match self.store.finish(finish.clone()).await {
                Ok(finished) => return finished,
                Err(error) => {
                    held.is_to_be_written_again();
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
}
