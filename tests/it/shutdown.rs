//! SIGTERM stops intake and lets what is in flight finish; what is queued goes on at the next start.

use std::os::unix::process::ExitStatusExt as _;

use backstop_tests::{Gate, Host, Setup, Vendor, eventually, ok, status};

async fn host(vendor: &Vendor, grace: &str) -> Host {
    let routes = format!(
        "
        queued:
          destination: {vendor}
          retry: {{ min_delay: 1s, max_delay: 1s, jitter: none }}
        waited-for:
          destination: {vendor}
          mode: sync
        "
    );
    Setup::routes(&routes).setting("shutdown_grace", grace).start().await
}

async fn is_stopping(host: &Host) {
    eventually("the shutdown", async || host.log_lines("stopping").pop()).await;
}

#[tokio::test]
async fn shutdown_what_is_in_flight_finishes() {
    let gate = Gate::closed();
    let vendor = Vendor::answering([ok().body("late").held_by(&gate)]).await;
    let mut host = host(&vendor, "60s").await;
    let id = host.accept("/r/queued", "").await;
    let rest = async {
        vendor.receives(2).await;
        host.signal("TERM").await;
        is_stopping(&host).await;
        gate.open();
    };
    let (answer, ()) = tokio::join!(host.post("/r/waited-for", ""), rest);
    assert_eq!(answer.text(), "late", "whoever waits is answered");
    assert_eq!(host.exited().await.code(), Some(0));
    assert_eq!(host.log_lines(r#""unfinished":0,"queued":0"#).len(), 1);

    host.restart().await;
    assert_eq!(host.message(&id).await["state"], "delivered");
    assert_eq!(vendor.received().len(), 2, "nothing is repeated");
}

#[tokio::test]
async fn shutdown_what_is_queued_goes_on_at_the_next_start() {
    let vendor = Vendor::answering([status(503), ok()]).await;
    let mut host = host(&vendor, "10s").await;
    let id = host.accept("/r/queued", "mine").await;
    host.until(&id, "queued").await;
    host.signal("TERM").await;
    assert_eq!(host.exited().await.code(), Some(0));
    assert_eq!(host.log_lines(r#""queued":1"#).len(), 1, "it says what is left");

    host.restart().await;
    assert_eq!(host.until(&id, "delivered").await["attempts"], 2);
    assert_eq!(vendor.received()[1].text(), "mine");
}

#[tokio::test]
async fn shutdown_what_does_not_finish_in_time_is_repeated_at_the_next_start() {
    let gate = Gate::closed();
    let vendor = Vendor::answering([ok().held_by(&gate)]).await;
    let mut host = host(&vendor, "100ms").await;
    let id = host.accept("/r/queued", "").await;
    vendor.receives(1).await;
    host.signal("TERM").await;
    assert_eq!(host.exited().await.code(), Some(0));
    assert_eq!(host.log_lines(r#""unfinished":1"#).len(), 1);

    gate.open();
    host.restart().await;
    host.until(&id, "delivered").await;
    let ids: Vec<_> = vendor.received().iter().map(|request| request.header("backstop-message-id")).collect();
    assert_eq!(ids, [&*id, &*id], "at least once, under one id");
}

#[tokio::test]
async fn shutdown_a_second_signal_exits_at_once() {
    let gate = Gate::closed();
    let vendor = Vendor::answering([ok().held_by(&gate)]).await;
    let mut host = host(&vendor, "1h").await;
    host.accept("/r/queued", "").await;
    vendor.receives(1).await;
    host.signal("INT").await;
    is_stopping(&host).await;
    host.signal("INT").await;
    let status = host.exited().await;
    assert_eq!((status.code(), status.signal()), (Some(130), None));
}
