//! `risk-control`: a business client calls a risk-control API that answers 200 with an error inside. The caller waits,
//! and must never be failed because the vendor is.

use std::time::Duration;

use backstop_tests::{Host, Reply, Vendor, black_hole, eventually, json, nothing, ok, status};
use serde_json::json;

const INTERVAL: Duration = Duration::from_millis(60);

/// A route as such a client would write it; a minute of theirs is milliseconds here.
async fn risk_check(vendor: &Vendor, more: &str) -> Host {
    let routes = format!(
        "
        risk-check:
          destination: {{ url: {vendor}, timeout: 1s }}
          mode: sync
          deadline: 10s
          policy: risk-control
          policy_config: {{ retryable: [InternalError] }}
          retry: {{ max_attempts: 4, min_delay: 60ms, max_delay: 60ms, jitter: none }}
          fallback: {{ status: 200, json: {{ result: pass }} }}
          {more}
        "
    );
    Host::start(&routes).await
}

fn failure(code: &str, request: &str) -> Reply {
    let error = json!({ "Code": code, "Message": "try later" });
    json(200, &json!({ "Response": { "Error": error, "RequestId": request } }))
}

fn verdict(result: &str) -> Reply {
    json(200, &json!({ "Response": { "Result": result, "RequestId": "r-0" } }))
}

#[tokio::test]
async fn risk_control_an_internal_error_inside_a_200_is_retried_at_its_interval() {
    let vendor =
        Vendor::answering([failure("InternalError", "r-1"), failure("InternalError", "r-2"), verdict("reject")]).await;
    let host = risk_check(&vendor, "").await;
    let answer = host.post("/r/risk-check/check", r#"{"user":7}"#).await;
    assert_eq!((answer.status, &answer.json()["Response"]["Result"]), (200, &json!("reject")));
    let received = vendor.received();
    assert_eq!(received.len(), 3);
    assert!(received.windows(2).all(|pair| pair[1].at - pair[0].at >= INTERVAL), "{received:?}");
}

#[tokio::test]
async fn risk_control_an_absent_error_is_accepted_and_nothing_is_stored() {
    let vendor = Vendor::answering([verdict("pass")]).await;
    let host = risk_check(&vendor, "").await;
    let answer = host.post("/r/risk-check", "{}").await;
    assert_eq!((answer.status, answer.header("backstop-state").as_str()), (200, "delivered"));
    assert_eq!(vendor.received().len(), 1);
    assert_eq!(host.admin("/v1/messages").await, json!({ "messages": [] }));
}

#[tokio::test]
async fn risk_control_exhausted_the_caller_gets_the_default_answer_and_the_request_is_found_later() {
    let vendor = Vendor::answering([failure("InternalError", "r-1f3a")]).await;
    let host = risk_check(&vendor, "").await;
    let answer = host.post("/r/risk-check", r#"{"user":7}"#).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "result": "pass" })));
    assert_eq!(vendor.received().len(), 4, "bounded: the first attempt and three retries");

    let listed = host.cli(&["messages", "list", "--state", "answered"]).await;
    assert!(listed.contains("InternalError") && listed.contains("r-1f3a"), "{listed}");
    let shown = host.cli(&["messages", "show", &answer.header("backstop-message-id")]).await;
    assert!(shown.contains(r#"{"user":7}"#) && shown.contains("try later"), "{shown}");
}

#[tokio::test]
async fn risk_control_any_other_code_is_answered_by_default_at_once() {
    let vendor = Vendor::answering([failure("AuthFailure", "r-9")]).await;
    let host = risk_check(&vendor, "").await;
    let answer = host.post("/r/risk-check", "{}").await;
    assert_eq!(answer.json(), json!({ "result": "pass" }));
    assert_eq!(vendor.received().len(), 1);
    assert_eq!(host.messages("answered").await[0]["reason"], "AuthFailure (request r-9)");
}

/// Whatever is wrong with every answer, the caller gets the default one after four attempts.
async fn passes_after_four_attempts(reply: Reply) {
    let vendor = Vendor::answering([reply]).await;
    let host = risk_check(&vendor, "").await;
    let answer = host.post("/r/risk-check", "{}").await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "result": "pass" })));
    assert_eq!(vendor.received().len(), 4);
    assert_eq!(host.messages("answered").await.len(), 1);
}

