//! How each vendor misbehaves. What depends on the order depends on its number, so that every run tells one story.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

/// The secret with which the host gets its tokens from `crm`.
pub(in super::super) const CLIENT_SECRET: &str = "not-a-secret-but-treated-as-one";

/// How long a token of `crm` works, whatever it was said to.
const TOKEN_WORKS: Duration = Duration::from_millis(2500);
/// How long `search` wants quiet, in seconds, after so many requests.
const QUIET: u64 = 2;
const ENOUGH: u32 = 30;

/// A request, as a vendor sees it.
pub(super) struct Visit<'r> {
    /// The order's number on its route, from 1.
    pub(super) number: u64,
    /// Which request about this message it is, from 1.
    pub(super) nth: u32,
    /// Its header fields.
    pub(super) headers: &'r HeaderMap,
    /// Its body.
    pub(super) body: &'r Bytes,
    /// Since the vendors opened.
    pub(super) elapsed: Duration,
}

/// A vendor's ways.
pub(in super::super) enum Manners {
    /// 200, with the error inside.
    Risk,
    /// 503 in bursts.
    Orders,
    /// 429 with `Retry-After`, for everybody.
    Search(Mutex<Quiet>),
    /// Tokens that expire before their time.
    Crm(Mutex<Tokens>),
    /// Connections are taken, requests are read, nothing is answered.
    BlackHole,
    /// The second vendor: it works.
    Works,
    /// 400 while in maintenance, 502 now and then, 422 for some customers.
    Billing,
    /// An engine that fails now and then, and does not know some scans.
    Scans,
    /// 500, always.
    Hopeless,
}

/// What `search` counts.
#[derive(Default)]
pub(in super::super) struct Quiet {
    served: u32,
    until: Duration,
}

/// The tokens of `crm`.
#[derive(Default)]
pub(in super::super) struct Tokens {
    issued: u64,
    /// When the newest was issued; older ones do not work.
    at: Duration,
}

/// An answer, and whether the vendor took the request.
type Answered = (Response, bool);

impl Manners {
    /// All vendors by name.
    pub(super) fn all() -> Vec<(&'static str, Self)> {
        vec![
            ("risk", Self::Risk),
            ("orders", Self::Orders),
            ("search", Self::Search(Mutex::default())),
            ("crm", Self::Crm(Mutex::default())),
            ("ledger", Self::BlackHole),
            ("ledger-backup", Self::Works),
            ("billing", Self::Billing),
            ("scans", Self::Scans),
            ("legacy", Self::Hopeless),
        ]
    }

