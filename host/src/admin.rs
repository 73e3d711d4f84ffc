//! The admin API: what the host knows, as JSON, and the few things a person may tell it to do.
//!
//! It listens on loopback unless the configuration says otherwise, and then asks for a token. What changes something
//! is a POST with a JSON body, which a page of another origin cannot send.

mod archive;
mod parked;
mod routes;
mod transactions;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State as Shared};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::alarm::Alarms;
use crate::clock::Clock;
use crate::config::Secret;
use crate::ingress::tapping::Taps;
use crate::message::{self, MessageId, State};
use crate::policy::Catalog;
use crate::problem::{Kind, Problem};
use crate::queue::{Agenda, Holds, Queue};
use crate::reload::Reload;
use crate::routes::Routes;
use crate::store::{Filter, Selection, Store, StoreError, Stored, Summary};
use crate::watch::Watch;

/// The longest request body the admin API reads: a selection of ids.
const MAX_BODY: usize = 1 << 20;

/// What `?state=` asks for messages by that are queued on a route that is not served. It is no state of a message's own:
/// what is parked on one host may be due on another.
const PARKED: &str = "parked";

/// What the admin API works with.
pub struct Admin {
    /// Where messages are kept.
    pub store: Arc<dyn Store>,
    /// The lanes.
    pub queue: Arc<Queue>,
    /// Which destinations asked for quiet.
    pub holds: Arc<Holds>,
    /// The alarms.
    pub alarms: Arc<Alarms>,
    /// The route table.
    pub routes: Arc<Routes>,
    /// The configuration in effect.
    pub reload: Arc<Reload>,
    /// The policies.
    pub catalog: Arc<Catalog>,
    /// The counts.
    pub watch: Arc<Watch>,
    /// When senders of half messages are to be asked.
    pub agenda: Arc<Agenda>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The sources.
    pub taps: Arc<Taps>,
    /// The token asked of every caller, if any.
    pub token: Option<Secret>,
}

/// The admin API's paths.
pub fn router(admin: Arc<Admin>) -> Router {
    let guarded = Router::new()
        .route("/v1/routes", get(routes::list))
        .route("/v1/config", get(config))
        .route("/v1/policies", get(policies))
        .route("/v1/sources", get(sources))
        .route("/v1/alarms", get(alarms))
        .route("/v1/holds", get(holds))
        .route("/v1/messages", get(list))
        .route("/v1/messages/{id}", get(show))
        .route("/v1/dead/redrive", post(redrive))
        .route("/v1/dead/discard", post(discard))
        .merge(transactions::paths())
        .merge(archive::paths())
        .route("/v1/parked/discard", post(parked::discard))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), guard));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(guarded)
        .fallback(nothing_here)
        .with_state(admin)
}

async fn nothing_here(request: Request) -> Response {
    let detail = "GET /v1/routes, /v1/config, /v1/policies, /v1/sources, /v1/alarms, /v1/holds, /v1/messages, /v1/archive, /v1/transactions; POST /v1/dead/redrive, /v1/dead/discard, /v1/parked/discard, /v1/transactions/{id}/resume, /v1/archive/{id}/republish";
    Problem::new(Kind::NotFound, detail).answer(request.uri().path())
}

/// Lets in who shows the token; without one, who names this machine itself in `Host`, so that no page of another
/// site can reach a loopback listener under a name of its own (DNS rebinding).
async fn guard(Shared(admin): Shared<Arc<Admin>>, request: Request, next: Next) -> Response {
    match refusal(admin.token.as_ref(), request.headers()) {
        Some(detail) => Problem::new(Kind::Unauthorized, detail).answer(request.uri().path()),
        None => next.run(request).await,
    }
}

fn refusal(token: Option<&Secret>, headers: &HeaderMap) -> Option<&'static str> {
    let field = |name| headers.get(name).map_or(&b""[..], |value: &http::HeaderValue| value.as_bytes());
    match token {
        Some(token) if same_bytes(field(header::AUTHORIZATION), format!("Bearer {}", token.expose()).as_bytes()) => {
            None
        }
        Some(_) => Some("send `Authorization: Bearer …` with the admin token"),
        None if names_loopback(&String::from_utf8_lossy(field(header::HOST))) => None,
        None => Some("without an admin token, only http://127.0.0.1, http://[::1] and http://localhost are served"),
    }
}

