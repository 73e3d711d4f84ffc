//! The host's side of a source: what it brings becomes messages of one route.
//!
//! With `settle: on_store` a message is taken responsibility for like any other, and the broker may forget it. With
//! `settle: on_delivery` one attempt is made for each delivery, and nothing is stored unless the message ends otherwise
//! than delivered, but for its destination's wish for quiet: the broker counts, keeps and repeats. Each delivery is then
//! a message of ours with an id of its own; what its repeats have in common is the `Idempotency-Key`, where the broker's
//! message has an id. Nothing that cannot be taken now is refused, or counted: the source comes again with it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use sha2::{Digest as _, Sha256};

use super::Ingress;
use super::source::{Brought, Intake, Settlement, Stored};
use crate::attempt::{Made, Terms};
use crate::clock::Timestamp;
use crate::config::{Mode, Route};
use crate::message::{AttemptRecord, Message, MessageId, Origin, Progress, Request, RouteName, State, Transition, hex};
use crate::queue::{Offered, STORE_RETRY};
use crate::routes::Standing;
use crate::store::{Acceptance, Accepted, Entry, Hold, KeyClaim, KeyState};

/// How long a source waits before it comes again with what could not be taken.
const COME_AGAIN: Duration = Duration::from_secs(1);
/// How long a delivery waits for a permit before the source is told to come again: until then it is deaf.
const PERMIT_WITHIN: Duration = Duration::from_secs(1);
/// Nobody waits, and whether the policy was asked for admission before, nobody knows.
const TERMS: Terms = Terms { admits_again: true, ..Terms::QUEUED };
/// The longest idempotency key, in bytes; a broker's own that is longer is known by its digest.
const MAX_KEY: usize = 255;

/// Takes what one source brings to its route.
pub(super) struct RouteIntake {
    pub(super) ingress: Arc<Ingress>,
    /// The source's name.
    pub(super) source: String,
    pub(super) route: RouteName,
}

#[async_trait]
impl Intake for RouteIntake {
    async fn store(&self, brought: Brought) -> Stored {
        self.take_once(brought, None).await
    }

    async fn put_aside(&self, brought: Brought, reason: String) -> Stored {
        self.take_once(brought, Some(reason)).await
    }

    fn keeps_order(&self) -> bool {
        self.route().is_none_or(|route| route.order.is_some())
    }

    async fn deliver(&self, brought: Brought) -> Settlement {
        let Some(route) = self.route() else { return Settlement::NotBegun(COME_AGAIN) };
        let Some(lane) = self.ingress.queue.lane(&route.name) else { return Settlement::NotBegun(COME_AGAIN) };
        let (last, attempts) = (brought.last_delivery, brought.delivered_before);
        let mut message = self.message(brought, Progress { attempts, journal: attempts, ..Progress::default() });
        if message.request.body.len() > route.body_limit {
            return self.end(message, State::Dead, too_long(&route), Vec::new(), None).await;
        }
        let now = self.ingress.clock.now();
        let right = match (attempts > 0).then(|| lane.retry(now)) {
            Some(Err(until)) => return Settlement::NotBegun(until.since(now)),
            Some(Ok(right)) => Some(right),
            None => None,
        };
        let mut permit = tokio::select! {
            permit = lane.permit(&*self.ingress.clock) => match permit {
                Some(permit) => permit,
                None => return Settlement::NotBegun(COME_AGAIN),
            },
            () = self.ingress.clock.sleep(PERMIT_WITHIN) => return Settlement::NotBegun(COME_AGAIN),
            () = self.ingress.stop.cancelled() => return Settlement::NotBegun(COME_AGAIN),
        };
        let now = self.ingress.clock.now();
        if let Some(until) = self.ingress.holds.held_until(&lane.destination, now) {
            return Settlement::NotBegun(until.since(now));
        }
        permit.begin(attempts > 0, now);
        drop(right);
        let made = self.ingress.attempts.make(&message, &route, TERMS).await;
        if let Some(failed) = made.destination_failed() {
            permit.came_to(failed, self.ingress.clock.now());
        }
        drop(permit);
        message.progress = made.progress;
        self.settle(message, made, last).await
    }
}

