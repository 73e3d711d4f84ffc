//! A wall clock that is set forward and back under a running host. Nothing is lost, nothing waits for longer than it
//! was to, and nothing is attempted twice at once.

use std::time::Duration;

use backstop::clock::{Clock, SystemClock};
use backstop_tests::{Gate, Host, Load, Setup, Vendor, eventually, ok, status};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

async fn host(vendor: &Vendor, delay: &str) -> Host {
    let routes = format!(
        "
        orders:
          destination: {{ url: '{vendor}', timeout: 60s }}
          concurrency: 8
          retry: {{ max_attempts: 20, max_elapsed: 365d, min_delay: {delay}, max_delay: {delay}, jitter: none }}
        "
    );
    Host::start_in(Setup::routes(&routes).place().with_a_clock_of_its_own()).await
}

#[tokio::test]
async fn clock_set_forward_and_back_under_load_loses_nothing_and_repeats_nothing() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(Load::answer);
    let host = host(&vendor, "100ms").await;
    let load = Load::on("/r/orders");
    for ahead in [0, HOUR, -HOUR, DAY, 0, 7 * DAY, -DAY] {
        host.place().set_clock(ahead);
        let goal = load.accepted() + 100;
        let sent = eventually("a hundred more", async || (load.accepted() >= goal).then_some(()));
        load.while_sending(&[&host], 4, sent).await;
    }
    let audit = load.audit(&host, &vendor).await;
    assert_eq!(audit.interrupted, 0, "no power was cut");
}

/// A retry is meant to come a while after the failure. A clock that was wrong then, and is set right since, does not
/// make it come a day later.
#[tokio::test]
async fn clock_set_back_keeps_no_retry_waiting() {
    let gate = Gate::closed();
    let vendor = Vendor::answering([status(503).held_by(&gate), ok()]).await;
    let host = host(&vendor, "2s").await;
    host.place().set_clock(DAY);
    let id = host.accept("/r/orders", "1").await;
    vendor.receives(1).await;
    gate.open();
    let message = async || host.message(&id).await;
    eventually("the first failure", async || message().await["journal"][0].is_object().then_some(())).await;
    host.place().set_clock(0);
    assert_eq!(host.until(&id, "delivered").await["attempts"], 2);
}

/// A clock set forward makes every lease look as if it had run out: the attempt under way goes on, and no other is made
/// beside it.
#[tokio::test]
async fn clock_set_forward_makes_no_second_attempt_beside_the_one_under_way() {
    let gate = Gate::closed();
    let vendor = Vendor::answering([ok().held_by(&gate)]).await;
    let host = host(&vendor, "2s").await;
    let id = host.accept("/r/orders", "1").await;
    vendor.receives(1).await;
    host.place().set_clock(DAY);
    // Every lane is looked at once in five seconds, and at once for what comes in.
    SystemClock.sleep(Duration::from_secs(6)).await;
    assert_eq!(vendor.received().len(), 1, "its attempt is under way");
    gate.open();
    let message = host.until(&id, "delivered").await;
    assert_eq!(vendor.received().len(), 1, "{message}");
    assert_eq!(message["journal"].as_array().map(Vec::len), Some(1), "{message}");
}
