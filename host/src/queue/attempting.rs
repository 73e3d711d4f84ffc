//! Attempting what was claimed: each message on a task of its own, from its permit to its transition on disk.

use std::sync::Arc;

use super::{Lane, Permit, Queue, STORE_RETRY};
use crate::attempt::{Made, Terms};
use crate::message::{Message, MessageId};
use crate::store::{Finish, Finished, Then};

impl Queue {
    /// Attempts a message that is ours, on a task of its own.
    pub(super) fn start(self: &Arc<Self>, message: Message, lane: Arc<Lane>, permit: Permit) {
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
                    self.expect(&next, due);
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