/// Whether a `Host` field names the loopback interface.
pub(crate) fn names_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Compares without telling, by the time it takes, where the first difference is.
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Ready: the store answers.
async fn ready(Shared(admin): Shared<Arc<Admin>>) -> Response {
    match admin.store.holds(admin.clock.now()).await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => store_problem(&error, "/readyz"),
    }
}

fn store_problem(error: &StoreError, instance: &str) -> Response {
    tracing::error!(error = error as &dyn std::error::Error, "the store failed the admin API");
    Problem::new(Kind::StoreUnavailable, error.to_string()).answer(instance)
}

async fn config(Shared(admin): Shared<Arc<Admin>>) -> Response {
    Json(admin.reload.status()).into_response()
}

async fn policies(Shared(admin): Shared<Arc<Admin>>) -> Response {
    Json(json!({ "policies": admin.catalog.list() })).into_response()
}

async fn sources(Shared(admin): Shared<Arc<Admin>>) -> Response {
    Json(json!({ "sources": admin.taps.standing() })).into_response()
}

async fn alarms(Shared(admin): Shared<Arc<Admin>>) -> Response {
    Json(json!({ "alarms": admin.alarms.current() })).into_response()
}

async fn holds(Shared(admin): Shared<Arc<Admin>>) -> Response {
    Json(json!({ "holds": admin.holds.current(admin.clock.now()) })).into_response()
}

/// The query of `/v1/messages`: `?route=…&state=dead,answered&reason=…&before=ID&limit=N`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    route: Option<String>,
    state: Option<String>,
    reason: Option<String>,
    before: Option<MessageId>,
    limit: Option<u32>,
}

async fn list(Shared(admin): Shared<Arc<Admin>>, query: Result<Query<ListQuery>, QueryRejection>) -> Response {
    let bad = |detail: String| Problem::new(Kind::BadRequest, detail).answer("/v1/messages");
    let Query(query) = match query {
        Ok(query) => query,
        Err(rejection) => return bad(rejection.body_text()),
    };
    let mut filter = Filter {
        route: query.route,
        states: Vec::new(),
        reason: query.reason,
        before: query.before,
        limit: query.limit.unwrap_or(100).clamp(1, 1000),
    };
    let asked = query.state.as_deref().unwrap_or_default();
    let listed = if asked == PARKED {
        parked::list(&admin, filter).await
    } else {
        for name in asked.split(',').filter(|name| !name.is_empty()) {
            match State::ALL.iter().find(|state| state.as_str() == name) {
                Some(state) => filter.states.push(*state),
                None if name == PARKED => {
                    return bad(format!(
                        "{PARKED} is no state beside others (it is queued, on a route that is not served): ask for it by itself"
                    ));
                }
                None => {
                    let known = names(&State::ALL);
                    return bad(format!("no state is called {name:?}; there are {known}, and {PARKED} by itself"));
                }
            }
        }
        admin.store.list(filter).await
    };
    match listed {
        Ok(messages) => {
            let messages: Vec<Value> = messages.iter().map(|summary| summary_json(summary, &admin.routes)).collect();
            Json(json!({ "messages": messages })).into_response()
        }
        Err(error) => store_problem(&error, "/v1/messages"),
    }
}

async fn show(Shared(admin): Shared<Arc<Admin>>, Path(id): Path<String>) -> Response {
    let instance = format!("/v1/messages/{id}");
    match find(&*admin.store, &id).await {
        Ok(Some(stored)) => {
            let mut shown = message_json(&stored, &admin.routes);
            shown["request"] = request_json(&stored.message.request);
            // For those who operate the host: a caller has no business with the messages of others.
            if let Some(blocker) = stored.blocked_by {
                shown["blocked_by"] = json!(blocker);
            }
            Json(shown).into_response()
        }
        Ok(None) => Problem::unknown_message().answer(&instance),
        Err(error) => store_problem(&error, &instance),
    }
}

/// The message whose id somebody wrote; none when there is none, or when that is no id at all.
///
/// # Errors
/// [`StoreError`]
pub async fn find(store: &dyn Store, id: &str) -> Result<Option<Stored>, StoreError> {
    match id.parse::<MessageId>() {
        Ok(id) => store.message(id).await,
        Err(_) => Ok(None),
    }
}