impl RouteIntake {
    fn route(&self) -> Option<Arc<Route>> {
        match self.ingress.routes.standing(self.route.as_str()) {
            Standing::Served(route) => Some(route),
            Standing::Disabled | Standing::Unknown => None,
        }
    }

    fn message(&self, brought: Brought, progress: Progress) -> Message {
        let now = self.ingress.clock.now();
        let key = brought.key.filter(|key| !key.is_empty());
        Message {
            id: MessageId::new(now),
            route: self.route.clone(),
            request: Arc::new(Request {
                method: Method::POST,
                path: String::new(),
                headers: brought.headers,
                body: brought.body,
            }),
            idempotency_key: key.map(|key| if key.len() > MAX_KEY { digest(&key) } else { key }),
            accepted_at: now,
            progress,
            origin: Origin::default(),
        }
    }

    /// The key under which a repeat is known again: of this source alone, and like no request's, which are ASCII.
    fn claim(&self, message: &Message, route: &Route) -> Option<KeyClaim> {
        let key = format!("{}\u{b7}{}", self.source, digest(message.idempotency_key.as_deref()?));
        let fingerprint = super::request::fingerprint(&message.request);
        Some(self.ingress.claim(message, key, fingerprint, Duration::ZERO, route.idempotency.keep))
    }

    /// Stores what is brought, unless it is a repeat of what is stored; where there is a reason `aside`, as a dead letter.
    async fn take_once(&self, brought: Brought, aside: Option<String>) -> Stored {
        let Some(route) = self.route() else { return Stored::NotNow(COME_AGAIN) };
        // Only what the broker says it delivered before is a repeat: senders give two messages one id, too.
        let (may_be_repeat, has_no_body) = (brought.delivered_before > 0, aside.is_some());
        let message = self.message(brought, Progress::default());
        let aside = aside.or_else(|| (message.request.body.len() > route.body_limit).then(|| too_long(&route)));
        let key = self.claim(&message, &route);
        let stored = match self.take(&message, key, aside.as_deref()).await {
            Some(Accepted::Key(KeyState::Stored(_) | KeyState::Answered(_))) if may_be_repeat => return Stored::Yes,
            // It could be read before.
            Some(Accepted::Key(KeyState::OtherPayload)) if may_be_repeat && has_no_body => return Stored::Yes,
            Some(Accepted::Key(KeyState::InFlight | KeyState::Fresh)) => None,
            Some(Accepted::Key(_)) => self.take(&message, None, aside.as_deref()).await,
            taken => taken,
        };
        match stored {
            Some(Accepted::Stored | Accepted::Behind) => Stored::Yes,
            Some(Accepted::Key(_)) | None => Stored::NotNow(COME_AGAIN),
        }
    }

    /// Stores a message; where there is a reason `aside`, as a dead letter. None: not now.
    async fn take(&self, message: &Message, key: Option<KeyClaim>, aside: Option<&str>) -> Option<Accepted> {
        if let Some(reason) = aside {
            return self.ingress.put_aside(message.clone(), reason.to_owned(), key).await.ok();
        }
        match self.ingress.queue.offer(message.clone(), key).await {
            Ok(Offered::Accepted) => Some(Accepted::Stored),
            Ok(Offered::Key(known)) => Some(Accepted::Key(known)),
            Ok(Offered::Saturated | Offered::Closed) => None,
            Err(error) => {
                tracing::warn!(
                    source = self.source,
                    error = &error as &dyn std::error::Error,
                    "cannot store a message"
                );
                None
            }
        }
    }

