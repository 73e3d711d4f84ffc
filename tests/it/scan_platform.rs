//! `scan-platform`: services that exchange scans. What is malformed or unknown is dropped without an attempt; the engine
//! is waited for 2, 4, 8 … seconds.

use backstop_tests::{Host, Vendor, ok, status};
use serde_json::json;

const SCAN: &str = r#"{"scan_id":"0190b1f4-4c5e-7aaa-8b1c-1f2e3d4c5b6a"}"#;

/// The waits are cut short by the envelope: the policy asks for 2^n seconds, and gets milliseconds.
async fn scans(vendor: &Vendor) -> Host {
    let routes = format!(
        "
        scans:
          destination: {vendor}
          policy: scan-platform
          retry: {{ max_attempts: 4, min_delay: 1ms, max_delay: 30ms }}
        "
    );
    Host::start(&routes).await
}

async fn is_dropped_unattempted(body: &'static str, reason: &str) {
    let vendor = Vendor::answering([ok()]).await;
    let host = scans(&vendor).await;
    let id = host.accept("/r/scans", body).await;
    let message = host.until(&id, "dropped").await;
    assert_eq!((&message["attempts"], &message["reason"]), (&json!(0), &json!(reason)));
    assert!(vendor.received().is_empty());
}

#[tokio::test]
async fn scan_platform_what_is_not_json_is_dropped_without_an_attempt() {
    is_dropped_unattempted("scan, please", "not JSON").await;
}

#[tokio::test]
async fn scan_platform_what_names_no_scan_is_dropped_without_an_attempt() {
    is_dropped_unattempted(r#"{"scan":7}"#, "no scan id at /scan_id").await;
}

#[tokio::test]
async fn scan_platform_a_malformed_scan_id_is_dropped_without_an_attempt() {
    is_dropped_unattempted(r#"{"scan_id":"seven"}"#, "malformed scan id at /scan_id").await;
}

#[tokio::test]
async fn scan_platform_a_scan_that_the_engine_does_not_know_is_dropped() {
    let vendor = Vendor::answering([status(404)]).await;
    let host = scans(&vendor).await;
    let id = host.accept("/r/scans", SCAN).await;
    assert_eq!(host.until(&id, "dropped").await["reason"], "unknown scan");
    assert_eq!(vendor.received().len(), 1);
}

#[tokio::test]
async fn scan_platform_the_engine_is_waited_for_two_to_the_n_seconds() {
    let vendor = Vendor::answering([status(500), status(429), status(503), ok()]).await;
    let host = scans(&vendor).await;
    let id = host.accept("/r/scans", SCAN).await;
    let message = host.until(&id, "delivered").await;
    let asked: Vec<_> = (0..3).map(|n| message["journal"][n]["clamped"][0].clone()).collect();
    assert_eq!(asked, ["2s", "4s", "8s"].map(|wait| json!(format!("delay {wait} lowered to max_delay"))));
}
