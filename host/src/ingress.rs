//! Ingress over HTTP: `ANY /r/{route}/{path…}` brings a message in, `POST /events` events, `/v1/transactions` half
//! messages; `GET /v1/messages/{id}` tells what became of one.
//!
//! It judges nothing and sends nothing; it takes responsibility (a 202 only after the commit), or refuses with a
//! problem that says why.

pub mod contact;
mod counted;
mod events;
pub mod feed;
mod intake;
pub mod nats;
mod onward;
pub mod rabbitmq;
mod request;
pub mod source;
pub mod tapping;
mod transactions;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::Attempts;
use crate::clock::Clock;
use crate::config::{Mode, Route};
use crate::dispatch::fields;
use crate::message::{Answer, Message, MessageId, Origin, Progress, Request, RouteName};
use crate::problem::{Kind, Problem};
use crate::queue::{Agenda, Holds, Offered, Queue};
use crate::routes::{Routes, Standing};
use crate::store::{KeyClaim, KeyState, Owner, Store, StoreError};
use crate::watch::Watch;
pub(crate) use intake::takes;
use onward::Onward;
pub(crate) use transactions::answer_to_word;
use waiting::Waiting;

/// What a caller refused for want of room is told to wait.
pub(crate) const COME_AGAIN: Duration = Duration::from_secs(1);

/// What a caller of a disabled route is told to wait: how long that takes, nobody knows.
pub(crate) const COME_LATER: Duration = Duration::from_secs(60);

/// How long after its caller's deadline a request may still be held to be served: the time its answer takes to be
/// written down.
const CLOSING: Duration = Duration::from_secs(60);

const MESSAGE_ID: HeaderName = HeaderName::from_static("backstop-message-id");
const STATE: HeaderName = HeaderName::from_static("backstop-state");
const ATTEMPTS: HeaderName = HeaderName::from_static("backstop-attempts");
const REPLAYED: HeaderName = HeaderName::from_static("backstop-replayed");

/// What the ingress works with.
pub struct Ingress {
    /// The routes by name.
    pub routes: Arc<Routes>,
    /// Where messages nobody waits for go.
    pub queue: Arc<Queue>,
    /// What makes attempts for those who wait.
    pub attempts: Arc<Attempts>,
    /// Which destinations asked for quiet.
    pub holds: Arc<Holds>,
    /// Where messages are kept.
    pub store: Arc<dyn Store>,
    /// Who is told of ends.
    pub watch: Arc<Watch>,
    /// When senders of half messages are to be asked.
    pub agenda: Arc<Agenda>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who opens idempotency keys.
    pub owner: Owner,
    /// Requests served at once.
    pub places: Arc<Semaphore>,
    /// The tasks of those who wait: their chains go on to their end even if the caller hangs up.
    pub chains: TaskTracker,
    /// Raised at a shutdown.
    pub stop: CancellationToken,
    /// Whether it listens on the loopback interface, for this machine alone.
    pub loopback: bool,
}

/// The ingress's paths.
pub fn router(ingress: Arc<Ingress>) -> Router {
    Router::new()
        .route("/v1/messages/{id}", get(message_status))
        .route("/events", post(events::publish))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/r/{*rest}", any(take))
        .merge(transactions::routes())
        .fallback(nothing_here)
        .with_state(ingress)
}

async fn nothing_here(request: axum::extract::Request) -> Response {
    let detail = "messages come in at /r/{route}/{path}, events at /events, half messages at /v1/transactions; their \
                  state is at /v1/messages/{id}";
    Problem::new(Kind::NotFound, detail).answer(request.uri().path())
}

async fn take(Shared(ingress): Shared<Arc<Ingress>>, request: axum::extract::Request) -> Response {
    let instance = request.uri().path().to_owned();
    ingress.take(request).await.unwrap_or_else(|problem| problem.answer(&instance))
}