    /// What the broker is told; what is to be kept of the message is on disk by then.
    async fn settle(&self, message: Message, made: Made, last: bool) -> Settlement {
        let now = self.ingress.clock.now();
        let (state, reason) = match &made.transition {
            Transition::Delivered => {
                self.ingress.watch.ended(&message, State::Delivered);
                return Settlement::Ack;
            }
            Transition::Dropped => {
                self.ingress.watch.ended(&message, State::Dropped);
                return Settlement::Ack;
            }
            Transition::Retry { due, .. } if !last => {
                let due = *due;
                self.remember(made.hold).await;
                return Settlement::Requeue(due.since(self.ingress.clock.now()));
            }
            Transition::Rerouted(next) => return self.hand_over(message, &made, next, now).await,
            Transition::Retry { .. } => (State::Dead, format!("the broker's last delivery: {}", made.record.reason)),
            Transition::Answered(_) => (State::Answered, made.record.reason.clone()),
            Transition::DeadLetter | Transition::Exhausted(_) => (State::Dead, made.record.reason.clone()),
        };
        self.end(message, state, reason, vec![made.record], made.hold).await
    }

    /// Writes a destination's wish for quiet down, though nothing of the message that met with it is: other hosts are to
    /// hear of it, and this one after a restart. It counts here already, so one that cannot be written is let be.
    async fn remember(&self, hold: Option<Hold>) {
        let Some(hold) = hold else { return };
        if let Err(error) = self.ingress.store.hold(hold).await {
            tracing::warn!(
                source = self.source,
                error = &error as &dyn std::error::Error,
                "cannot write down that a destination is held"
            );
        }
    }

    /// Writes a message down that has ended, however often that takes: it is not attempted again for it.
    async fn end(
        &self,
        message: Message,
        state: State,
        reason: String,
        attempts: Vec<AttemptRecord>,
        hold: Option<Hold>,
    ) -> Settlement {
        let entry = Entry::Ended { state, reason, at: self.ingress.clock.now() };
        let message = Message { idempotency_key: None, ..message };
        let acceptance = Acceptance { message: message.clone(), entry, attempts, key: None, hold, order: None };
        let mut wait = STORE_RETRY.0;
        while let Err(error) = self.ingress.store.accept(acceptance.clone()).await {
            tracing::error!(
                source = self.source,
                error = &error as &dyn std::error::Error,
                "cannot write down how a message ended; trying again"
            );
            self.ingress.clock.sleep(wait).await;
            wait = (wait * 2).min(STORE_RETRY.1);
        }
        self.ingress.watch.ended(&message, state);
        if state == State::Dead { Settlement::DeadLetter } else { Settlement::Ack }
    }

    /// A fallback leads it to another route: from here on it is ours, however often that takes.
    async fn hand_over(&self, message: Message, made: &Made, next: &RouteName, now: Timestamp) -> Settlement {
        let message = Message { route: next.clone(), idempotency_key: None, ..message };
        let mut wait = STORE_RETRY.0;
        loop {
            let (attempts, hold) = (vec![made.record.clone()], made.hold.clone());
            match self.ingress.queue.take_over(message.clone(), now, attempts, hold, None).await {
                Ok(Offered::Accepted) => return Settlement::Ack,
                // The route is gone meanwhile: its own one is tried again.
                Ok(Offered::Closed) => return Settlement::Requeue(COME_AGAIN),
                Ok(Offered::Saturated | Offered::Key(_)) | Err(_) => self.ingress.clock.sleep(wait).await,
            }
            wait = (wait * 2).min(STORE_RETRY.1);
        }
    }
}

fn too_long(route: &Route) -> String {
    format!("its body is longer than the route's body_limit of {} bytes", route.body_limit)
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Whether a route can take what a source brings: nobody waits for it.
pub(crate) fn takes(route: &Route) -> bool {
    route.mode == Mode::Async
}

#[cfg(test)]
mod tests;
