//! Errors to HTTP callers: RFC 9457 `application/problem+json`, mapped to statuses in this one place.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::transaction::Transaction;

/// What is wrong, for the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    kind: Kind,
    detail: String,
    retry_after: Option<Duration>,
    members: Vec<(&'static str, Value)>,
}

/// The kinds of problem: each has one `type`, `title` and `status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The request cannot be understood.
    BadRequest,
    /// The admin API's token is missing or wrong.
    Unauthorized,
    /// The caller is not one of those served.
    Forbidden,
    /// No such route.
    UnknownRoute,
    /// No route takes the event.
    NoRoute,
    /// The route takes nothing in for now.
    RouteDisabled,
    /// The route is served, and what was asked for is only done to those that are not.
    RouteServed,
    /// No such message.
    UnknownMessage,
    /// The message is one that is not published again: it has not ended, or holds its order up.
    NotRepublished,
    /// No such half message.
    UnknownTransaction,
    /// The other word was said of the half message before.
    ContraryWord,
    /// No such page.
    NotFound,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The first request with this idempotency key is still being served.
    KeyInFlight,
    /// The body is longer than the route takes.
    BodyTooLong,
    /// The idempotency key came with another payload.
    KeyReused,
    /// The policy refused the message before its first attempt.
    Refused,
    /// The host takes no more just now.
    Saturated,
    /// The store cannot take the message.
    StoreUnavailable,
    /// The host is shutting down.
    ShuttingDown,
    /// The host itself failed.
    Internal,
    /// The destination gave no usable answer.
    BadGateway,
    /// The destination gave no answer in time.
    GatewayTimeout,
    /// The destination asked for quiet, longer than the caller waits.
    DestinationHeld,
    /// The route's circuit breaker is open, longer than the caller waits.
    BreakerOpen,
    /// The route's rate is used up for longer than the caller waits.
    RateUsedUp,
}

impl Kind {
    const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::BadRequest => ("bad-request", StatusCode::BAD_REQUEST, "The request cannot be understood"),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "The admin token is missing or wrong"),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "Such callers are not served"),
            Self::UnknownRoute => ("unknown-route", StatusCode::NOT_FOUND, "There is no such route"),
            Self::NoRoute => ("no-route", StatusCode::NOT_FOUND, "No route takes this event"),
            Self::RouteDisabled => {
                ("route-disabled", StatusCode::SERVICE_UNAVAILABLE, "The route takes nothing in for now")
            }
            Self::RouteServed => ("route-served", StatusCode::CONFLICT, "The route is served"),
            Self::UnknownMessage => ("unknown-message", StatusCode::NOT_FOUND, "There is no such message"),
            Self::NotRepublished => ("not-republished", StatusCode::CONFLICT, "The message is not published again"),
            Self::UnknownTransaction => ("unknown-transaction", StatusCode::NOT_FOUND, "There is no such half message"),
            Self::ContraryWord => ("contrary-word", StatusCode::CONFLICT, "The other word was said before, and holds"),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "There is nothing here"),
            Self::RequestTimeout => ("request-timeout", StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time"),
            Self::KeyInFlight => {
                ("idempotency-key-in-flight", StatusCode::CONFLICT, "The first request with this key is still served")
            }
            Self::BodyTooLong => ("body-too-long", StatusCode::PAYLOAD_TOO_LARGE, "The body is longer than allowed"),
            Self::KeyReused => (
                "idempotency-key-reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "This idempotency key came with another payload",
            ),
            Self::Refused => ("refused", StatusCode::UNPROCESSABLE_ENTITY, "The route's policy refused the message"),
            Self::Saturated => ("saturated", StatusCode::SERVICE_UNAVAILABLE, "Too much is waiting already"),
            Self::StoreUnavailable => {
                ("store-unavailable", StatusCode::SERVICE_UNAVAILABLE, "The message cannot be stored just now")
            }
            Self::ShuttingDown => ("shutting-down", StatusCode::SERVICE_UNAVAILABLE, "The host is shutting down"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "The host failed"),
            Self::BadGateway => ("no-answer", StatusCode::BAD_GATEWAY, "The destination gave no usable answer"),
            Self::GatewayTimeout => {
                ("no-answer-in-time", StatusCode::GATEWAY_TIMEOUT, "The destination gave no answer in time")
            }
            Self::DestinationHeld => {
                ("destination-held", StatusCode::SERVICE_UNAVAILABLE, "The destination asked for quiet")
            }
            Self::BreakerOpen => (
                "breaker-open",
                StatusCode::SERVICE_UNAVAILABLE,
                "The destination fails, and is left alone for a while",
            ),
            Self::RateUsedUp => ("rate-used-up", StatusCode::SERVICE_UNAVAILABLE, "The route's rate is used up"),
        }
    }
}

impl Problem {
    /// A problem of this kind; `detail` says what exactly, and what to do about it.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None, members: Vec::new() }
    }

    /// The message asked for is not in the store.
    pub fn unknown_message() -> Self {
        let detail = "it was never stored (as what a waiting caller got is not), ended longer ago than it is kept, or is \
                      still half a message: those are at /v1/transactions/{id}";
        Self::new(Kind::UnknownMessage, detail)
    }

    /// The half message named is not in the store.
    pub fn unknown_transaction() -> Self {
        let detail = "it was never prepared, or ended longer ago than it is kept";
        Self::new(Kind::UnknownTransaction, detail)
    }

    /// What was asked of a half message that has ended, and ended otherwise.
    pub fn contrary_word(transaction: &Transaction, asked: &str) -> Self {
        let Transaction { state, reason, .. } = transaction;
        let detail = format!("it is {state} ({reason}), which holds: `{asked}` changes nothing");
        Self::new(Kind::ContraryWord, detail).with("state", state.as_str())
    }

    /// What exactly is wrong.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// When to come again: `Retry-After`, rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// An extension member.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// The HTTP answer, for the request at `instance` (its path).
    pub fn answer(&self, instance: &str) -> Response {
        let (name, status, title) = self.kind.parts();
        let mut body = json!({
            "type": format!("urn:backstop:problem:{name}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
            "instance": instance,
        });
        for (member, value) in &self.members {
            body[*member] = value.clone();
        }
        let mut response = (status, Body::from(body.to_string())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(delay) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(delay.as_millis().div_ceil(1000).max(1) as u64));
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
