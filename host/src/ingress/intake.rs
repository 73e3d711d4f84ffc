//! The host's side of a source: what it brings becomes messages of one route.
//!
//! With `settle: on_store` a message is taken responsibility for like any other, and the broker may forget it. With
//! `settle: on_delivery` one attempt is made for each delivery, and nothing is stored unless the message ends otherwise
//! than delivered: the broker counts, keeps and repeats. Nothing that cannot be taken now is refused; the source comes
//! again with it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use sha2::{Digest as _, Sha256};

use super::source::{Brought, Intake, Settlement, Stored};
use super::{CLOSING, Ingress};
use crate::attempt::{Made, Terms};
use crate::clock::Timestamp;
use crate::config::{Mode, Route};
use crate::message::{Message, MessageId, Origin, Progress, Request, RouteName, State, Transition};
use crate::queue::Offered;
use crate::routes::Standing;
use crate::store::{Acceptance, Accepted, Entry, KeyClaim, KeyState};

/// How long a source waits before it comes again with what could not be taken.
const COME_AGAIN: Duration = Duration::from_secs(1);
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
        let Some(route) = self.route() else { return Stored::NotNow(COME_AGAIN) };
        let message = self.message(brought);
        let key = self.claim(&message, &route);
        if message.request.body.len() > route.body_limit {
            let reason = format!("its body is longer than the route's body_limit of {} bytes", route.body_limit);
            return match self.ingress.put_aside(message, reason, key).await {
                Ok(_) => Stored::Yes,
                Err(_) => Stored::NotNow(COME_AGAIN),
            };
        }
        match self.ingress.queue.offer(message.clone(), key).await {
            Ok(Offered::Accepted) => Stored::Yes,
            Ok(Offered::Key(KeyState::Stored(_) | KeyState::Answered(_))) => Stored::Yes,
            Ok(Offered::Key(KeyState::OtherPayload)) => self.store_under_no_key(message).await,
            Ok(Offered::Key(KeyState::InFlight | KeyState::Fresh) | Offered::Saturated | Offered::Closed) => {
                Stored::NotNow(COME_AGAIN)
            }
            Err(error) => {
                tracing::warn!(
                    source = self.source,
                    error = &error as &dyn std::error::Error,
                    "cannot store a message"
                );
                Stored::NotNow(COME_AGAIN)
            }
        }
    }

    async fn deliver(&self, brought: Brought) -> Settlement {
        let Some(route) = self.route() else { return Settlement::Requeue(COME_AGAIN) };
        let Some(lane) = self.ingress.queue.lane(&route.name) else { return Settlement::Requeue(COME_AGAIN) };
        let now = self.ingress.clock.now();
        if let Some(until) = self.ingress.holds.held_until(&lane.destination, now) {
            // Kept rather than given back: a delivery that only waits is not to be counted by the broker.
            self.ingress.clock.sleep_until(until).await;
        }
        let Some(mut permit) = lane.permit(&*self.ingress.clock).await else { return Settlement::Requeue(COME_AGAIN) };
        let last = brought.last_delivery;
        let mut message = self.message(brought);
        permit.begin(message.progress.attempts > 0, self.ingress.clock.now());
        let made = self.ingress.attempts.make(&message, &route, Terms::QUEUED).await;
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
            Standing::Served(route) if !self.ingress.stop.is_cancelled() => Some(route),
            Standing::Served(_) | Standing::Disabled | Standing::Unknown => None,
        }
    }

    fn message(&self, brought: Brought) -> Message {
        let now = self.ingress.clock.now();
        let key = brought.key.filter(|key| !key.is_empty()).map(|key| match key.len() > MAX_KEY {
            true => Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect(),
            false => key,
        });
        let attempts = brought.delivered_before;
        Message {
            id: MessageId::new(now),
            route: self.route.clone(),
            request: Arc::new(Request {
                method: Method::POST,
                path: String::new(),
                headers: brought.headers,
                body: brought.body,
            }),
            idempotency_key: key,
            accepted_at: now,
            progress: Progress { attempts, journal: attempts, ..Progress::default() },
            origin: Origin::default(),
        }
    }

    fn claim(&self, message: &Message, route: &Route) -> Option<KeyClaim> {
        let key = message.idempotency_key.clone()?;
        Some(KeyClaim {
            route: route.name.clone(),
            key,
            fingerprint: super::request::fingerprint(&message.request),
            message: message.id,
            owner: self.ingress.owner.clone(),
            opened_until: message.accepted_at.after(CLOSING),
            keep_until: message.accepted_at.after(route.idempotency.keep),
        })
    }

    /// Another message came under the same key: what its sender took for a key is none, and both are kept.
    async fn store_under_no_key(&self, message: Message) -> Stored {
        tracing::warn!(
            source = self.source,
            route = %self.route,
            message_id = %message.id,
            "two messages came under one id: both are kept"
        );
        let message = Message { idempotency_key: None, ..message };
        match self.ingress.queue.offer(message, None).await {
            Ok(Offered::Accepted) => Stored::Yes,
            _ => Stored::NotNow(COME_AGAIN),
        }
    }

    /// What the broker is told; what is to be kept of the message is on disk by then.
    async fn settle(&self, message: Message, made: Made, last: bool) -> Settlement {
        let now = self.ingress.clock.now();
        let state = match &made.transition {
            Transition::Delivered => {
                self.ingress.watch.ended(&message, State::Delivered);
                return Settlement::Ack;
            }
            Transition::Dropped => {
                self.ingress.watch.ended(&message, State::Dropped);
                return Settlement::Ack;
            }
            Transition::Retry { due, .. } if !last => return Settlement::Requeue(due.since(now)),
            Transition::Rerouted(next) => return self.hand_over(message, made.clone(), next.clone(), now).await,
            Transition::Answered(_) => State::Answered,
            Transition::Retry { .. } | Transition::DeadLetter | Transition::Exhausted(_) => State::Dead,
        };
        let reason = match &made.transition {
            Transition::Retry { .. } => format!("the broker's last delivery: {}", made.record.reason),
            _ => made.record.reason.clone(),
        };
        let acceptance = Acceptance {
            message: Message { idempotency_key: None, ..message.clone() },
            entry: Entry::Ended { state, reason, at: now },
            attempts: vec![made.record],
            key: None,
            hold: made.hold,
            order: None,
        };
        match self.ingress.store.accept(acceptance).await {
            Ok(Accepted::Stored | Accepted::Behind | Accepted::Key(_)) => {
                self.ingress.watch.ended(&message, state);
                if state == State::Dead { Settlement::DeadLetter } else { Settlement::Ack }
            }
            Err(error) => {
                tracing::error!(
                    source = self.source,
                    error = &error as &dyn std::error::Error,
                    "cannot store a dead letter"
                );
                Settlement::Requeue(COME_AGAIN)
            }
        }
    }

    /// A fallback leads it to another route: from here on it is ours.
    async fn hand_over(&self, message: Message, made: Made, next: RouteName, now: Timestamp) -> Settlement {
        let message = Message { route: next, idempotency_key: None, ..message };
        match self.ingress.queue.take_over(message, now, vec![made.record], made.hold, None).await {
            Ok(Offered::Accepted) => Settlement::Ack,
            _ => Settlement::Requeue(COME_AGAIN),
        }
    }
}

/// Whether a route can take what a source brings: nobody waits for it.
pub(crate) fn takes(route: &Route) -> bool {
    route.mode == Mode::Async
}