    /// The answer to `visit`; none from a black hole.
    pub(super) fn answer(&self, visit: &Visit<'_>) -> Option<Answered> {
        Some(match self {
            Self::Risk => risk(visit),
            Self::Orders => orders(visit),
            Self::Search(quiet) => search(visit, quiet),
            Self::Crm(tokens) => crm(visit, tokens),
            Self::BlackHole => return None,
            Self::Works => took(json!({ "booked": true })),
            Self::Billing => billing(visit),
            Self::Scans => scans(visit),
            Self::Hopeless => refused(StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": "null pointer" })),
        })
    }

    /// The answer of the token endpoint, where there is one and it is asked.
    pub(super) fn token(&self, path: &str, headers: &HeaderMap, elapsed: Duration) -> Option<Response> {
        let Self::Crm(tokens) = self else { return None };
        if path != "/oauth/token" {
            return None;
        }
        let expected = format!("Basic {}", STANDARD.encode(format!("backstop-demo:{CLIENT_SECRET}")));
        if super::text(headers, "authorization") != expected {
            return Some((StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" }))).into_response());
        }
        let mut tokens = tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.issued += 1;
        tokens.at = elapsed;
        // An hour, it says.
        let token = json!({ "access_token": tokens.name(), "token_type": "Bearer", "expires_in": 3600 });
        Some(Json(token).into_response())
    }
}

impl Tokens {
    fn name(&self) -> String {
        format!("token-{}", self.issued)
    }
}

fn took(body: Value) -> Answered {
    (Json(body).into_response(), true)
}

fn refused(status: StatusCode, body: Value) -> Answered {
    ((status, Json(body)).into_response(), false)
}

fn risk(visit: &Visit<'_>) -> Answered {
    let request = format!("req-{}-{}", visit.number, visit.nth);
    let error = |code: &str, message: &str| {
        let error = json!({ "Code": code, "Message": message });
        (Json(json!({ "Response": { "Error": error, "RequestId": request } })).into_response(), false)
    };
    match (visit.number % 25, visit.nth) {
        (7, _) => error("InternalError", "the model is not loaded"),
        (16, _) => error("InvalidParameter", "amount: no such currency"),
        (3 | 11 | 19, 1) => error("InternalError", "try again"),
        (22, 1) => (([(header::CONTENT_TYPE, "text/html")], "<html>It works!</html>").into_response(), false),
        _ => took(json!({ "Response": { "Decision": "pass", "RequestId": request } })),
    }
}

/// A window of time that comes again: whether `elapsed` lies within `from..to` of each `period`, in milliseconds.
fn in_window(elapsed: Duration, period: u128, from: u128, to: u128) -> bool {
    (from..to).contains(&(elapsed.as_millis() % period))
}

fn orders(visit: &Visit<'_>) -> Answered {
    if in_window(visit.elapsed, 4500, 1500, 2800) {
        return refused(StatusCode::SERVICE_UNAVAILABLE, json!({ "error": "deploying" }));
    }
    took(json!({ "order": visit.number, "state": "placed" }))
}

fn search(visit: &Visit<'_>, quiet: &Mutex<Quiet>) -> Answered {
    let mut quiet = quiet.lock().unwrap_or_else(PoisonError::into_inner);
    if visit.elapsed >= quiet.until && quiet.served >= ENOUGH {
        *quiet = Quiet { served: 0, until: visit.elapsed + Duration::from_secs(QUIET) };
    }
    let left = quiet.until.saturating_sub(visit.elapsed);
    if !left.is_zero() {
        let seconds = left.as_millis().div_ceil(1000).to_string();
        let body = Json(json!({ "error": "slow down" }));
        return ((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds)], body).into_response(), false);
    }
    quiet.served += 1;
    took(json!({ "indexed": true }))
}

fn crm(visit: &Visit<'_>, tokens: &Mutex<Tokens>) -> Answered {
    let tokens = tokens.lock().unwrap_or_else(PoisonError::into_inner);
    let shown = super::text(visit.headers, "authorization");
    let known = tokens.issued > 0 && shown == format!("Bearer {}", tokens.name());
    if !known || visit.elapsed.saturating_sub(tokens.at) > TOKEN_WORKS {
        return refused(StatusCode::UNAUTHORIZED, json!({ "code": "token_expired" }));
    }
    took(json!({ "contact": visit.number }))
}

fn billing(visit: &Visit<'_>) -> Answered {
    if visit.number % 12 == 5 {
        return refused(StatusCode::UNPROCESSABLE_ENTITY, json!({ "error": "unknown customer" }));
    }
    if in_window(visit.elapsed, 6000, 2000, 3200) {
        return refused(StatusCode::BAD_REQUEST, json!({ "error": "down for maintenance, come back later" }));
    }
    if visit.number % 9 == 2 && visit.nth == 1 {
        return refused(StatusCode::BAD_GATEWAY, json!({ "error": "upstream" }));
    }
    took(json!({ "invoice": visit.number }))
}

fn scans(visit: &Visit<'_>) -> Answered {
    if visit.number % 15 == 8 {
        return refused(StatusCode::NOT_FOUND, json!({ "error": "no such scan" }));
    }
    if visit.number % 4 == 1 && visit.nth <= 2 {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": "engine out of memory" }));
    }
    match serde_json::from_slice::<Value>(visit.body) {
        Ok(_) => took(json!({ "verdict": "clean" })),
        // The policy is there so that this never comes.
        Err(_) => refused(StatusCode::BAD_REQUEST, json!({ "error": "not JSON" })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit<'r>(headers: &'r HeaderMap, body: &'r Bytes, number: u64, nth: u32, millis: u64) -> Visit<'r> {
        Visit { number, nth, headers, body, elapsed: Duration::from_millis(millis) }
    }

    #[test]
    fn a_token_works_until_it_does_not_and_the_next_one_replaces_it() {
        let crm = Manners::Crm(Mutex::default());
        let basic = format!("Basic {}", STANDARD.encode(format!("backstop-demo:{CLIENT_SECRET}")));
        let asks = HeaderMap::from_iter([(header::AUTHORIZATION, basic.parse().unwrap())]);
        let bearer =
            |token: &str| HeaderMap::from_iter([(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())]);
        let body = Bytes::new();
        let took = |token: &str, at| crm.answer(&visit(&bearer(token), &body, 1, 1, at)).is_some_and(|(_, took)| took);

        assert!(!took("token-1", 0));
        assert_eq!(crm.token("/oauth/token", &asks, Duration::ZERO).unwrap().status(), StatusCode::OK);
        assert!(took("token-1", 2000));
        assert!(!took("token-1", 3000));
        crm.token("/oauth/token", &asks, Duration::from_secs(3)).unwrap();
        assert!(!took("token-1", 3100));
        assert!(took("token-2", 3100));
    }

    #[test]
    fn a_quiet_vendor_says_how_long() {
        let search = Manners::Search(Mutex::default());
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        for number in 1..=u64::from(ENOUGH) {
            assert!(search.answer(&visit(&headers, &body, number, 1, 10)).unwrap().1);
        }
        let (answer, took) = search.answer(&visit(&headers, &body, 31, 1, 500)).unwrap();
        assert!(!took);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "2");
        assert!(search.answer(&visit(&headers, &body, 31, 2, 2500)).unwrap().1);
    }
}
