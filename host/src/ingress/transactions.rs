//! Half messages: `POST /v1/transactions` prepares one, `POST /v1/transactions/{id}/confirm` and `/cancel` say what
//! becomes of it, `GET /v1/transactions/{id}` tells how it stands.
//!
//! A 201 is given only after the commit; so is the 200 to a word. Any of these may be sent again when its answer was
//! lost: a word by itself, a preparation under one `Idempotency-Key`.

mod reading;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};

use super::request::idempotency_key;
use super::{COME_AGAIN, Ingress, MESSAGE_ID, REPLAYED, insert_text, lane_saturated, unavailable};
use crate::message::MessageId;
use crate::problem::{Kind, Problem};
use crate::queue::{Offered, Spoken};
use crate::store::{KeyState, StoreError};
use crate::transaction::{Transaction, Voice, Word};
use reading::Prepare;

/// Where they are prepared.
const TRANSACTIONS: &str = "/v1/transactions";

/// The paths of half messages.
pub(super) fn routes() -> Router<Arc<Ingress>> {
    Router::new()
        .route(TRANSACTIONS, post(prepare))
        .route("/v1/transactions/{id}", get(status))
        .route("/v1/transactions/{id}/confirm", post(confirm))
        .route("/v1/transactions/{id}/cancel", post(cancel))
}

async fn prepare(Shared(ingress): Shared<Arc<Ingress>>, request: Request) -> Response {
    ingress.prepare(request).await.unwrap_or_else(|problem| problem.answer(TRANSACTIONS))
}

async fn status(Shared(ingress): Shared<Arc<Ingress>>, Path(id): Path<String>) -> Response {
    let answer = match id.parse::<MessageId>() {
        Ok(id) => ingress.store.transaction(id).await.map_err(cannot_look_up),
        Err(_) => Ok(None),
    };
    match answer {
        Ok(Some(transaction)) => shown(StatusCode::OK, &transaction),
        Ok(None) => Problem::unknown_transaction().answer(&format!("{TRANSACTIONS}/{id}")),
        Err(problem) => problem.answer(&format!("{TRANSACTIONS}/{id}")),
    }
}

async fn confirm(ingress: Shared<Arc<Ingress>>, id: Path<String>, request: Request) -> Response {
    say(ingress, id, request, Word::Confirm).await
}

async fn cancel(ingress: Shared<Arc<Ingress>>, id: Path<String>, request: Request) -> Response {
    say(ingress, id, request, Word::Cancel).await
}

async fn say(Shared(ingress): Shared<Arc<Ingress>>, Path(id): Path<String>, request: Request, word: Word) -> Response {
    let instance = request.uri().path().to_owned();
    let said = async {
        let _place = ingress.enter(&request.into_parts().0)?;
        let id = id.parse().map_err(|_| Problem::unknown_transaction())?;
        let spoken = ingress.queue.say(id, word, Voice::Sender).await.map_err(unconfirmed_word)?;
        answer_to_word(&spoken, word)
    };
    said.await.unwrap_or_else(|problem| problem.answer(&instance))
}

/// What is answered to a word, whoever said it.
///
/// # Errors
/// A 409 to a word that contradicts the one that holds; a 404 where there is no such transaction.
pub(crate) fn answer_to_word(spoken: &Spoken, word: Word) -> Result<Response, Problem> {
    match spoken {
        Spoken::Holds(transaction) => Ok(shown(StatusCode::OK, transaction)),
        Spoken::Contrary(transaction) => Err(Problem::contrary_word(transaction, word.as_str())),
        Spoken::Unknown => Err(Problem::unknown_transaction()),
    }
}

impl Ingress {
    async fn prepare(&self, request: Request) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let _place = self.enter(&parts)?;
        let key = idempotency_key(&parts.headers)?;
        let asked = Prepare::read(&parts.headers, body, self.longest_preparation(), &*self.clock).await?;
        let route = self.route(&asked.route)?;
        let Some(back) = &route.check_back else {
            let detail = format!(
                "route {} takes no half messages: they need `check_back`, which says whom to ask about them",
                route.name
            );
            return Err(Problem::new(Kind::BadRequest, detail));
        };
        if key.is_none() && route.idempotency.required {
            return Err(Problem::new(Kind::BadRequest, "this route requires an Idempotency-Key"));
        }
        let request = Arc::new(asked.message.request(&route)?);
        let message = self.message(&route, request, key);
        let fingerprint = reading::fingerprint(&message.request);
        let key = message.idempotency_key.clone();
        let claim = key.map(|key| self.claim(&message, key, fingerprint, Duration::ZERO, route.idempotency.keep));
        let first_check = message.accepted_at.after(back.after);
        let (id, name) = (message.id, route.name.clone());
        match self.queue.prepare(message, first_check, claim).await.map_err(unavailable)? {
            Offered::Accepted => {
                self.agenda.put(&name, first_check);
                self.prepared(id, false).await
            }
            Offered::Saturated => Err(lane_saturated(&name)),
            Offered::Closed => Err(self.closed(&name)),
            Offered::Key(KeyState::Stored(id)) => self.prepared(id, true).await,
            Offered::Key(KeyState::InFlight) => {
                let detail = "the first request with this Idempotency-Key is still being served";
                Err(Problem::new(Kind::KeyInFlight, detail).retry_after(COME_AGAIN))
            }
            Offered::Key(KeyState::OtherPayload | KeyState::Answered(_) | KeyState::Fresh) => {
                let detail = format!(
                    "this Idempotency-Key came to route {name} before, with another method, path or body, or with a \
                     message that is no half one"
                );
                Err(Problem::new(Kind::KeyReused, detail))
            }
        }
    }

    /// 201: the half message is on disk.
    async fn prepared(&self, id: MessageId, replayed: bool) -> Result<Response, Problem> {
        let transaction = self.store.transaction(id).await.map_err(cannot_look_up)?;
        let transaction = transaction.ok_or_else(Problem::unknown_transaction)?;
        let mut response = shown(StatusCode::CREATED, &transaction);
        let headers = response.headers_mut();
        insert_text(headers, header::LOCATION, &transaction.url());
        insert_text(headers, MESSAGE_ID, &id.to_string());
        if replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(response)
    }

    /// The longest body of a preparation, whatever its route: JSON takes more room than what it stands for.
    fn longest_preparation(&self) -> usize {
        const FOR_THE_REST: usize = 128 << 10;
        let table = self.routes.table();
        let limits = crate::routes::served(&table).filter(|route| route.check_back.is_some());
        limits.map(|route| route.body_limit).max().unwrap_or(0).saturating_mul(2).saturating_add(FOR_THE_REST)
    }
}

fn shown(status: StatusCode, transaction: &Transaction) -> Response {
    (status, axum::Json(transaction.shown())).into_response()
}

fn cannot_look_up(error: StoreError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "the store could not be asked for a transaction");
    Problem::new(Kind::StoreUnavailable, "the transaction cannot be looked up now").retry_after(COME_AGAIN)
}

fn unconfirmed_word(error: StoreError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "the store did not take a word");
    let detail = "the store did not take the word: say it again";
    Problem::new(Kind::StoreUnavailable, detail).retry_after(COME_AGAIN)
}
