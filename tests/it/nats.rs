//! NATS JetStream, both ways, at a real server: the source and the destination by themselves, and through the host.

pub(crate) mod broker;
mod destination;
mod intake;
mod source;

use std::time::Duration;

use backstop_tests::{Host, Received, Reply, Setup, Vendor, eventually, ok, status};
use futures_util::{FutureExt as _, StreamExt as _};

use broker::{Broker, STREAM};

const CONSUMER: &str = "backstop";

/// A host that takes the stream's messages to `vendor`.
async fn host(broker: &Broker, vendor: &Vendor, settle: &str, more: &str) -> Host {
    let url = broker.nats.url();
    let source = format!(
        "{{ order-events: {{ route: orders, settle: {settle}, connect: {{ wait: 100ms }},
             nats: {{ url: '{url}', stream: {STREAM}, consumer: {CONSUMER} {more} }} }} }}"
    );
    Setup::routes(&format!(
        "orders: {{ destination: '{vendor}', retry: {{ max_attempts: 9, min_delay: 50ms, max_delay: 50ms, jitter: none }} }}"
    ))
    .setting("sources", &source)
    .start()
    .await
}

async fn nothing_left(broker: &Broker) {
    eventually("everything to be settled", async || (broker.left(CONSUMER).await? == (0, 0)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_message_of_the_stream_is_delivered_by_its_route() {
    let (broker, vendor) = (Broker::start().await, Vendor::answering([status(503), ok()]).await);
    broker.publish("first").await;
    let host = host(&broker, &vendor, "on_store", "").await;
    let received = vendor.receives(2).await;
    nothing_left(&broker).await;
    for (attempt, request) in received.iter().enumerate() {
        assert_eq!(request.text(), "first");
        assert_eq!(request.header("idempotency-key"), "\"first\"");
        assert_eq!(request.header("broker-subject"), "orders.created");
        assert_eq!(request.header("backstop-attempt"), (attempt + 1).to_string());
    }
    eventually("the message to be delivered", async || (host.messages("delivered").await.len() == 1).then_some(()))
        .await;
    assert_eq!(host.admin("/v1/sources").await["sources"][0]["source"], "order-events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_the_stream_keeps_a_message_until_it_is_delivered() {
    let (broker, vendor) = (Broker::start().await, Vendor::answering([status(503), status(503), ok()]).await);
    broker.publish("first").await;
    let host = host(&broker, &vendor, "on_delivery", "").await;
    let received = vendor.receives(3).await;
    nothing_left(&broker).await;
    for pair in received.windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(50), "the policy's delay is kept");
    }
    assert!(host.messages("delivered,queued,in_flight,dead").await.is_empty(), "nothing is stored of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_message_that_fails_at_its_last_delivery_is_our_dead_letter() {
    fn never(_: &Received) -> Reply {
        status(503)
    }
    let (broker, vendor) = (Broker::start().await, Vendor::answering([]).await);
    vendor.answers_by(never);
    broker.publish("first").await;
    let host = host(&broker, &vendor, "on_delivery", ", max_deliver: 3").await;
    let dead = eventually("a dead letter", async || host.messages("dead").await.into_iter().next()).await;
    nothing_left(&broker).await;
    assert!(dead["reason"].to_string().contains("last delivery"), "{dead}");
    assert_eq!(vendor.received().len(), 3);
}

/// A message past its last delivery is told of by nobody: the server forgets it only once our dead letter is on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_while_the_store_is_away_a_message_that_failed_for_good_stays_the_servers() {
    let (broker, vendor) = (Broker::start().await, Vendor::answering([status(400)]).await);
    let mut terminated = broker.told("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>").await;
    let host = host(&broker, &vendor, "on_delivery", "").await;
    let (file, aside) = (host.place().path("backstop.db"), host.place().path("aside.db"));
    std::fs::rename(&file, &aside).expect("the store's file");
    broker.publish("first").await;
    vendor.receives(1).await;
    // More than one try: whatever the server was to be told, it has been told by now.
    eventually("the host to fail at writing it down", async || {
        (host.log_lines("cannot write down how a message ended").len() > 1).then_some(())
    })
    .await;
    assert_eq!(broker.left(CONSUMER).await, Some((1, 0)), "it is the server's, unsettled");
    assert!(terminated.next().now_or_never().is_none(), "and not given up");

    std::fs::rename(&aside, &file).expect("the store's file");
    let dead = eventually("the dead letter", async || host.messages("dead").await.into_iter().next()).await;
    assert_eq!(dead["reason"], "refused by the destination");
    nothing_left(&broker).await;
    eventually("the server to be told", async || terminated.next().now_or_never()).await;
    assert_eq!(vendor.received().len(), 1, "and it was attempted once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_route_delivers_to_a_stream_once_it_confirms() {
    let broker = Broker::start().await;
    let url = broker.nats.url();
    let host = Host::start(&format!(
        "
        events: {{ destination: '{url}/orders.created' }}
        nowhere: {{ destination: '{url}/elsewhere', retry: {{ max_attempts: 1 }} }}
        "
    ))
    .await;
    let id = host.accept("/r/events", "hello").await;
    host.until(&id, "delivered").await;
    let message = broker.jetstream.get_stream(STREAM).await.expect("the stream").get_raw_message(1).await.expect("it");
    assert_eq!(&message.payload[..], b"hello");
    assert_eq!(message.headers.get("Nats-Msg-Id").map(ToString::to_string), Some(id));

    let nowhere = host.accept("/r/nowhere", "hello").await;
    let dead = host.until(&nowhere, "dead").await;
    assert_eq!(dead["journal"][0]["outcome"]["status"], 503, "{dead}");

    let shown = host.place().run(&["check", "-c", "backstop.yaml"]).await;
    assert!(shown.status.success(), "{shown:?}");
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains(&format!("127.0.0.1:{}/orders.created", broker.nats.port())), "{shown}");
    assert!(!shown.contains("w0rd"), "the password is not shown: {shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_source_that_gives_up_says_so_and_harms_nothing_else() {
    let vendor = Vendor::answering([ok()]).await;
    let host = Setup::routes(&format!("orders: {{ destination: '{vendor}' }}"))
        .setting(
            "sources",
            "{ gone: { route: orders, connect: { retries: 1, wait: 100ms },
               nats: { url: 'nats://bob:s3cret@127.0.0.1:9', stream: S, consumer: c } } }",
        )
        .start()
        .await;
    let why = host.source_until("gave_up").await["last_error"]["why"].to_string();
    assert!(why.contains("gone") && why.contains("2 times"), "{why}");
    assert!(!host.log().contains("s3cret"));
    let id = host.accept("/r/orders", "").await;
    host.until(&id, "delivered").await;
}
