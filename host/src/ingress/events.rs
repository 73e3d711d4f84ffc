//! `POST /events`: takes in what a producer publishes (CloudEvents 1.0), and makes of each event a message on every
//! route that takes it.
//!
//! What becomes of each event is decided before anything is stored: of a batch with an event that nobody takes, or that
//! is none, nothing is. An event that cannot be judged by a route's expression, or whose data does not fit its schema, is
//! that route's dead letter without an attempt: it is neither lost nor delivered.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::onward::Onward;
use super::{COME_AGAIN, Ingress, lane_saturated, request, unavailable};
use crate::config::{Events, Route, Taken};
use crate::event::{self, BadEvent, Event};
use crate::message::{AttemptRecord, Message, MessageId, Origin, Progress, State, VerdictKind, hex};
use crate::problem::{Kind, Problem};
use crate::queue::Offered;
use crate::routes::Table;
use crate::store::{Acceptance, Accepted, Entry, KeyClaim, KeyState};

/// The longest body of a publish, in bytes: 16 MiB. A route's own `body_limit` bounds the data of each event.
const LONGEST: usize = 16 << 20;
/// Routes that take events, and bytes of a publish, up to which it is read on the thread that serves the caller: some
/// hundred microseconds' work. More goes to a thread of its own.
const ASKED_AT_ONCE: usize = 16;
const READ_AT_ONCE: usize = 16 << 10;
/// Messages of one publish that are written to the store at once.
const STORED_AT_ONCE: usize = 64;

/// An event, and the routes that take it.
struct Planned {
    event: Event,
    routes: Vec<(Arc<Route>, Fate)>,
}

/// What is to become of an event on a route.
enum Fate {
    /// It is delivered.
    Deliver,
    /// It never will be, for this reason.
    Dead(String),
}

/// What became of one.
struct Taking {
    /// Which event of the publish.
    index: usize,
    message: MessageId,
    route: Arc<Route>,
    state: State,
    repeated: bool,
}

/// `POST /events`.
pub(super) async fn publish(Shared(ingress): Shared<Arc<Ingress>>, request: axum::extract::Request) -> Response {
    ingress.publish(request).await.unwrap_or_else(|problem| problem.answer("/events"))
}

