//! Vendors that answer with anything but HTTP as it should be. Nothing is lost by it, and the host stays up.

use backstop_tests::{Host, Reply, Vendor, black_hole, garbage, half_response, huge, nothing, ok, status};

async fn host(vendor: &Vendor) -> Host {
    let routes = format!(
        "
        queued:
          destination: {{ url: {vendor}, timeout: 1s }}
          retry: {{ max_attempts: 2, min_delay: 10ms, max_delay: 10ms }}
        waited-for:
          destination: {{ url: {vendor}, timeout: 30s }}
          mode: sync
          retry: {{ max_attempts: 1 }}
        "
    );
    Host::start(&routes).await
}

/// The first attempt meets `reply`, which is this fault; the second one gets through.
async fn is_a_fault_and_tried_again(reply: Reply, fault: &str) {
    let vendor = Vendor::answering([reply, ok()]).await;
    let host = host(&vendor).await;
    let id = host.accept("/r/queued", "{}").await;
    let message = host.until(&id, "delivered").await;
    let outcome = &message["journal"][0]["outcome"];
    assert_eq!((&outcome["fault"], outcome.get("status")), (&fault.into(), None), "{message}");
    assert!(outcome["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{outcome}");
}

#[tokio::test]
async fn bad_vendor_garbage_is_a_protocol_fault() {
    is_a_fault_and_tried_again(garbage(), "protocol").await;
}

#[tokio::test]
async fn bad_vendor_half_a_response_to_a_policy_that_reads_it_is_a_reset() {
    let vendor = Vendor::answering([half_response(), ok()]).await;
    let host = Host::start(&format!(
        "
        queued:
          destination: {vendor}
          policy: vendor-codes
          policy_config: {{ rules: [{{ status: 400, body_contains: x, verdict: drop }}] }}
          retry: {{ max_attempts: 2, min_delay: 10ms, max_delay: 10ms }}
        "
    ))
    .await;
    let id = host.accept("/r/queued", "{}").await;
    let message = host.until(&id, "delivered").await;
    assert_eq!(message["journal"][0]["outcome"]["fault"], "reset", "{message}");
}

#[tokio::test]
async fn bad_vendor_half_a_response_is_never_given_to_a_caller_as_a_whole_one() {
    let vendor = Vendor::answering([half_response()]).await;
    let host = host(&vendor).await;
    let answer = host.post("/r/waited-for", "{}").await;
    assert_eq!((answer.status, &answer.json()["type"]), (502, &"urn:backstop:problem:no-answer".into()));
    assert_eq!(host.messages("dead").await.len(), 1, "and the request is kept");
}

#[tokio::test]
async fn bad_vendor_a_closed_connection_is_a_reset() {
    is_a_fault_and_tried_again(nothing(), "reset").await;
}

#[tokio::test]
async fn bad_vendor_silence_is_a_timeout() {
    is_a_fault_and_tried_again(black_hole(), "timeout").await;
}

#[tokio::test]
async fn bad_vendor_nobody_there_is_a_failed_connection() {
    let gone = Vendor::answering([ok()]).await.to_string();
    let routes =
        format!("queued:\n  destination: {gone}\n  retry: {{ max_attempts: 2, min_delay: 10ms, max_delay: 10ms }}");
    let host = Host::start(&routes).await;
    let id = host.accept("/r/queued", "{}").await;
    assert_eq!(host.until(&id, "dead").await["journal"][0]["outcome"]["fault"], "connect");
}

#[tokio::test]
async fn bad_vendor_of_a_hundred_megabytes_no_more_is_read_than_anyone_wants() {
    let vendor = Vendor::answering([huge(100 << 20)]).await;
    let host = host(&vendor).await;
    let id = host.accept("/r/queued", "{}").await;
    assert_eq!(host.until(&id, "delivered").await["attempts"], 1, "a 200 is a 200");
    let answer = host.post("/r/waited-for", "{}").await;
    assert_eq!((answer.status, answer.body.len() < 1024), (502, true), "a caller gets all of an answer, or none");
    let sent = vendor.huge_bytes_sent();
    assert!(sent < 40 << 20, "the rest is not read: the vendor got rid of {sent} bytes in two answers");
    assert!(host.peak_memory_kib() < 300 << 10, "{} KiB", host.peak_memory_kib());
}

#[tokio::test]
async fn bad_vendor_a_redirect_is_not_followed() {
    let elsewhere = Vendor::answering([ok()]).await;
    let vendor = Vendor::answering([status(307).header("location", &elsewhere)]).await;
    let host = host(&vendor).await;
    let id = host.accept("/r/queued", "{}").await;
    assert_eq!(host.until(&id, "dead").await["reason"], "redirects are not followed");
    assert!(elsewhere.received().is_empty());
}
