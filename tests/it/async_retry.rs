//! `async-retry`: a generic asynchronous retry service. A message is taken with 202 and delivered sooner or later, or
//! put aside; expired tokens are renewed.

use std::time::Duration;

use backstop_tests::{Host, Received, Reply, Vendor, eventually, json, nothing, ok, status};
use futures_util::future::join_all;
use serde_json::{Value, json};

async fn orders(vendor: &Vendor) -> Host {
    let routes = format!(
        "
        orders:
          destination: {vendor}
          policy: token-refresh
          retry: {{ max_attempts: 3, min_delay: 30ms, max_delay: 100ms, jitter: none }}
        "
    );
    Host::start(&routes).await
}

/// Answers the first attempt of every message with what its path says, and later ones with 200.
fn first_as_the_path_says(request: &Received) -> Reply {
    match request.path().trim_start_matches('/').parse() {
        Ok(code) if request.header("backstop-attempt") == "1" => status(code),
        Err(_) if request.header("backstop-attempt") == "1" => nothing(),
        _ => ok(),
    }
}

#[tokio::test]
async fn async_retry_what_may_pass_is_tried_again() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(first_as_the_path_says);
    let host = orders(&vendor).await;
    for case in ["408", "409", "429", "500", "501", "503", "599", "no-answer"] {
        let id = host.accept(&format!("/r/orders/{case}"), case).await;
        let message = host.until(&id, "delivered").await;
        assert_eq!(message["attempts"], 2, "{case}: {message}");
    }
}

#[tokio::test]
async fn async_retry_any_answer_with_a_retry_after_is_tried_again() {
    let vendor = Vendor::answering([status(404).header("retry-after", 0), ok()]).await;
    let host = orders(&vendor).await;
    let id = host.accept("/r/orders", "").await;
    assert_eq!(host.until(&id, "delivered").await["attempts"], 2);
}

#[tokio::test]
async fn async_retry_every_attempt_is_one_line_of_the_log() {
    let vendor = Vendor::answering([status(503), ok()]).await;
    let host = orders(&vendor).await;
    let id = host.accept("/r/orders", "").await;
    host.until(&id, "delivered").await;
    let lines = eventually("two lines", async || Some(host.log_lines(&id)).filter(|lines| lines.len() == 2)).await;
    let line: Value = serde_json::from_str(&lines[0]).expect("a line of JSON");
    let shown = ["route", "message_id", "attempt", "outcome", "verdict", "reason", "delay_ms"].map(|name| &line[name]);
    let expected = json!(["orders", id, 1, "503 Service Unavailable", "retry", "server failure", 30]);
    assert_eq!(json!(shown), expected, "{line}");
}

#[tokio::test]
async fn async_retry_what_will_not_pass_is_a_dead_letter_at_once() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(first_as_the_path_says);
    let host = orders(&vendor).await;
    for case in ["400", "401", "403", "404", "410", "422"] {
        let id = host.accept(&format!("/r/orders/{case}"), case).await;
        assert_eq!(host.until(&id, "dead").await["attempts"], 1, "{case}");
    }
}

#[tokio::test]
async fn async_retry_a_retry_after_is_never_undercut_and_holds_the_whole_destination() {
    let vendor = Vendor::answering([status(429).header("retry-after", 2), ok()]).await;
    let host = orders(&vendor).await;
    host.accept("/r/orders/first", "").await;
    eventually("the hold", async || host.admin("/v1/holds").await["holds"][0].is_object().then_some(())).await;
    for n in 0..5 {
        host.accept(&format!("/r/orders/{n}"), "").await;
    }
    let received = vendor.receives(7).await;
    let early: Vec<_> = received[1..].iter().filter(|r| r.at - received[0].at < Duration::from_secs(2)).collect();
    assert!(early.is_empty(), "asked for two seconds of quiet at {:?}: {early:?}", received[0].at);
}

#[tokio::test]
async fn async_retry_a_retry_after_concerns_one_message_if_the_policy_says_so() {
    let vendor = Vendor::answering([ok()]).await;
    vendor.answers_at("/first", [status(429).header("retry-after", 600)]);
    let routes = format!(
        "
        orders:
          destination: {vendor}
          policy: vendor-codes
          policy_config: {{ rules: [{{ status: 429, verdict: retry, scope: message }}] }}
        "
    );
    let host = Host::start(&routes).await;
    let first = host.accept("/r/orders/first", "").await;
    host.until(&first, "queued").await;
    let second = host.accept("/r/orders/second", "").await;
    host.until(&second, "delivered").await;
    assert_eq!(host.message(&first).await["state"], "queued");
}

