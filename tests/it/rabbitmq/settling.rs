//! When the broker is told, and what.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backstop::ingress::rabbitmq::SourceError;
use backstop::ingress::source::{Settle, Settlement, Stored};
use lapin::BasicProperties;
use serde_json::Value;

use super::stage::{BROKER, Running, Told, field, fresh, source, until};
use backstop_tests::rabbitmq::desk::{Desk, giving_up, text};

fn properties() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_what_is_stored_is_acknowledged_and_known_by_its_id() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("stored"));
    desk.quorum_queue(&queue, &[]).await;
    let intake = Told::storing(|_| Stored::Yes);
    let running = Running::start(source(&BROKER.url(), &queue, Settle::OnStore), &intake);
    let with_id = properties().with_message_id("order-1".into()).with_content_type("application/json".into());
    desk.publish("", &queue, b"{}", with_id).await;
    desk.publish("", &queue, b"2", properties()).await;
    until("both are stored", async || intake.brought().len() == 2).await;
    running.stop().await;

    let mut brought = intake.brought();
    brought.sort_by_key(|brought| brought.key.is_none());
    let [first, second] = brought.try_into().expect("two");
    assert_eq!((first.key.as_deref(), &*first.body), (Some("order-1"), &b"{}"[..]));
    assert_eq!((second.key, &*second.body), (None, &b"2"[..]));
    assert_eq!(field(&first, "content-type"), "application/json");
    assert_eq!(field(&first, "broker-origin"), queue);
    // The broker gave back what was unsettled: nothing.
    assert_eq!(desk.ready(&queue).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_no_more_is_taken_than_the_prefetch_allows() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("prefetch"));
    desk.quorum_queue(&queue, &[]).await;
    for number in 0..40 {
        desk.publish("", &queue, number.to_string().as_bytes(), properties()).await;
    }
    let intake = Told::storing(|_| Stored::Yes);
    intake.hold();
    let mut config = source(&BROKER.url(), &queue, Settle::OnStore);
    config.prefetch = 5;
    let running = Running::start(config, &intake);
    until("five are in hand", async || intake.in_hand() == 5).await;
    until("the others wait at the broker", async || desk.ready(&queue).await == 35).await;
    intake.release();
    until("all are stored", async || intake.brought().len() == 40).await;
    running.stop().await;
    assert_eq!(intake.most_in_hand(), 5);
    assert_eq!(desk.ready(&queue).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_what_finds_no_room_waits_here_and_is_not_given_back() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("full"));
    desk.quorum_queue(&queue, &[]).await;
    let asked = AtomicU32::new(0);
    let intake = Told::storing(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0..5 => Stored::NotNow(Duration::ZERO),
        _ => Stored::Yes,
    });
    let running = Running::start(source(&BROKER.url(), &queue, Settle::OnStore), &intake);
    desk.publish("", &queue, b"once", properties()).await;
    until("it is stored at last", async || intake.brought().len() == 6 && intake.in_hand() == 0).await;
    running.stop().await;
    assert!(intake.brought().iter().all(|brought| field(brought, "broker-redelivered") == "false"));
    assert_eq!(desk.ready(&queue).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_failures_count_up_to_the_delivery_limit_and_then_the_broker_dead_letters() {
    let (desk, queue, dead) = (Desk::at(&BROKER.url()).await, fresh("failing"), fresh("dead"));
    desk.quorum_queue(&queue, &giving_up(3, &dead)).await;
    desk.quorum_queue(&dead, &[]).await;
    let intake = Told::delivering(|_| Settlement::Requeue(Duration::ZERO));
    let mut config = source(&BROKER.url(), &queue, Settle::OnDelivery);
    config.delivery_limit = Some(3);
    let running = Running::start(config, &intake);
    desk.publish("", &queue, b"page", properties().with_message_id("scan-7".into())).await;

    // A second source listens to the dead-letter queue, where it can see why.
    let listener = Told::delivering(|_| Settlement::Ack);
    let listening = Running::start(source(&BROKER.url(), &dead, Settle::OnDelivery), &listener);
    until("it is dead-lettered", async || listener.brought().len() == 1).await;
    listening.stop().await;
    running.stop().await;

    let attempts = intake.brought();
    assert_eq!(attempts.iter().map(|brought| brought.delivered_before).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(attempts.iter().map(|brought| brought.last_delivery).collect::<Vec<_>>(), [false, false, false, true]);
    let [letter] = listener.brought().try_into().expect("one");
    assert_eq!(letter.key.as_deref(), Some("scan-7"));
    let deaths: Value = serde_json::from_str(&field(&letter, "x-death")).expect("JSON");
    assert_eq!(deaths[0]["reason"], "delivery_limit");
    assert_eq!(deaths[0]["queue"], queue);
    assert_eq!(deaths[0]["count"], 1);
    assert_eq!(field(&letter, "x-first-death-queue"), queue);
    assert_eq!((desk.ready(&queue).await, desk.ready(&dead).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_what_failed_for_good_is_dead_lettered_after_one_attempt() {
    let (desk, queue, dead) = (Desk::at(&BROKER.url()).await, fresh("hopeless"), fresh("dead"));
    desk.quorum_queue(&queue, &giving_up(3, &dead)).await;
    desk.quorum_queue(&dead, &[]).await;
    let intake = Told::delivering(|_| Settlement::DeadLetter);
    let running = Running::start(source(&BROKER.url(), &queue, Settle::OnDelivery), &intake);
    desk.publish("", &queue, b"no JSON", properties()).await;
    until("it is dead-lettered", async || desk.ready(&dead).await == 1).await;
    running.stop().await;
    assert_eq!(intake.brought().len(), 1);
    let letter = desk.take(&dead).await.expect("the dead letter");
    let reason =
        letter.properties.headers().as_ref().and_then(|headers| headers.inner().get("x-first-death-reason").cloned());
    assert_eq!(reason, Some(text("rejected")));
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_stop_settles_what_is_in_hand_and_leaves_the_rest_to_the_broker() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("stop"));
    desk.quorum_queue(&queue, &[]).await;
    for number in 0..20 {
        desk.publish("", &queue, number.to_string().as_bytes(), properties()).await;
    }
    // Odd ones find no room, and would wait for a minute.
    let intake = Told::storing(|brought| match brought.body.last() {
        Some(digit) if digit % 2 == 1 => Stored::NotNow(Duration::from_secs(60)),
        _ => Stored::Yes,
    });
    intake.hold();
    let running = Running::start(source(&BROKER.url(), &queue, Settle::OnStore), &intake);
    until("ten are in hand", async || intake.in_hand() == 10).await;
    running.ask();
    intake.release();
    running.stop().await;
    assert_eq!(intake.brought().len(), 10, "nothing is taken after the stop");
    until("five and ten are the broker's again", async || desk.ready(&queue).await == 15).await;
}

/// A classic queue does not count deliveries: a message that always fails would be tried without end, and no
/// `max_attempts` would ever see it.
#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_queue_that_does_not_count_deliveries_is_given_up_at_the_first_that_would_count() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("classic"));
    desk.classic_queue(&queue).await;
    let intake = Told::delivering(|_| Settlement::Requeue(Duration::ZERO));
    let running = Running::start(source(&BROKER.url(), &queue, Settle::OnDelivery), &intake);
    desk.publish("", &queue, b"page", properties()).await;
    let error = running.end().await.expect_err("it gives up");
    assert!(matches!(error, SourceError::Uncounted { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("{queue} does not count")), "{error}");
    assert!(error.to_string().contains("needs a quorum queue"), "{error}");
    assert_eq!(intake.brought().len(), 1, "it was attempted once");
    until("the message is the broker's again", async || desk.ready(&queue).await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_queue_that_does_not_count_deliveries_will_do_for_settling_on_store() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("classic"));
    desk.classic_queue(&queue).await;
    desk.publish("", &queue, b"page", properties()).await;
    let first = Told::storing(|_| Stored::NotNow(Duration::from_secs(60)));
    let running = Running::start(source(&BROKER.url(), &queue, Settle::OnStore), &first);
    until("it is brought", async || first.brought().len() == 1).await;
    running.stop().await;
    let again = Told::storing(|_| Stored::Yes);
    let running = Running::start(source(&BROKER.url(), &queue, Settle::OnStore), &again);
    until("it is brought again", async || again.brought().len() == 1).await;
    running.stop().await;
    assert_eq!(field(&again.brought()[0], "broker-redelivered"), "true");
    assert_eq!(desk.ready(&queue).await, 0);
}
