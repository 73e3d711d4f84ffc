//! Half messages, for people: which wait, which are parked, and what a person may do about one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Admin, request_json, store_problem};
use crate::ingress::answer_to_word;
use crate::message::{MessageId, RouteName};
use crate::problem::{Kind, Problem};
use crate::queue::Spoken;
use crate::store::{Said, StoreError, TransactionFilter};
use crate::transaction::{Transaction, TransactionState, Voice, Word};

const TRANSACTIONS: &str = "/v1/transactions";

/// The paths of half messages.
pub(super) fn paths() -> Router<Arc<Admin>> {
    Router::new()
        .route(TRANSACTIONS, get(list))
        .route("/v1/transactions/{id}", get(show))
        .route("/v1/transactions/{id}/confirm", post(confirm))
        .route("/v1/transactions/{id}/cancel", post(cancel))
        .route("/v1/transactions/{id}/resume", post(resume))
}

/// How many transactions are open.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Open {
    /// Those that wait for their senders' word.
    prepared: u64,
    /// Those that wait for a person.
    parked: u64,
}

/// How many transactions are open, by route.
///
/// # Errors
/// [`StoreError`]
pub(super) async fn open(admin: &Admin) -> Result<BTreeMap<String, Open>, StoreError> {
    let mut open: BTreeMap<String, Open> = BTreeMap::new();
    for ((route, state), count) in admin.store.open_transactions().await? {
        let on_route = open.entry(route).or_default();
        match state {
            TransactionState::Prepared => on_route.prepared = count,
            TransactionState::Parked => on_route.parked = count,
            TransactionState::Confirmed | TransactionState::Cancelled => {}
        }
    }
    Ok(open)
}

/// The query of `/v1/transactions`: `?route=…&state=prepared,parked&before=ID&limit=N`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    route: Option<String>,
    state: Option<String>,
    before: Option<MessageId>,
    limit: Option<u32>,
}

async fn list(Shared(admin): Shared<Arc<Admin>>, query: Result<Query<ListQuery>, QueryRejection>) -> Response {
    let filter = match query.map_err(|rejection| rejection.body_text()).and_then(|Query(query)| filter(query)) {
        Ok(filter) => filter,
        Err(detail) => return Problem::new(Kind::BadRequest, detail).answer(TRANSACTIONS),
    };
    match admin.store.transactions(filter).await {
        Ok(found) => {
            let found: Vec<Value> = found.iter().map(Transaction::shown).collect();
            Json(json!({ "transactions": found })).into_response()
        }
        Err(error) => store_problem(&error, TRANSACTIONS),
    }
}

fn filter(query: ListQuery) -> Result<TransactionFilter, String> {
    let mut states = Vec::new();
    for name in query.state.as_deref().unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
        let known = TransactionState::ALL;
        states.push(known.into_iter().find(|state| state.as_str() == name).ok_or_else(|| {
            format!("no state is called {name:?}; there are {}", known.map(TransactionState::as_str).join(", "))
        })?);
    }
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    Ok(TransactionFilter { route: query.route, states, before: query.before, limit })
}

async fn show(Shared(admin): Shared<Arc<Admin>>, Path(id): Path<String>) -> Response {
    let instance = format!("{TRANSACTIONS}/{id}");
    match find(&admin, &id).await {
        Ok(Some(shown)) => Json(shown).into_response(),
        Ok(None) => Problem::unknown_transaction().answer(&instance),
        Err(error) => store_problem(&error, &instance),
    }
}

/// A transaction, with what it would deliver for as long as it is open.
async fn find(admin: &Admin, id: &str) -> Result<Option<Value>, StoreError> {
    let Ok(id) = id.parse::<MessageId>() else { return Ok(None) };
    let Some(transaction) = admin.store.transaction(id).await? else { return Ok(None) };
    let mut shown = transaction.shown();
    if let Some(message) = admin.store.half_message(id).await? {
        shown["idempotency_key"] = json!(message.idempotency_key);
        shown["request"] = request_json(&message.request);
    }
    Ok(Some(shown))
}

/// What comes with a word or a resumption: an empty JSON object, which a page of another origin cannot send.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

type Sent = Result<Json<Nothing>, JsonRejection>;

async fn confirm(admin: Shared<Arc<Admin>>, id: Path<String>, sent: Sent) -> Response {
    say(admin, id, sent, Word::Confirm).await
}

async fn cancel(admin: Shared<Arc<Admin>>, id: Path<String>, sent: Sent) -> Response {
    say(admin, id, sent, Word::Cancel).await
}

async fn say(Shared(admin): Shared<Arc<Admin>>, Path(id): Path<String>, sent: Sent, word: Word) -> Response {
    let instance = format!("{TRANSACTIONS}/{id}/{}", word.as_str());
    let id = match named(&id, sent) {
        Ok(id) => id,
        Err(problem) => return problem.answer(&instance),
    };
    match admin.queue.say(id, word, Voice::Person).await {
        Ok(spoken) => answer_to_word(&spoken, word).unwrap_or_else(|problem| problem.answer(&instance)),
        Err(error) => store_problem(&error, &instance),
    }
}

async fn resume(Shared(admin): Shared<Arc<Admin>>, Path(id): Path<String>, sent: Sent) -> Response {
    let instance = format!("{TRANSACTIONS}/{id}/resume");
    let resumed = match named(&id, sent) {
        Ok(id) => resumed(&admin, id).await,
        Err(problem) => return problem.answer(&instance),
    };
    match resumed {
        Ok(Spoken::Holds(transaction)) => Json(transaction.shown()).into_response(),
        Ok(Spoken::Contrary(transaction)) => Problem::contrary_word(&transaction, "resume").answer(&instance),
        Ok(Spoken::Unknown) => Problem::unknown_transaction().answer(&instance),
        Err(error) => store_problem(&error, &instance),
    }
}

/// Has the sender of a parked transaction asked again, at once.
async fn resumed(admin: &Admin, id: MessageId) -> Result<Spoken, StoreError> {
    let now = admin.clock.now();
    let said = admin.store.resume(id, now).await?;
    let Some(transaction) = admin.store.transaction(id).await? else { return Ok(Spoken::Unknown) };
    if said == Said::Taken(())
        && let Ok(route) = RouteName::new(&transaction.route)
    {
        admin.agenda.put(&route, now);
    }
    Ok(match said {
        Said::Taken(()) | Said::Already => Spoken::Holds(transaction),
        Said::Contrary => Spoken::Contrary(transaction),
        Said::Unknown => Spoken::Unknown,
    })
}

fn named(id: &str, sent: Sent) -> Result<MessageId, Problem> {
    let Json(Nothing {}) =
        sent.map_err(|rejection| Problem::new(Kind::BadRequest, format!("{}; send {{}}", rejection.body_text())))?;
    id.parse().map_err(|_| Problem::unknown_transaction())
}
