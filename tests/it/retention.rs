//! What has ended goes when its time is over, and the file stops growing.

use backstop_tests::{Host, Load, Setup, Vendor, eventually};

async fn host(vendor: &Vendor, keep: &str) -> Host {
    let routes = format!(
        "
        orders:
          destination: {vendor}
          retry: {{ max_attempts: 20, min_delay: 20ms, max_delay: 200ms }}
          dead_letter: {{ keep: {keep} }}
          idempotency: {{ keep: {keep} }}
        "
    );
    Setup::routes(&routes).setting("keep_finished", keep).start().await
}

/// How many messages there are, of whatever state.
async fn kept(host: &Host) -> usize {
    let listed = host.admin("/v1/messages?limit=1000").await;
    listed["messages"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn retention_what_has_ended_goes_when_its_time_is_over() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(Load::answer);
    let host = host(&vendor, "1s").await;
    let load = Load::on("/r/orders");
    load.send_all(&host, 300, 4).await;
    eventually("delivered messages, dead letters and their journals to go", async || {
        (kept(&host).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn retention_a_steady_stream_does_not_make_the_file_grow_for_ever() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(|_| backstop_tests::ok());
    let host = host(&vendor, "1s").await;
    let load = Load::on("/r/orders");
    let size = || std::fs::metadata(host.place().path("backstop.db")).map_or(0, |file| file.len());
    let mut sizes = Vec::new();
    for _ in 0..8 {
        load.send_all(&host, 750, 4).await;
        eventually("most of them to go", async || (kept(&host).await < 100).then_some(())).await;
        sizes.push(size());
    }
    // The first rounds make room for what is there at once, which is more on a busy machine; the later ones use it again.
    // Were nothing given back, it would be several times as long.
    let (early, late) = (sizes[4], sizes[7]);
    assert!(late < early + early / 2, "it grows with every message: {sizes:?}");
}
