//! Power cuts. What was answered 202 is never lost; what is repeated carries the same id.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_tests::{Gate, Host, Vendor, black_hole, eventually, ok, status};
use futures_util::StreamExt as _;
use futures_util::stream;

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

#[tokio::test]
async fn crash_in_the_middle_of_a_thousand_messages_loses_none() {
    // Every third message fails at first, every tenth for good.
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(|request| match request.text().parse::<u32>() {
        Ok(n) if n % 10 == 0 => status(400),
        Ok(n) if n % 3 == 0 && request.header("backstop-attempt") == "1" => status(503),
        _ => ok(),
    });
    let routes = format!(
        "
        orders:
          destination: {vendor}
          concurrency: 8
          retry: {{ max_attempts: 20, min_delay: 20ms, max_delay: 200ms }}
        "
    );
    let mut host = Host::start(&routes).await;

    let accepted_so_far = AtomicUsize::new(0);
    let sending = stream::iter(0..1000_u32)
        .map(async |n| {
            let id = host.try_accept("/r/orders", n.to_string()).await?;
            accepted_so_far.fetch_add(1, Ordering::Relaxed);
            Some((n.to_string(), id))
        })
        .buffer_unordered(32)
        .filter_map(async |accepted| accepted)
        .collect::<BTreeMap<_, _>>();
    let cut = async {
        eventually("half of them to be accepted", async || {
            (accepted_so_far.load(Ordering::Relaxed) >= 500).then_some(())
        })
        .await;
        host.signal("KILL").await;
    };
    let (accepted, ()) = tokio::join!(sending, cut);
    assert!((500..1000).contains(&accepted.len()), "the power went in the middle: {}", accepted.len());
    host.exited().await;
    let before_the_cut = vendor.received().len();

    host.restart().await;
    for (n, id) in &accepted {
        let ended = if n.parse::<u32>().is_ok_and(|n| n % 10 == 0) { "dead" } else { "delivered" };
        host.until(id, ended).await;
    }
    // Accepted, though the power went before the caller heard of it: those end as well, under ids of their own.
    eventually("nothing to be left", async || (host.messages("queued,in_flight").await.is_empty()).then_some(())).await;
    assert!(vendor.received().len() > before_the_cut, "something was still to be done");
    for request in vendor.received() {
        if let Some(id) = accepted.get(&request.text()) {
            assert_eq!(&request.header("backstop-message-id"), id, "a repeat is the same message");
        }
    }
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