/// A vendor that takes only tokens `fresh`, and calls any other expired; its token endpoint at `/token` gives `tokens`.
async fn guarded_vendor(tokens: &[&str]) -> (Vendor, Host) {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(|request| match request.header("authorization").as_str() {
        "Bearer fresh" => ok(),
        _ => status(401).header("www-authenticate", r#"Bearer error="invalid_token""#),
    });
    let token = |token: &&str| json(200, &json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 }));
    vendor.answers_at("/token", tokens.iter().map(token));
    let routes = format!(
        "
        orders:
          destination:
            url: {vendor}/api
            auth:
              oauth2: {{ token_url: '{vendor}/token', client_id: us, client_secret: hush }}
          policy: token-refresh
          retry: {{ max_attempts: 3, min_delay: 30ms, max_delay: 100ms, jitter: none }}
        "
    );
    let host = Host::start(&routes).await;
    (vendor, host)
}

#[tokio::test]
async fn async_retry_an_expired_token_is_renewed_once_however_many_messages_ask() {
    let (vendor, host) = guarded_vendor(&["stale", "fresh"]).await;
    let ids = join_all((0..20).map(|n| host.accept("/r/orders", n.to_string()))).await;
    for id in &ids {
        host.until(id, "delivered").await;
    }
    assert_eq!(vendor.received_at("/token").len(), 2, "one token at first, and one fresh one");
}

#[tokio::test]
async fn async_retry_a_fresh_token_that_is_refused_too_is_an_ordinary_failure() {
    let (vendor, host) = guarded_vendor(&["stale"]).await;
    let id = host.accept("/r/orders", "").await;
    let message = host.until(&id, "dead").await;
    let transitions: Vec<_> = (0..3).map(|n| message["journal"][n]["transition"].clone()).collect();
    assert_eq!(transitions, ["retry", "retry", "dead_letter"], "{message}");
    assert_eq!(message["journal"][0]["delay_ms"], 0, "at once with a fresh token");
    assert!(message["journal"][1]["clamped"].to_string().contains("no fresh credentials"), "{message}");
    assert_eq!(vendor.received_at("/token").len(), 2, "one token at first, and one fresh one");
}

#[tokio::test]
async fn async_retry_exhausted_a_message_is_a_dead_letter_that_can_be_redriven_or_discarded() {
    let vendor = Vendor::answering([status(503)]).await;
    let host = orders(&vendor).await;
    let (first, second) = (host.accept("/r/orders/a", "one").await, host.accept("/r/orders/b", "two").await);
    for id in [&first, &second] {
        assert_eq!(host.until(id, "dead").await["attempts"], 3);
    }
    let listed = host.cli(&["dead", "list", "--route", "orders"]).await;
    assert!(listed.contains(&first) && listed.contains(&second) && listed.contains("attempts exhausted"), "{listed}");
    let shown = host.cli(&["dead", "show", &first]).await;
    assert!(shown.contains("503") && shown.contains("one"), "{shown}");

    vendor.now_answers([ok()]);
    assert_eq!(host.cli(&["dead", "redrive", &first]).await, "1 redriven\n");
    assert_eq!(host.until(&first, "delivered").await["attempts"], 4, "the journal goes on");
    for done in ["redrive", "discard"] {
        let refused = host.try_cli(&["dead", done, "--all", "--state", "dead", "--state", "queued"]).await;
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && why.contains("that is queued, only those that are"), "{why}");
    }
    assert_eq!(host.cli(&["dead", "discard", "--route", "orders"]).await, "1 discarded\n");
    assert_eq!(host.message(&second).await["state"], "discarded");
    assert_eq!(host.cli(&["dead", "list"]).await, "no messages fit\n");
}

async fn impatient(vendor: &Vendor) -> Host {
    let routes = format!(
        "
        orders:
          destination: {vendor}
          mode: sync_then_async
          sync_attempts: 2
          retry: {{ max_attempts: 5, min_delay: 30ms, max_delay: 100ms, jitter: none }}
        "
    );
    Host::start(&routes).await
}

#[tokio::test]
async fn async_retry_sync_then_async_answers_at_once_what_goes_well() {
    let vendor = Vendor::answering([status(503), ok().body("took it")]).await;
    let host = impatient(&vendor).await;
    let answer = host.post("/r/orders", "").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "took it"));
    assert_eq!(host.admin("/v1/messages").await, json!({ "messages": [] }));
}

#[tokio::test]
async fn async_retry_sync_then_async_keeps_what_may_still_pass_and_delivers_it() {
    let vendor = Vendor::answering([status(503), status(503), status(503), ok()]).await;
    let host = impatient(&vendor).await;
    let id = host.accept("/r/orders", "mine").await;
    let message = host.until(&id, "delivered").await;
    assert_eq!(message["attempts"], 4, "those made while the caller waited count: {message}");
    assert!(vendor.received().iter().all(|request| request.header("backstop-message-id") == id));
}
