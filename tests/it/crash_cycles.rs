//! Power cuts, again and again, at moments nobody chose: whatever was answered 202 ends as it should, and what comes
//! twice is what was on its way when the power went.

use std::time::Duration;

use backstop::clock::{Clock, SystemClock};
use backstop_tests::load::Audit;
use backstop_tests::{Host, Load, Postgres, Setup, Vendor};

/// What a host may have on its way at once, and so the most that a power cut may have repeated.
const CONCURRENCY: usize = 8;
/// Callers that send at once.
const CALLERS: usize = 4;
/// The latest moment of a power cut, counted from when the host listens.
const RUN_AT_MOST: Duration = Duration::from_millis(200);

#[tokio::test]
async fn crash_fifty_power_cuts_under_load_lose_nothing_on_sqlite() {
    power_cuts("sqlite:backstop.db", 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_ten_power_cuts_under_load_lose_nothing_on_postgres() {
    let postgres = Postgres::start();
    power_cuts(&postgres.database(), 10).await;
}

/// Cuts the power so often, and audits what is left.
async fn power_cuts(store: &str, cuts: usize) {
    let given = std::env::var("BACKSTOP_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("again with BACKSTOP_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);

    let vendor = Vendor::answering([]).await;
    vendor.answers_by(Load::answer);
    let mut host = host(&vendor, store).await;
    let load = Load::on("/r/orders");
    for cut in 0..cuts {
        let moment = RUN_AT_MOST.mul_f64(random.f64());
        if cut % 5 == 4 {
            // In the middle of a start: while the file is looked through, or what was left is taken over.
            host.kill().await;
            host.launch();
            SystemClock.sleep(moment / 4).await;
        } else {
            let cut = async {
                SystemClock.sleep(moment).await;
                host.signal("KILL").await;
            };
            load.while_sending(&[&host], CALLERS, cut).await;
        }
        host.kill().await;
        host.restart().await;
    }
    load.send_all(&host, 50, CALLERS).await;

    let Audit { interrupted, deliveries, .. } = load.audit(&host, &vendor).await;
    println!("{} accepted, {deliveries} deliveries, {interrupted} attempts interrupted", load.accepted());
    assert!(load.accepted() > cuts * 5, "there was a load: {}", load.accepted());
    assert!(interrupted > cuts / 5, "cuts that interrupt nothing prove nothing: {interrupted}");
    assert!(interrupted <= cuts * CONCURRENCY, "more was repeated than was on its way: {interrupted}");
}

async fn host(vendor: &Vendor, store: &str) -> Host {
    let routes = format!(
        "
        orders:
          destination: {vendor}
          concurrency: {CONCURRENCY}
          retry: {{ max_attempts: 20, min_delay: 20ms, max_delay: 200ms }}
        "
    );
    Setup::routes(&routes).setting("store", store).setting("lease", "2s").start().await
}
