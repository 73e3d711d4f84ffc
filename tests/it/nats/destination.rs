//! The destination.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream;
use backstop::clock::SystemClock;
use backstop::dispatch::nats::{Publication, Published, Publisher, Target};
use backstop::message::Fault;
use http::HeaderMap;

use super::broker::{Broker, STREAM};
use backstop_tests::eventually;
use backstop_tests::nats::Stop;

async fn publish(publisher: &Publisher, target: &str, id: &str, body: &str) -> Published {
    let target = Target::parse(target).unwrap();
    let headers: HeaderMap =
        [(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"))].into_iter().collect();
    let within = Duration::from_secs(10);
    let body = body.to_owned().into();
    publisher.publish(Publication { target: &target, message_id: id, headers: &headers, body, within }).await
}

fn publisher() -> Publisher {
    Publisher::new(Arc::new(SystemClock))
}

fn confirmed(duplicate: bool, sequence: u64) -> Published {
    Published::Confirmed { duplicate, stream: STREAM.into(), sequence }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_message_counts_once_the_stream_has_it_and_a_repeat_is_known() {
    let broker = Broker::start().await;
    let (publisher, target) = (publisher(), format!("{}/orders.created", broker.nats.url()));
    assert_eq!(publish(&publisher, &target, "id-1", "hello").await, confirmed(false, 1));
    assert_eq!(publish(&publisher, &target, "id-1", "hello").await, confirmed(true, 1));
    assert_eq!(publish(&publisher, &target, "id-2", "hello").await, confirmed(false, 2));

    let kept = broker.jetstream.get_stream(STREAM).await.unwrap().get_raw_message(1).await.unwrap();
    let header = |name: &str| kept.headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(kept.payload, "hello");
    assert_eq!(header("Nats-Msg-Id").as_deref(), Some("id-1"));
    assert_eq!(header("content-type").as_deref(), Some("text/plain"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_subject_without_a_stream_has_an_outcome_of_its_own() {
    let broker = Broker::start().await;
    let target = format!("{}/nowhere.at.all", broker.nats.url());
    assert_eq!(publish(&publisher(), &target, "id", "hello").await, Published::NoStream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_what_the_stream_refuses_is_told_with_its_code() {
    let broker = Broker::start().await;
    let full = stream::Config {
        name: "SMALL".into(),
        subjects: vec!["small".into()],
        max_messages: 1,
        max_message_size: 200,
        discard: stream::DiscardPolicy::New,
        ..Default::default()
    };
    broker.jetstream.create_stream(full).await.unwrap();
    let (publisher, target) = (publisher(), format!("{}/small", broker.nats.url()));
    let refused = |published| match published {
        Published::Refused { status, code, text } => (status, code, text),
        other => panic!("{other:?}"),
    };
    // Errors 10054 and 10077 of the server.
    let (status, code, text) = refused(publish(&publisher, &target, "long", &"x".repeat(300)).await);
    assert_eq!((status, code), (400, 10054), "{text}");
    publish(&publisher, &target, "first", "fits").await;
    let (status, code, text) = refused(publish(&publisher, &target, "second", "fits").await);
    assert_eq!((status, code), (503, 10077), "{text}");
    // More than the server takes at all is not sent.
    let (status, code, text) = refused(publish(&publisher, &target, "huge", &"x".repeat(300_000)).await);
    assert_eq!((status, code), (413, 0), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_server_that_is_away_is_a_fault_and_the_connection_mends_itself() {
    let mut broker = Broker::start().await;
    let (publisher, target) = (publisher(), format!("{}/orders.created", broker.nats.url()));
    assert_eq!(publish(&publisher, &target, "id-1", "hello").await, confirmed(false, 1));
    broker.nats.stop(Stop::Kill);

    let parsed = Target::parse(&target).unwrap();
    let within = Duration::from_millis(300);
    let (headers, body) = (HeaderMap::new(), "hello".into());
    let cut = Publication { target: &parsed, message_id: "id-2", headers: &headers, body, within };
    let published = publisher.publish(cut).await;
    assert!(matches!(published, Published::Failed { .. }), "{published:?}");
    assert!(!format!("{published:?}").contains("w0rd"), "{published:?}");

    broker.nats.start_again().await;
    eventually("it is confirmed", async || {
        let published = publish(&publisher, &target, "id-2", "hello").await;
        matches!(published, Published::Confirmed { sequence: 2, .. }).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_server_that_was_never_there_and_wrong_credentials_are_told_apart() {
    let mut broker = Broker::start().await;
    let target = format!("nats://backstop:wr0ng@127.0.0.1:{}/orders.created", broker.nats.port());
    let fault = |published| match published {
        Published::Failed { fault, detail } => (fault, detail),
        other => panic!("{other:?}"),
    };
    let publisher = publisher();
    let (kind, detail) = fault(publish(&publisher, &target, "id", "hello").await);
    assert_eq!(kind, Fault::Credentials, "{detail}");
    assert!(!detail.contains("wr0ng"), "{detail}");

    broker.nats.stop(Stop::Orderly);
    let (kind, detail) = fault(publish(&publisher, &target, "id", "hello").await);
    assert_eq!(kind, Fault::Connect, "{detail}");

    // A first connection that failed is tried anew with the next attempt.
    broker.nats.start_again().await;
    let (kind, detail) = fault(publish(&publisher, &target, "id", "hello").await);
    assert_eq!(kind, Fault::Credentials, "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_many_messages_share_one_connection() {
    let broker = Broker::start().await;
    let (publisher, target) = (publisher(), format!("{}/orders.created", broker.nats.url()));
    let ids: Vec<String> = (0..50).map(|number| format!("id-{number}")).collect();
    let all = ids.iter().map(|id| publish(&publisher, &target, id, "hello"));
    let published = futures_util::future::join_all(all).await;
    assert!(published.iter().all(|one| matches!(one, Published::Confirmed { duplicate: false, .. })), "{published:?}");
    // The server numbers its clients, and a few of its own among them: fifty connections would show.
    let first = broker.jetstream.client().server_info().client_id;
    let next = broker.nats.jetstream().await.client().server_info().client_id;
    assert!(next - first < 25, "clients from {first} to {next}");
}