/// A message's line; and, where it is parked, why.
fn summary_json(summary: &Summary, routes: &Routes) -> Value {
    let mut shown = json!(summary);
    if let Some(why) = parked::why(summary, routes) {
        shown["parked"] = json!(why);
    }
    shown
}

/// A message without its request and its journal.
fn head_json(stored: &Stored, routes: &Routes) -> Value {
    let mut shown = summary_json(&stored.summary, routes);
    shown["idempotency_key"] = json!(stored.message.idempotency_key);
    if let Some(original) = stored.message.origin.original {
        shown["original"] = json!(original);
    }
    shown
}

/// A message and its journal; and, where it is parked, why.
pub fn message_json(stored: &Stored, routes: &Routes) -> Value {
    let mut shown = head_json(stored, routes);
    shown["journal"] = json!(stored.attempts);
    shown
}

/// The request, its credentials left out.
fn request_json(request: &message::Request) -> Value {
    let headers: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|(name, value)| {
            let shown = if names_a_secret(name) {
                "***".to_owned()
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            (name.to_string(), shown)
        })
        .collect();
    let mut shown = json!({ "method": request.method.as_str(), "path": request.path, "headers": headers });
    match std::str::from_utf8(&request.body) {
        Ok(text) => shown["body"] = json!(text),
        Err(_) => shown["body_base64"] = json!(STANDARD.encode(&request.body)),
    }
    shown
}

/// Whether a field by this name is likely to hold a credential: `authorization`, `cookie`, `x-api-key`, and the like.
fn names_a_secret(name: &HeaderName) -> bool {
    let words = ["auth", "cookie", "key", "token", "secret", "password", "signature"];
    *name != "idempotency-key" && words.iter().any(|word| name.as_str().contains(word))
}

fn names(states: &[State]) -> String {
    states.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ")
}

/// Why what is selected cannot be `done` to it at all: it is only done to messages in the states `from`.
fn misfit(selection: &Selection, done: &str, from: &[State]) -> Option<Problem> {
    let Selection::Matching(filter) = selection else { return None };
    let misfit = filter.states.iter().find(|state| !from.contains(state))?;
    let detail = format!("no message is {done} that is {misfit}, only those that are {}", names(from));
    Some(Problem::new(Kind::BadRequest, detail))
}

async fn redrive(Shared(admin): Shared<Arc<Admin>>, selection: Result<Json<Selection>, JsonRejection>) -> Response {
    match selection {
        Ok(Json(Selection::Matching(Filter { route: Some(route), .. }))) if !admin.routes.is_configured(&route) => {
            let detail = format!("no route is called {route:?}: its messages would wait for ever; configure it first");
            Problem::new(Kind::UnknownRoute, detail).answer("/v1/dead/redrive")
        }
        Ok(Json(selection)) => match misfit(&selection, "redriven", State::REDRIVEN) {
            Some(problem) => problem.answer("/v1/dead/redrive"),
            None => match admin.queue.redrive(selection).await {
                Ok(redriven) => Json(json!({ "redriven": redriven })).into_response(),
                Err(error) => store_problem(&error, "/v1/dead/redrive"),
            },
        },
        Err(rejection) => Problem::new(Kind::BadRequest, rejection.body_text()).answer("/v1/dead/redrive"),
    }
}

async fn discard(Shared(admin): Shared<Arc<Admin>>, selection: Result<Json<Selection>, JsonRejection>) -> Response {
    match selection {
        Ok(Json(selection)) => match misfit(&selection, "discarded", State::DISCARDED) {
            Some(problem) => problem.answer("/v1/dead/discard"),
            None => match admin.queue.discard(selection).await {
                Ok(discarded) => Json(json!({ "discarded": discarded })).into_response(),
                Err(error) => store_problem(&error, "/v1/dead/discard"),
            },
        },
        Err(rejection) => Problem::new(Kind::BadRequest, rejection.body_text()).answer("/v1/dead/discard"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_names_itself() {
        for host in ["localhost:8081", "127.0.0.1", "127.9.9.9:1", "[::1]:8081"] {
            assert!(names_loopback(host), "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8081", "evil@localhost", "10.0.0.1"]
        {
            assert!(!names_loopback(host), "{host}");
        }
    }
}
