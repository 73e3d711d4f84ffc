//! Taking in what was planned: each event becomes a message on each of its routes, stored before the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt as _};
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::plan::{Fate, Planned};
use crate::config::Route;
use crate::event::Event;
use crate::ingress::{COME_AGAIN, Ingress, lane_saturated, unavailable};
use crate::message::{AttemptRecord, Message, MessageId, Origin, Progress, State, VerdictKind, hex};
use crate::problem::{Kind, Problem};
use crate::queue::Offered;
use crate::store::{Acceptance, Accepted, Entry, KeyClaim, KeyState};

/// Messages of one publish that are written to the store at once.
const STORED_AT_ONCE: usize = 64;

/// A message that an event becomes on a route.
struct Taking {
    /// Which event of the publish.
    event: usize,
    route: Arc<Route>,
    message: Message,
    /// What events have in common that are the same.
    repeat: [u8; 32],
    fate: Fate,
}

/// What became of one.
struct Ended {
    event: usize,
    route: Arc<Route>,
    /// Why it was not taken, if it was not.
    taken: Result<Stored, Problem>,
}

/// What is in the store.
enum Stored {
    /// The new message, in this state.
    New(MessageId, State),
    /// An earlier one, which it repeats.
    Earlier(MessageId),
}

impl Ingress {
    /// Stores what was planned. What cannot be stored does not stop the rest: the problem that the caller is answered then
    /// says, as the answer to a publish does, what became of each event on each route.
    pub(super) async fn take_events(&self, planned: Vec<Planned>) -> Result<Response, Problem> {
        let now = self.clock.now();
        let mut events: Vec<Value> = Vec::with_capacity(planned.len());
        let mut takings = Vec::new();
        for (index, Planned { event, routes }) in planned.into_iter().enumerate() {
            let uid = MessageId::new(now);
            events.push(json!({ "id": event.id(), "source": event.source(), "message_uid": uid, "messages": [] }));
            let repeat = digest(&event);
            let request = Arc::new(event.into_request(Uuid::from_bytes(*uid.as_bytes())));
            takings.extend(routes.into_iter().map(|(route, fate)| {
                let message = Message {
                    id: MessageId::new(now),
                    route: route.name.clone(),
                    request: Arc::clone(&request),
                    idempotency_key: None,
                    accepted_at: now,
                    progress: Progress::default(),
                    origin: Origin { publish: Some(uid), original: None },
                };
                Taking { event: index, route, message, repeat, fate }
            }));
        }
        let taking = takings.into_iter().map(|taking| self.take_event(taking));
        let ended: Vec<Ended> = stream::iter(taking).buffered(STORED_AT_ONCE).collect().await;
        for one in &ended {
            if let Some(messages) = events.get_mut(one.event).and_then(|event| event["messages"].as_array_mut()) {
                messages.push(shown(one));
            }
        }
        match ended.into_iter().find_map(|one| one.taken.err()) {
            None => Ok((StatusCode::ACCEPTED, axum::Json(json!({ "events": events }))).into_response()),
            // Whoever publishes again repeats what was stored: `dedupe` is for that.
            Some(problem) => Err(problem.with("events", events)),
        }
    }

    async fn take_event(&self, taking: Taking) -> Ended {
        let Taking { event, route, message, repeat, fate } = taking;
        let taken = self.take_on(&route, message, repeat, fate).await;
        Ended { event, route, taken }
    }

    async fn take_on(&self, route: &Route, message: Message, repeat: [u8; 32], fate: Fate) -> Result<Stored, Problem> {
        let window = route.events.as_ref().and_then(|events| events.dedupe);
        let key = window.map(|window| self.repeat_key(&message, repeat, window));
        let id = message.id;
        let known = match fate {
            Fate::Deliver => match self.queue.offer(message, key).await.map_err(unavailable)? {
                Offered::Accepted => return Ok(Stored::New(id, State::Queued)),
                Offered::Saturated => return Err(lane_saturated(&route.name)),
                Offered::Closed => return Err(self.closed(&route.name)),
                Offered::Key(known) => known,
            },
            Fate::Dead(reason) => match self.put_aside(message, reason, key).await? {
                Accepted::Stored | Accepted::Behind => return Ok(Stored::New(id, State::Dead)),
                Accepted::Key(known) => known,
            },
        };
        match known {
            KeyState::Stored(earlier) => Ok(Stored::Earlier(earlier)),
            _ => Err(Problem::new(Kind::StoreUnavailable, "an event with this source and id is being taken in")
                .retry_after(COME_AGAIN)),
        }
    }

    /// The key under which an event is known again. No request brings one like it: theirs are ASCII.
    fn repeat_key(&self, message: &Message, repeat: [u8; 32], window: Duration) -> KeyClaim {
        self.claim(message, format!("event\u{b7}{}", hex(&repeat)), repeat, Duration::ZERO, window)
    }

    /// Stores a message as a dead letter that was never attempted.
    pub(in crate::ingress) async fn put_aside(
        &self,
        message: Message,
        reason: String,
        key: Option<KeyClaim>,
    ) -> Result<Accepted, Problem> {
        let record = AttemptRecord::unattempted(&message.route, VerdictKind::DeadLetter, &reason, message.accepted_at);
        tracing::info!(
            target: "backstop::attempt",
            route = %message.route,
            message_id = %message.id,
            reason,
            "put aside"
        );
        let entry = Entry::Ended { state: State::Dead, reason, at: message.accepted_at };
        let acceptance =
            Acceptance { message: message.clone(), entry, attempts: vec![record], key, hold: None, order: None };
        let accepted = self.store.accept(acceptance).await.map_err(unavailable)?;
        if matches!(accepted, Accepted::Stored) {
            self.watch.ended(&message, State::Dead);
        }
        Ok(accepted)
    }
}

/// What the publisher is told of an event on a route.
fn shown(one: &Ended) -> Value {
    let route = one.route.name.as_str();
    let url = |id: &MessageId| format!("/v1/messages/{id}");
    match &one.taken {
        Ok(Stored::New(id, state)) => json!({ "id": id, "route": route, "url": url(id), "state": state }),
        Ok(Stored::Earlier(id)) => json!({ "id": id, "route": route, "url": url(id), "repeated": true }),
        Err(problem) => json!({ "route": route, "refused": problem.detail() }),
    }
}

/// What two events have in common that are the same: `source` and `id` (CloudEvents 1.0.2 §3.1.1).
fn digest(event: &Event) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [event.source(), event.id()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
