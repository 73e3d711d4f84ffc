//! Sources as who watches over them sees them: whether each takes anything just now, since when, and why not.

use std::sync::Arc;

use backstop_tests::rabbitmq::desk::Desk;
use backstop_tests::{Host, RabbitMq, Setup, Vendor, nats, rabbitmq};
use lapin::BasicProperties;

use crate::nats::broker::{Broker, STREAM};

/// A host with one source, which tries to connect ten times a second.
async fn host(vendor: &Vendor, broker: &str) -> Host {
    let source = format!("{{ pages: {{ route: pages, connect: {{ wait: 100ms }}, {broker} }} }}");
    Setup::routes(&format!("pages: {{ destination: '{vendor}' }}")).setting("sources", &source).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_a_broker_that_is_away_is_seen_to_be_until_it_is_back() {
    let (broker, vendor) = (Arc::new(RabbitMq::start()), Vendor::answering([]).await);
    let desk = Desk::at(&broker.url()).await;
    desk.quorum_queue("pages", &[]).await;
    let host = host(&vendor, &format!("rabbitmq: {{ url: '{}', queue: pages }}", broker.url())).await;
    let connected = host.source_until("connected").await;
    assert!(connected["last_error"].is_null(), "{connected}");
    desk.publish("", "pages", b"page", BasicProperties::default().with_delivery_mode(2)).await;
    vendor.receives(1).await;
    assert_eq!(host.source_until("connected").await["brought"]["stored"], 1);

    let stops = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || stops.stop(rabbitmq::Stop::InOrder)).await.expect("it stops");
    let away = host.source_until("away").await;
    assert!(away["since"].as_u64() >= connected["since"].as_u64(), "{away}");
    assert!(away["last_error"]["why"].as_str().is_some_and(|why| !why.is_empty()), "{away}");
    let starts = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || starts.start_again()).await.expect("it starts");
    let back = host.source_until("connected").await;
    assert!(back["since"].as_u64() > away["since"].as_u64(), "{back}");
    assert!(back["last_error"]["why"].is_string(), "what it was stays known: {back}");
    assert!(!back.to_string().contains(rabbitmq::PASSWORD), "{back}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_server_that_is_away_is_seen_to_be_until_it_is_back() {
    let (mut broker, vendor) = (Broker::start().await, Vendor::answering([]).await);
    let url = broker.nats.url();
    let host = host(&vendor, &format!("nats: {{ url: '{url}', stream: {STREAM}, consumer: pages }}")).await;
    let connected = host.source_until("connected").await;
    broker.publish("page").await;
    vendor.receives(1).await;

    broker.nats.stop(nats::Stop::Kill);
    let away = host.source_until("away").await;
    assert!(away["last_error"]["why"].as_str().is_some_and(|why| why.contains("lost")), "{away}");
    broker.nats.start_again().await;
    let back = host.source_until("connected").await;
    assert!(back["since"].as_u64() > connected["since"].as_u64(), "{back}");
    assert!(!back.to_string().contains("w0rd"), "{back}");
    broker.publish("another page").await;
    vendor.receives(2).await;
}