#[tokio::test]
async fn risk_control_a_wrong_structure_is_retried_and_then_answered_by_default() {
    passes_after_four_attempts(ok().body("<html>busy</html>")).await;
}

#[tokio::test]
async fn risk_control_a_timeout_is_retried_and_then_answered_by_default() {
    passes_after_four_attempts(black_hole()).await;
}

#[tokio::test]
async fn risk_control_no_answer_is_retried_and_then_answered_by_default() {
    passes_after_four_attempts(nothing()).await;
}

#[tokio::test]
async fn risk_control_the_deadline_bounds_the_wait_whatever_the_envelope_allows() {
    let vendor = Vendor::answering([failure("InternalError", "r-1")]).await;
    let routes = format!(
        "
        risk-check:
          destination: {vendor}
          mode: sync
          deadline: 400ms
          policy: risk-control
          retry: {{ max_attempts: 1000, min_delay: 50ms, max_delay: 50ms, jitter: none }}
          fallback: {{ json: {{ result: pass }} }}
        "
    );
    let host = Host::start(&routes).await;
    let watch = backstop::clock::Stopwatch::start();
    let answer = host.post("/r/risk-check", "{}").await;
    assert_eq!(answer.json(), json!({ "result": "pass" }));
    assert!(watch.elapsed() < Duration::from_secs(20), "{:?}", watch.elapsed());
    assert!((1..=8).contains(&vendor.received().len()), "{}", vendor.received().len());
    let reason = host.messages("answered").await[0]["reason"].to_string();
    assert!(reason.contains("time exhausted"), "{reason}");
}

#[tokio::test]
async fn risk_control_the_error_rate_alarm_fires_once_and_clears_once() {
    let (vendor, pager) = (Vendor::answering([failure("InternalError", "r-1")]).await, Vendor::answering([ok()]).await);
    let alarm = format!("alarm: {{ error_rate: 50%, window: 2s, min_requests: 4, notify: {pager}/alarms }}");
    let host = risk_check(&vendor, &alarm).await;
    for _ in 0..3 {
        host.post("/r/risk-check", "{}").await;
    }
    let status = host.admin("/v1/alarms").await["alarms"][0].clone();
    assert_eq!((&status["route"], &status["firing"]), (&json!("risk-check"), &json!(true)));

    vendor.now_answers([verdict("pass")]);
    eventually("the alarm to clear", async || {
        host.post("/r/risk-check", "{}").await;
        (host.admin("/v1/alarms").await["alarms"][0]["firing"] == false).then_some(())
    })
    .await;
    let notices = pager.receives(2).await;
    let events: Vec<_> =
        notices.iter().map(|notice| serde_json::from_str::<serde_json::Value>(&notice.text())).collect();
    let events: Vec<_> = events.into_iter().map(|event| event.expect("JSON")["event"].clone()).collect();
    assert_eq!(events, ["alarm.fired", "alarm.cleared"]);
    let (fired, cleared) = (host.says("alarm: ", 1).await, host.says("alarm cleared: ", 1).await);
    assert_eq!((fired.len(), cleared.len()), (1, 1), "said once each");
    assert!(fired[0].contains(r#""level":"ERROR""#), "{}", fired[0]);
    assert!(cleared[0].contains(r#""level":"INFO""#), "{}", cleared[0]);
}

/// A caller that waits for an answer gets one: never a 202 for something that would then be delivered behind its back.
#[tokio::test]
async fn risk_control_a_waiting_caller_is_never_told_that_its_request_was_queued() {
    let vendor = Vendor::answering([status(503)]).await;
    let host = Host::start(&format!(
        "
        check:
          destination: {vendor}
          mode: sync
          deadline: 60ms
          retry: {{ max_attempts: 50, min_delay: 1ms, max_delay: 60ms, jitter: full }}
        "
    ))
    .await;
    for _ in 0..100 {
        let answer = host.post("/r/check", "one").await;
        assert!([503, 504].contains(&answer.status), "its own last answer, or none in time: {answer:?}");
    }
    assert!(host.messages("queued").await.is_empty());
}
