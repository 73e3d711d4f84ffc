//! One power cut. What was answered 202 is never lost; what is repeated carries the same id. (For many, under load, see
//! `crash_cycles.rs`.)

use backstop_tests::{Gate, Host, Vendor, black_hole, ok};

#[tokio::test]
async fn crash_a_202_outlives_a_power_cut() {
    let gate = Gate::closed();
    let vendor = Vendor::answering([ok().held_by(&gate), ok()]).await;
    let mut host = Host::start(&format!("orders:\n  destination: {vendor}")).await;
    let id = host.accept("/r/orders", "mine").await;
    host.kill().await;
    host.restart().await;
    assert_eq!(host.until(&id, "delivered").await["id"], id);
    assert!(vendor.received().iter().all(|request| request.header("backstop-message-id") == id));
}

/// The delivery that nobody knows the outcome of is the one to be seen when an order came twice.
#[tokio::test]
async fn crash_an_interrupted_attempt_is_in_the_journal_and_not_counted() {
    let vendor = Vendor::answering([black_hole()]).await;
    let mut host = Host::start(&format!(
        "orders: {{ destination: {{ url: '{vendor}', timeout: 30s }}, retry: {{ max_attempts: 1 }} }}"
    ))
    .await;
    let id = host.accept("/r/orders", "one").await;
    vendor.receives(1).await;
    host.kill().await;
    vendor.now_answers([ok()]);
    host.restart().await;
    let message = host.until(&id, "delivered").await;
    let journal: Vec<(u64, bool)> = message["journal"]
        .as_array()
        .expect("a journal")
        .iter()
        .map(|attempt| {
            let interrupted = attempt["reason"].as_str().is_some_and(|reason| reason.starts_with("interrupted"));
            (attempt["number"].as_u64().unwrap_or_default(), interrupted)
        })
        .collect();
    assert_eq!(journal, [(1, true), (2, false)]);
    let numbers: Vec<String> = vendor.received().iter().map(|received| received.header("backstop-attempt")).collect();
    assert_eq!(numbers, ["1", "2"], "no two deliveries carry the same number");
}
