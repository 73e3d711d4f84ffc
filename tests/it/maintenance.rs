//! The clearest single wish of users of such systems: 5xx → after 2 s, 429 → after 1 min, a 400 whose body says
//! *maintenance* → after 10 min, any other 4xx → never. Here with shorter times, and nothing but YAML.

use std::time::Duration;

use backstop_tests::{Host, Reply, Vendor, ok, status};

async fn table(vendor: &Vendor) -> Host {
    let routes = format!(
        r#"
        billing:
          destination: {vendor}
          policy: vendor-codes
          policy_config:
            rules:
              - {{ status: 5xx, verdict: retry, after: 100ms }}
              - {{ status: 429, verdict: retry, after: 200ms }}
              - {{ status: 400, body_contains: maintenance, verdict: retry, after: 300ms, reason: vendor in maintenance }}
              - {{ status: 4xx, verdict: dead_letter, reason: "refused for good" }}
          retry: {{ max_attempts: 5, min_delay: 1ms, max_delay: 24h }}
        "#
    );
    Host::start(&routes).await
}

async fn is_tried_again_after(reply: Reply, delay: Duration) {
    let vendor = Vendor::answering([reply, ok()]).await;
    let host = table(&vendor).await;
    let id = host.accept("/r/billing", "").await;
    let message = host.until(&id, "delivered").await;
    assert_eq!(message["journal"][0]["delay_ms"], u64::try_from(delay.as_millis()).expect("a short delay"));
    let received = vendor.received();
    assert!(received[1].at - received[0].at >= delay, "{received:?}");
}

#[tokio::test]
async fn maintenance_a_server_failure_is_tried_again_soon() {
    is_tried_again_after(status(502), Duration::from_millis(100)).await;
}

#[tokio::test]
async fn maintenance_too_many_requests_are_tried_again_later() {
    is_tried_again_after(status(429), Duration::from_millis(200)).await;
}

#[tokio::test]
async fn maintenance_a_400_that_says_maintenance_is_tried_again_much_later() {
    is_tried_again_after(status(400).body("down for maintenance until noon"), Duration::from_millis(300)).await;
}

#[tokio::test]
async fn maintenance_any_other_4xx_is_never_tried_again() {
    let vendor = Vendor::answering([status(400).body("no such field")]).await;
    let host = table(&vendor).await;
    let id = host.accept("/r/billing", "").await;
    let message = host.until(&id, "dead").await;
    assert_eq!((&message["attempts"], &message["reason"]), (&1.into(), &"refused for good".into()));
    assert_eq!(vendor.received().len(), 1);
}