impl Ingress {
    async fn publish(self: &Arc<Self>, request: axum::extract::Request) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let place = self.enter(&parts)?;
        let body = request::body(body, LONGEST, &*self.clock).await?;
        let planned = self.plan(parts.headers, body).await?;
        let ingress = Arc::clone(self);
        let work = Onward::new(&self.chains, async move {
            let answer = ingress.take_events(planned).await;
            drop(place);
            answer
        });
        work.await.unwrap_or_else(|_| {
            tracing::error!("the host failed in taking events in");
            Err(Problem::new(Kind::Internal, "the host failed; its log says more"))
        })
    }

    /// Which routes take each event, and what becomes of it there.
    async fn plan(&self, headers: HeaderMap, body: Bytes) -> Result<Vec<Planned>, Problem> {
        let table = self.routes.table();
        let asking = table.values().filter(|route| route.events.is_some()).count();
        let length = body.len();
        let work = move || plan(event::read(&headers, &body).map_err(bad_event)?, &table);
        if asking <= ASKED_AT_ONCE && length <= READ_AT_ONCE {
            return work();
        }
        let planned = tokio::task::spawn_blocking(work).await;
        planned.unwrap_or_else(|_| Err(Problem::new(Kind::Internal, "the host failed; its log says more")))
    }

    /// Stores what was planned. What cannot be stored does not stop the rest; the answer then says how much was.
    async fn take_events(&self, planned: Vec<Planned>) -> Result<Response, Problem> {
        let now = self.clock.now();
        let mut answers: Vec<Value> = Vec::with_capacity(planned.len());
        let mut messages = Vec::new();
        for (index, Planned { event, routes }) in planned.into_iter().enumerate() {
            let uid = MessageId::new(now);
            answers.push(json!({ "id": event.id(), "source": event.source(), "message_uid": uid, "messages": [] }));
            let repeat = digest(&event);
            let request = Arc::new(event.into_request(Uuid::from_bytes(*uid.as_bytes())));
            for (route, fate) in routes {
                messages.push((index, uid, repeat, Arc::clone(&request), route, fate));
            }
        }
        let taking = messages.into_iter().map(|(index, uid, repeat, request, route, fate)| async move {
            let message = Message {
                id: MessageId::new(now),
                route: route.name.clone(),
                request,
                idempotency_key: None,
                accepted_at: now,
                progress: Progress::default(),
                origin: Origin { publish: Some(uid), original: None },
            };
            self.take_event(index, message, repeat, route, fate).await
        });
        let mut taking = stream::iter(taking).buffered(STORED_AT_ONCE);
        let (mut stored, mut failed) = (0_usize, None);
        while let Some(taken) = taking.next().await {
            let Taking { index, message, route, state, repeated } = match taken {
                Ok(taken) => taken,
                Err(problem) => {
                    // The others are brought to their end all the same: they are with the store already.
                    failed.get_or_insert(problem);
                    continue;
                }
            };
            stored += 1;
            let mut shown = json!({
                "id": message, "route": route.name.as_str(), "url": format!("/v1/messages/{message}"),
            });
            if repeated {
                shown["repeated"] = json!(true);
            } else {
                shown["state"] = json!(state);
            }
            if let Some(messages) = answers.get_mut(index).and_then(|answer| answer["messages"].as_array_mut()) {
                messages.push(shown);
            }
        }
        if let Some(problem) = failed {
            // Whoever publishes again repeats what was stored: `dedupe` is for that.
            return Err(problem.with("stored", stored.to_string()));
        }
        let body = json!({ "events": answers }).to_string();
        let json = HeaderValue::from_static("application/json");
        Ok((StatusCode::ACCEPTED, [(header::CONTENT_TYPE, json)], body).into_response())
    }

    async fn take_event(
        &self,
        index: usize,
        message: Message,
        repeat: [u8; 32],
        route: Arc<Route>,
        fate: Fate,
    ) -> Result<Taking, Problem> {
        let window = route.events.as_ref().and_then(|events| events.dedupe);
        let key = window.map(|window| self.repeat_key(&message, repeat, window));
        let id = message.id;
        let taken =
            |message, state, repeated| Ok(Taking { index, message, route: Arc::clone(&route), state, repeated });
        let known = match fate {
            Fate::Deliver => match self.queue.offer(message, key).await.map_err(unavailable)? {
                Offered::Accepted => return taken(id, State::Queued, false),
                Offered::Saturated => return Err(lane_saturated(&route.name)),
                Offered::Closed => return Err(self.closed(&route.name)),
                Offered::Key(known) => known,
            },
            Fate::Dead(reason) => match self.put_aside(message, reason, key).await? {
                Accepted::Stored | Accepted::Behind => return taken(id, State::Dead, false),
                Accepted::Key(known) => known,
            },
        };
        match known {
            KeyState::Stored(earlier) => taken(earlier, State::Queued, true),
            _ => Err(Problem::new(Kind::StoreUnavailable, "an event with this source and id is being taken in")
                .retry_after(COME_AGAIN)),
        }
    }

    /// The key under which an event is known again. No request brings one like it: theirs are ASCII.
    fn repeat_key(&self, message: &Message, repeat: [u8; 32], window: Duration) -> KeyClaim {
        self.claim(message, format!("event\u{b7}{}", hex(&repeat)), repeat, Duration::ZERO, window)
    }

    /// Stores a message as a dead letter that was never attempted.
    pub(super) async fn put_aside(
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
            "event put aside"
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

/// Which routes take each event, and what becomes of it there.
///
/// # Errors
/// When nobody takes one of them, or its data is longer than a route allows.
fn plan(events: Vec<Event>, table: &Table) -> Result<Vec<Planned>, Problem> {
    let taking: Vec<(&Arc<Route>, &Events)> =
        table.values().filter_map(|route| Some((route, route.events.as_ref()?))).collect();
    events.into_iter().map(|event| plan_one(event, &taking)).collect()
}

fn plan_one(event: Event, taking: &[(&Arc<Route>, &Events)]) -> Result<Planned, Problem> {
    let mut routes = Vec::new();
    for (route, events) in taking {
        match events.taken.matches(&event) {
            Ok(true) => routes.push((*route, fate(&event, events))),
            Ok(false) => {}
            Err(error) => routes.push((*route, Fate::Dead(error.to_string()))),
        }
    }
    if routes.is_empty() {
        let otherwise = taking.iter().filter(|(_, events)| events.taken == Taken::Otherwise);
        routes.extend(otherwise.map(|(route, events)| (*route, fate(&event, events))));
    }
    if routes.is_empty() {
        let (id, source) = (event.id(), event.source());
        let detail =
            format!("no route takes the event {id:?} of {source:?}: no `match` is true of it, and none is `otherwise`");
        return Err(Problem::new(Kind::NoRoute, detail));
    }
    for (route, _) in &routes {
        if event.data().is_some_and(|data| data.len() > route.body_limit) {
            let detail = format!("route {} takes data of at most {} bytes", route.name, route.body_limit);
            return Err(Problem::new(Kind::BodyTooLong, detail));
        }
    }
    let routes = routes.into_iter().map(|(route, fate)| (Arc::clone(route), fate)).collect();
    Ok(Planned { event, routes })
}

fn fate(event: &Event, events: &Events) -> Fate {
    match events.schema.as_ref().map(|schema| schema.schema().check(event)) {
        Some(Err(misfit)) => Fate::Dead(format!("the event does not fit the route's schema: {misfit}")),
        Some(Ok(())) | None => Fate::Deliver,
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

fn bad_event(bad: BadEvent) -> Problem {
    Problem::new(Kind::BadRequest, format!("not an event: {bad}"))
}
