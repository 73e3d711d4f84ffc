//! The broker goes away and comes back.

use std::collections::BTreeSet;
use std::sync::Arc;

use backstop::clock::SystemClock;
use backstop::dispatch::rabbitmq::{Exchange, Published, Publisher};
use backstop::ingress::source::{Settle, Stored};
use backstop::message::Fault;

use super::stage::{Running, Told, dialer, publish, source, until};
use backstop_tests::rabbitmq::desk::Desk;
use backstop_tests::rabbitmq::{RabbitMq, Stop};

const MESSAGES: u32 = 600;

/// Publishes messages, each until it is confirmed, while the broker is stopped and started; then all of them must have
/// been brought.
async fn nothing_is_lost(how: Stop) {
    let broker = Arc::new(RabbitMq::start());
    Desk::at(&broker.url()).await.quorum_queue("pages", &[]).await;
    // RabbitMQ 3.10 writes down only now and then, and at its end, that a quorum queue was made. One made a moment before
    // a crash has no leader afterwards, for ever: that is not what is tried here.
    broker.stop(Stop::InOrder);
    broker.start_again();
    let intake = Told::storing(|_| Stored::Yes);
    let running = Running::start(source(&broker.url(), "pages", Settle::OnStore), &intake);

    let publisher = Publisher::new(dialer(), Arc::new(SystemClock));
    let to =
        Exchange::parse(&format!("{}?routing_key=pages", broker.url()).parse().expect("a URL")).expect("an exchange");
    let load = async {
        for number in 0..MESSAGES {
            until("it is confirmed", async || publish(&publisher, &to, number).await == Published::Confirmed).await;
        }
    };
    let upheaval = async {
        until("messages flow", async || intake.brought().len() > 50).await;
        let broker = Arc::clone(&broker);
        let again = tokio::task::spawn_blocking(move || {
            broker.stop(how);
            broker.start_again();
        });
        again.await.expect("the broker is there again");
    };
    tokio::join!(load, upheaval);

    let all: BTreeSet<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    until("every message was brought", async || all.iter().cloned().eq(BTreeSet::from_iter(intake.bodies()))).await;
    running.stop().await;
    assert_eq!(Desk::at(&broker.url()).await.ready("pages").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_broker_that_is_restarted_under_load_loses_nothing() {
    nothing_is_lost(Stop::InOrder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_broker_that_crashes_under_load_loses_nothing() {
    nothing_is_lost(Stop::AtOnce).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_publisher_tells_that_the_broker_is_down_and_finds_it_again() {
    let broker = RabbitMq::start();
    Desk::at(&broker.url()).await.quorum_queue("pages", &[]).await;
    broker.stop(Stop::InOrder);
    broker.start_again();
    let publisher = Publisher::new(dialer(), Arc::new(SystemClock));
    let to =
        Exchange::parse(&format!("{}?routing_key=pages", broker.url()).parse().expect("a URL")).expect("an exchange");
    assert_eq!(publish(&publisher, &to, 0).await, Published::Confirmed);

    broker.stop(Stop::AtOnce);
    until("it is told as unreachable", async || match publish(&publisher, &to, 1).await {
        Published::Failed { fault: Fault::Connect, detail } => {
            assert!(detail.contains(&broker.port().to_string()), "{detail}");
            true
        }
        _ => false,
    })
    .await;
    broker.start_again();
    until("it is confirmed", async || publish(&publisher, &to, 2).await == Published::Confirmed).await;
}
