//! The database of hosts that share one goes away under load and comes back: callers are told to come again, deliveries
//! pause, and all goes on by itself.

use backstop_tests::load::Audit;
use backstop_tests::postgres::Stop;
use backstop_tests::{Host, Load, Postgres, Setup, Vendor, eventually};

const CALLERS: usize = 4;
const CONCURRENCY: usize = 8;

async fn host(vendor: &Vendor, postgres: &Postgres) -> Host {
    let routes = format!(
        "
        orders:
          destination: {vendor}
          concurrency: {CONCURRENCY}
          retry: {{ max_attempts: 20, min_delay: 20ms, max_delay: 200ms }}
        "
    );
    Setup::routes(&routes).setting("store", &postgres.database()).start().await
}

/// Waits until so many more messages are accepted.
async fn accepts(load: &Load, more: usize) {
    let goal = load.accepted() + more;
    eventually("messages to be accepted", async || (load.accepted() >= goal).then_some(())).await;
}

/// Waits until so many more callers are refused, with when to come again.
async fn refuses(load: &Load, more: usize) {
    let goal = load.refused(503).len() + more;
    eventually("callers to be refused", async || (load.refused(503).len() >= goal).then_some(())).await;
    for answer in load.refused(503) {
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stopped_and_started_again_under_load_loses_nothing() {
    let (postgres, vendor) = (Postgres::start(), Vendor::answering([]).await);
    vendor.answers_by(Load::answer);
    let host = host(&vendor, &postgres).await;
    let load = Load::on("/r/orders");
    let outages = async {
        for how in [Stop::Fast, Stop::Immediate] {
            accepts(&load, 200).await;
            postgres.stop(how);
            refuses(&load, 20).await;
            postgres.start_again();
        }
        accepts(&load, 200).await;
    };
    load.while_sending(&[&host], CALLERS, outages).await;
    let Audit { interrupted, .. } = load.audit(&host, &vendor).await;
    // A lease may run out while the database is away; more than was on its way is never repeated.
    assert!(interrupted <= 2 * CONCURRENCY, "{interrupted}");
    assert!(load.refused(500).is_empty(), "{:?}", load.refused(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_connections_cut_again_and_again_under_load_lose_nothing() {
    let (postgres, vendor) = (Postgres::start(), Vendor::answering([]).await);
    vendor.answers_by(Load::answer);
    let host = host(&vendor, &postgres).await;
    let load = Load::on("/r/orders");
    let cuts = async {
        let mut cut = 0;
        for _ in 0..20 {
            accepts(&load, 20).await;
            cut += postgres.cut_connections();
        }
        assert!(cut >= 20, "there were connections to cut: {cut}");
    };
    load.while_sending(&[&host], CALLERS, cuts).await;
    load.audit(&host, &vendor).await;
    assert!(load.refused(500).is_empty(), "{:?}", load.refused(500));
}
