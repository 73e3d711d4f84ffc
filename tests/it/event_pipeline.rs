//! `event-pipeline`: the standard rule of a managed event bus. 408, 409, 429, 500, 502, 503, 504 and silence are
//! transient; whatever else is no success is persistent; one attempt allowed means one delivery.

use backstop_tests::{Host, Received, Reply, Vendor, nothing, ok, status};

const ROUTES: [&str; 2] = ["without-policy", "with-policy"];

/// One route without a policy, and one with the standard rule as a sandboxed policy: they must not differ.
async fn pipeline(vendor: &Vendor) -> Host {
    let retry = "{ max_attempts: 2, min_delay: 10ms, max_delay: 20ms }";
    let routes = format!(
        "
        without-policy:
          destination: {vendor}
          retry: {retry}
        with-policy:
          destination: {vendor}
          policy: standard
          retry: {retry}
        "
    );
    Host::start(&routes).await
}

fn as_the_path_says(request: &Received) -> Reply {
    request.path().trim_start_matches('/').parse().map_or_else(|_| nothing(), status)
}

#[tokio::test]
async fn event_pipeline_transient_failures_are_tried_again_and_then_put_aside() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(as_the_path_says);
    let host = pipeline(&vendor).await;
    for route in ROUTES {
        for case in ["408", "409", "429", "500", "502", "503", "504", "silence"] {
            let id = host.accept(&format!("/r/{route}/{case}"), "").await;
            let message = host.until(&id, "dead").await;
            assert_eq!(message["attempts"], 2, "{route} {case}");
            assert!(message["reason"].to_string().contains("attempts exhausted"), "{message}");
        }
    }
}

#[tokio::test]
async fn event_pipeline_persistent_failures_are_put_aside_at_once() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(as_the_path_says);
    let host = pipeline(&vendor).await;
    for route in ROUTES {
        for case in ["301", "400", "401", "404", "410", "418", "501", "505"] {
            let id = host.accept(&format!("/r/{route}/{case}"), "").await;
            assert_eq!(host.until(&id, "dead").await["attempts"], 1, "{route} {case}");
        }
    }
}

#[tokio::test]
async fn event_pipeline_one_attempt_means_one_delivery_and_no_retry() {
    let vendor = Vendor::answering([status(503), ok()]).await;
    let host = Host::start(&format!(
        "
        once:
          destination: {vendor}
          retry: {{ max_attempts: 1 }}
        "
    ))
    .await;
    let id = host.accept("/r/once", "").await;
    assert_eq!(host.until(&id, "dead").await["attempts"], 1);
    assert_eq!(vendor.received().len(), 1);
}