impl Ingress {
    async fn take(self: &Arc<Self>, request: axum::extract::Request) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let place = self.enter(&parts)?;
        let uri = parts.uri.clone();
        let (name, rest) = request::route_and_rest(&uri)
            .ok_or_else(|| Problem::new(Kind::NotFound, "messages come in at /r/{route}/{path}"))?;
        let route = self.route(name)?;
        let key = request::idempotency_key(&parts.headers)?;
        if key.is_none() && route.idempotency.required {
            return Err(Problem::new(Kind::BadRequest, "this route requires an Idempotency-Key"));
        }
        let request = Arc::new(request::read(parts, rest, body, &route, &*self.clock).await?);
        let message = self.message(&route, request, key);
        // From here on the host acts, and a caller that hangs up must not stop it half-way: what it began with the
        // store, or with a destination, it brings to its end.
        let ingress = Arc::clone(self);
        let work = Onward::new(&self.chains, async move {
            let answer = ingress.serve(message, route).await;
            drop(place);
            answer
        });
        work.await.unwrap_or_else(|_| {
            tracing::error!(route = %name, "the host failed in serving a request");
            Err(Problem::new(Kind::Internal, "the host failed; its log says more"))
        })
    }

    /// A place among the requests served at once, for a caller that may be served.
    fn enter(&self, parts: &http::request::Parts) -> Result<OwnedSemaphorePermit, Problem> {
        if self.stop.is_cancelled() {
            return Err(Problem::new(Kind::ShuttingDown, "come again").retry_after(COME_AGAIN));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Problem::new(Kind::Saturated, "max_in_flight requests are being served").retry_after(COME_AGAIN)
        })?;
        refusal(parts, self.loopback).map_or(Ok(place), Err)
    }

    /// A message of `route` that comes now.
    fn message(&self, route: &Route, request: Arc<Request>, idempotency_key: Option<String>) -> Message {
        let now = self.clock.now();
        Message {
            id: MessageId::new(now),
            route: route.name.clone(),
            request,
            idempotency_key,
            accepted_at: now,
            progress: Progress::default(),
            origin: Origin::default(),
        }
    }

    /// The claim of a key for `message`, whose caller waits for so long; the key is kept for so long after that.
    fn claim(
        &self,
        message: &Message,
        key: String,
        fingerprint: [u8; 32],
        waits: Duration,
        keep: Duration,
    ) -> KeyClaim {
        KeyClaim {
            route: message.route.clone(),
            key,
            fingerprint,
            message: message.id,
            owner: self.owner.clone(),
            // The last attempt ends at the deadline; its answer is then written down.
            opened_until: message.accepted_at.after(waits.saturating_add(CLOSING)),
            keep_until: message.accepted_at.after(keep.saturating_add(waits)),
        }
    }

    /// The route by this name, if it takes messages in.
    fn route(&self, name: &str) -> Result<Arc<Route>, Problem> {
        match self.routes.standing(name) {
            Standing::Served(route) => Ok(route),
            Standing::Disabled => {
                let detail = format!("route {name} is disabled: it takes nothing in until it is enabled again");
                Err(Problem::new(Kind::RouteDisabled, detail).retry_after(COME_LATER))
            }
            Standing::Unknown => Err(Problem::new(Kind::UnknownRoute, format!("no route is called {name:?}"))),
        }
    }

    /// Why a route takes nothing in that did so when the request came.
    fn closed(&self, name: &RouteName) -> Problem {
        self.route(name.as_str()).err().unwrap_or_else(|| {
            let detail = format!("route {name} is being taken out of service, or put into it");
            Problem::new(Kind::RouteDisabled, detail).retry_after(COME_AGAIN)
        })
    }

    async fn serve(self: &Arc<Self>, message: Message, route: Arc<Route>) -> Result<Response, Problem> {
        let (waits, attempts_at_most) = match route.mode {
            Mode::Async => (None, None),
            Mode::Sync { deadline } => (Some(deadline), None),
            Mode::SyncThenAsync { deadline, attempts } => (Some(deadline), Some(attempts)),
        };
        let key = message.idempotency_key.clone();
        let claim = key.map(|key| {
            let fingerprint = request::fingerprint(&message.request);
            self.claim(&message, key, fingerprint, waits.unwrap_or_default(), route.idempotency.keep)
        });
        let Some(deadline) = waits else { return self.take_async(message, claim).await };
        let lane = self.queue.lane(&route.name).ok_or_else(|| self.closed(&route.name))?;
        let _caller = lane.caller().ok_or_else(|| {
            let detail = format!("as many callers wait on route {} as may", route.name);
            Problem::new(Kind::Saturated, detail).retry_after(COME_AGAIN)
        })?;
        if let Some(claim) = &claim {
            let state = self.store.open_key(claim.clone(), message.accepted_at).await.map_err(unavailable)?;
            if let Some(answer) = answer_to_known_key(state, &message)? {
                return Ok(answer);
            }
        }
        let deadline = message.accepted_at.after(deadline);
        Waiting::new(self, message, route, claim, deadline, attempts_at_most).run().await
    }

    async fn take_async(&self, message: Message, claim: Option<KeyClaim>) -> Result<Response, Problem> {
        match self.queue.offer(message.clone(), claim).await.map_err(unavailable)? {
            Offered::Accepted => Ok(accepted(message.id)),
            Offered::Saturated => Err(lane_saturated(&message.route)),
            Offered::Closed => Err(self.closed(&message.route)),
            Offered::Key(state) => match answer_to_known_key(state, &message)? {
                Some(answer) => Ok(answer),
                // The store stores what has a fresh key; it does not hand it back.
                None => Err(Problem::new(Kind::StoreUnavailable, "the idempotency key could not be taken")),
            },
        }
    }
}

