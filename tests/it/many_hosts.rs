//! Three hosts share one Postgres. Each message is one host's at a time, and what a host leaves behind is taken over.

use std::collections::BTreeSet;
use std::time::Duration;

use backstop_tests::{Gate, Host, Load, Postgres, Setup, Vendor, eventually, ok};

use crate::lanes::accept_in;

const CALLERS: usize = 6;
const CONCURRENCY: usize = 8;

/// A lease that no stall of a busy machine outlasts, and one whose end can be waited for.
const LONG: &str = "30s";
const SHORT: &str = "2s";

async fn host(vendor: &Vendor, store: &str, lease: &str) -> Host {
    let routes = format!(
        "
        orders:
          destination: {vendor}
          concurrency: {CONCURRENCY}
          retry: {{ max_attempts: 20, min_delay: 20ms, max_delay: 200ms }}
        "
    );
    Setup::routes(&routes).setting("store", store).setting("lease", lease).start().await
}

async fn three_hosts(lease: &str) -> (Postgres, Vendor, [Host; 3]) {
    let (postgres, vendor) = (Postgres::start(), Vendor::answering([]).await);
    // Slow enough that every host has something on its way at any moment.
    vendor.answers_by(|request| Load::answer(request).after(Duration::from_millis(50)));
    let store = postgres.database();
    let host = async || host(&vendor, &store, lease).await;
    let hosts = [host().await, host().await, host().await];
    (postgres, vendor, hosts)
}

/// Waits until so many more messages are accepted.
async fn accepts(load: &Load, more: usize) {
    let goal = load.accepted() + more;
    eventually("messages to be accepted", async || (load.accepted() >= goal).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hosts_share_the_work_and_no_message_is_two_hosts_at_once() {
    let (_postgres, vendor, [one, two, three]) = three_hosts(LONG).await;
    let load = Load::on("/r/orders");
    load.while_sending(&[&one, &two, &three], CALLERS, accepts(&load, 600)).await;
    let audit = load.audit(&one, &vendor).await;
    audit.one_attempt_at_a_time();
    assert_eq!(audit.interrupted, 0, "nothing was taken from who held it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hosts_one_killed_under_load_is_taken_over_from() {
    let (_postgres, vendor, [one, two, mut three]) = three_hosts(SHORT).await;
    let load = Load::on("/r/orders");
    let cut = async {
        accepts(&load, 300).await;
        three.signal("KILL").await;
    };
    load.while_sending(&[&one, &two, &three], CALLERS, cut).await;
    three.exited().await;
    // The others go on as before, and have what it left once its leases have run out.
    load.while_sending(&[&one, &two], CALLERS, accepts(&load, 300)).await;
    let audit = load.audit(&one, &vendor).await;
    audit.one_attempt_at_a_time();
    assert!(audit.interrupted > 0, "it left something behind");
    // As many again as it attempts at once may be over and on their way to the disk.
    assert!(audit.interrupted <= 2 * CONCURRENCY, "more was repeated than it had on its way: {}", audit.interrupted);
}

/// A message that comes to one host is delivered by another when the first is at its limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hosts_a_backlog_of_one_is_worked_off_by_all() {
    let (_postgres, vendor, [one, two, three]) = three_hosts(LONG).await;
    vendor.answers_by(|_| backstop_tests::ok().after(Duration::from_millis(300)));
    let load = Load::on("/r/orders");
    load.send_all(&one, 300, CALLERS).await;
    let delivers = async |host: &Host| {
        eventually("a delivery by every host", async || {
            let routes = host.admin("/v1/routes").await;
            (routes["routes"][0]["since_start"]["delivered"].as_u64() > Some(0)).then_some(())
        })
        .await;
    };
    for host in [&one, &two, &three] {
        delivers(host).await;
    }
    eventually("the backlog to be worked off", async || {
        one.messages("queued,in_flight").await.is_empty().then_some(())
    })
    .await;
    let ids: BTreeSet<String> = vendor.received().iter().map(|request| request.header("backstop-message-id")).collect();
    let sent = load.accepted();
    assert_eq!((ids.len(), vendor.received().len()), (sent, sent), "each once");
}

/// What waits behind another message of its order goes on as soon as that one ends, whichever host accepted it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hosts_an_order_goes_on_at_a_host_that_accepted_none_of_it() {
    let (postgres, vendor, gate) = (Postgres::start(), Vendor::answering([]).await, Gate::closed());
    let held = gate.clone();
    vendor.answers_by(move |_| ok().held_by(&held));
    let routes = format!("orders: {{ destination: '{vendor}', order_by: 'header:x-key' }}");
    let store = postgres.database();
    let start = async || Setup::routes(&routes).setting("store", &store).setting("lease", "1s").start().await;
    let (mut one, two) = (start().await, start().await);
    let mut ids = Vec::new();
    for number in 0..30 {
        ids.push(accept_in(&one, "orders", "k", &number.to_string()).await);
    }
    one.signal("KILL").await;
    one.exited().await;
    gate.open();
    // At one message for each scan, which is every 5 s, this would take longer than is waited for.
    two.until(&ids[29], "delivered").await;
    let mut numbers: Vec<u32> =
        vendor.received().iter().map(|request| request.text().parse().expect("a number")).collect();
    numbers.dedup();
    assert_eq!(numbers, (0..30).collect::<Vec<_>>());
}
