//! Coming to a subscription, and back to one.

use std::net::TcpListener;
use std::time::Duration;

use backstop::ingress::rabbitmq::{SourceError, SubscribeError};
use backstop::ingress::source::{Connect, Settle, Stored};
use lapin::BasicProperties;

use super::stage::{BROKER, Running, Told, fresh, source, until};
use backstop_tests::Knocks;
use backstop_tests::rabbitmq::PASSWORD;
use backstop_tests::rabbitmq::desk::Desk;

/// An error with everything behind it, in both forms.
fn all_of(error: &SourceError) -> String {
    let mut text = format!("{error:?} {error:#?} {error}");
    let mut behind = std::error::Error::source(error);
    while let Some(error) = behind {
        text = format!("{text}: {error}");
        behind = error.source();
    }
    text
}

fn tries(retries: u32) -> Connect {
    Connect { retries: Some(retries), wait: Duration::from_millis(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_broker_that_is_away_is_tried_as_often_as_configured_and_then_given_up() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let mut config = source(&format!("amqp://bob:s3cret@127.0.0.1:{port}/"), "q", Settle::OnStore);
    config.connect = tries(2);
    let error = Running::start(config, &Told::storing(|_| Stored::Yes)).end().await.expect_err("nobody is there");
    let text = all_of(&error);
    let SourceError::GaveUp { name, attempts, .. } = error else { panic!("{text}") };
    assert_eq!((name.as_str(), attempts), ("pages", 3));
    assert!(text.contains(&format!("127.0.0.1:{port}")) && !text.contains("s3cret"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_source_waits_between_tries_for_as_long_as_it_says() {
    let (knocks, wait) = (Knocks::listen().await, Duration::from_millis(300));
    let mut config = source(&format!("amqp://127.0.0.1:{}/", knocks.port()), "q", Settle::OnStore);
    config.connect = Connect { retries: None, wait };
    let running = Running::start(config, &Told::storing(|_| Stored::Yes));
    let between = knocks.between(3).await;
    assert!(between.iter().all(|gap| *gap >= wait), "{between:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_queue_that_is_not_there_is_named_with_its_source() {
    let mut config = source(&BROKER.url(), "no-such-queue", Settle::OnStore);
    config.connect = tries(0);
    let error = Running::start(config, &Told::storing(|_| Stored::Yes)).end().await.expect_err("no queue");
    let text = all_of(&error);
    assert!(text.contains("source pages gave up: no subscription to queue no-such-queue"), "{text}");
    assert!(!text.contains(PASSWORD), "{text}");
    let SourceError::GaveUp { source, .. } = error else { panic!("{text}") };
    assert!(matches!(source, SubscribeError::NoQueue { .. }), "{source:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_login_that_is_refused_says_so_without_the_password() {
    let url = BROKER.url().replace(PASSWORD, "wr0ng-one");
    let mut config = source(&url, "q", Settle::OnStore);
    config.connect = tries(0);
    let error = Running::start(config, &Told::storing(|_| Stored::Yes)).end().await.expect_err("no login");
    let text = all_of(&error);
    assert!(text.contains("ACCESS_REFUSED") && !text.contains("wr0ng-one"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_virtual_host_that_is_not_there_is_refused_by_name() {
    let url = BROKER.url().replace("%2F", "no-such-vhost");
    let mut config = source(&url, "q", Settle::OnStore);
    config.connect = tries(0);
    let error = Running::start(config, &Told::storing(|_| Stored::Yes)).end().await.expect_err("no virtual host");
    let text = all_of(&error);
    assert!(text.contains("no-such-vhost") && !text.contains(PASSWORD), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_queue_that_comes_later_and_one_that_goes_and_comes_again_are_subscribed_to() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("later"));
    let intake = Told::storing(|_| Stored::Yes);
    let running = Running::start(source(&BROKER.url(), &queue, Settle::OnStore), &intake);
    for round in 1..=2 {
        // A quorum queue that is deleted and made again at once keeps its consumer and tells it nothing (RabbitMQ 3.10).
        desk.classic_queue(&queue).await;
        desk.publish("", &queue, b"x", BasicProperties::default()).await;
        until("it is brought", async || intake.brought().len() == round).await;
        desk.delete(&queue).await;
    }
    running.stop().await;
}