/// What is not taken in at all: a tunnel, and, where only this machine is to be served, a request that a page of some
/// other site makes a browser on it send.
fn refusal(parts: &http::request::Parts, loopback: bool) -> Option<Problem> {
    if parts.method == Method::CONNECT {
        return Some(Problem::new(Kind::BadRequest, "a route carries requests, and no tunnel"));
    }
    let origin = parts.headers.get(header::ORIGIN)?.to_str().unwrap_or_default();
    let own = origin.split_once("://").is_some_and(|(_, host)| crate::admin::names_loopback(host));
    (loopback && !own).then(|| {
        let detail = "this listener serves this machine, and not what pages of other sites send through its browsers";
        Problem::new(Kind::Forbidden, detail)
    })
}

fn lane_saturated(route: &RouteName) -> Problem {
    Problem::new(Kind::Saturated, format!("max_queued messages wait on route {route}")).retry_after(COME_AGAIN)
}

/// The answer to a request whose idempotency key is known already; none when it is fresh.
fn answer_to_known_key(state: KeyState, message: &Message) -> Result<Option<Response>, Problem> {
    let route = &message.route;
    let mut answer = match state {
        KeyState::Fresh => return Ok(None),
        KeyState::Answered(answer) => plain(answer, &message.request.method),
        KeyState::Stored(id) => accepted(id),
        KeyState::InFlight => {
            let detail = "the first request with this Idempotency-Key is still being served";
            return Err(Problem::new(Kind::KeyInFlight, detail).retry_after(COME_AGAIN));
        }
        KeyState::OtherPayload => {
            let detail =
                format!("this Idempotency-Key came to route {route} before, with another method, path or body");
            return Err(Problem::new(Kind::KeyReused, detail));
        }
    };
    answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(Some(answer))
}

fn unavailable(error: StoreError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "the store refused a message");
    match error {
        StoreError::Saturated => Problem::new(Kind::Saturated, "the store has too much to write"),
        // A shared store that breaks off in the middle of a commit may have it all the same.
        StoreError::Unavailable(_) | StoreError::Unusable(_) => Problem::new(
            Kind::StoreUnavailable,
            "the store did not confirm the message: it is not accepted, and to be sent again, best under one Idempotency-Key",
        ),
    }
    .retry_after(COME_AGAIN)
}

fn cannot_look_up(error: StoreError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "the store could not be asked for a message");
    Problem::new(Kind::StoreUnavailable, "the message cannot be looked up now").retry_after(COME_AGAIN)
}

/// 202: the message is on disk.
fn accepted(id: MessageId) -> Response {
    let id = id.to_string();
    let url = format!("/v1/messages/{id}");
    // Neither holds a character that JSON would have written otherwise.
    let body = format!(r#"{{"id":"{id}","state":"queued","url":"{url}"}}"#);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    insert_text(headers, header::LOCATION, &url);
    insert_text(headers, MESSAGE_ID, &id);
    response
}

/// An answer as it is, hop-by-hop fields left out. Its length is what its body has, but for an answer to HEAD, which
/// says the length of the body it does not have.
fn plain(answer: Answer, method: &Method) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = fields::end_to_end(answer.headers);
    if *method != Method::HEAD {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

fn insert_text(headers: &mut http::HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// What became of a message, for whoever holds its id: its state and every attempt; without the request, what the
/// destination answered, addresses, and what only the policy's author needs.
async fn message_status(
    Shared(ingress): Shared<Arc<Ingress>>,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Response {
    let instance = format!("/v1/messages/{id}");
    match crate::admin::find(&*ingress.store, &id).await {
        Ok(Some(mut stored)) => {
            for attempt in &mut stored.attempts {
                attempt.outcome.excerpt.clear();
                attempt.outcome.detail.clear();
                attempt.provenance.log.clear();
                attempt.provenance.failure = None;
            }
            axum::Json(crate::admin::message_json(&stored, &ingress.routes)).into_response()
        }
        Ok(None) => Problem::unknown_message().answer(&instance),
        Err(error) => cannot_look_up(error).answer(&instance),
    }
}
