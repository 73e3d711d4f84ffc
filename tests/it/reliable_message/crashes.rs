//! The host is killed at each point at which the flow can break: the table of `reliable-message` in order. What the
//! sender's operation came to decides, whatever was lost on the way.

use std::time::Duration;

use backstop::clock::{Clock as _, SystemClock};
use backstop_tests::host::answer_to;
use backstop_tests::{Gate, Vendor, eventually, ok};

use super::*;

async fn restarted(host: &mut Host) {
    host.kill().await;
    host.restart().await;
}

/// How many transactions there are, in whatever state.
async fn known(host: &Host) -> usize {
    host.admin("/v1/transactions").await["transactions"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn reliable_message_crash_before_it_is_stored_the_sender_prepares_it_again() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let mut host = host(&consumer, &sender, NEVER).await;
    host.kill().await;
    let lost = preparation(&host, "one").header("idempotency-key", "order-1").send().await;
    assert!(lost.is_err(), "the sender knows that it knows nothing, and does not run its operation");
    host.restart().await;
    assert_eq!(known(&host).await, 0);
    let again = answer_to(preparation(&host, "one").header("idempotency-key", "order-1")).await;
    let id = again.json()["id"].as_str().expect("an id").to_owned();
    say(&host, &id, "confirm").await;
    host.until(&id, "delivered").await;
    assert_eq!(received(&consumer), [id]);
}

#[tokio::test]
async fn reliable_message_crash_before_the_answer_the_same_preparation_is_found_again() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let mut host = host(&consumer, &sender, NEVER).await;
    // Stored; that its answer came is nobody's knowledge.
    let _lost = preparation(&host, "one").header("idempotency-key", "order-1").send().await;
    restarted(&mut host).await;
    let again = answer_to(preparation(&host, "one").header("idempotency-key", "order-1")).await;
    assert_eq!((again.status, again.header("backstop-replayed").as_str()), (201, "true"));
    assert_eq!(known(&host).await, 1);
    let id = again.json()["id"].as_str().expect("an id").to_owned();
    say(&host, &id, "confirm").await;
    host.until(&id, "delivered").await;
    assert_eq!(received(&consumer), [id]);
}

/// The sender never learns the id, and never runs its operation: it knows of no such transaction, and says so.
#[tokio::test]
async fn reliable_message_crash_before_the_answer_and_the_sender_gives_up_it_is_forgotten() {
    let (consumer, sender) = (consumer().await, Vendor::answering([says("rolled_back")]).await);
    let mut host = host(&consumer, &sender, "after: 500ms, every: 20ms").await;
    let _lost = preparation(&host, "one").send().await;
    restarted(&mut host).await;
    eventually("the transaction to be cancelled", async || {
        let listed = host.admin("/v1/transactions?state=cancelled").await;
        (listed["transactions"].as_array()?.len() == 1).then_some(())
    })
    .await;
    assert!(consumer.received().is_empty());
}

#[tokio::test]
async fn reliable_message_crash_and_the_operation_never_ran_or_was_rolled_back_nothing_is_delivered() {
    let operations = Operations::default();
    let (consumer, sender) = (consumer().await, sender(&operations).await);
    let mut host = host(&consumer, &sender, AT_ONCE).await;
    let id = prepare(&host, "one").await;
    eventually("a check", async || (checks(&sender, &id) > 0).then_some(())).await;
    host.kill().await;
    operations.came_to(&id, "rolled_back");
    host.restart().await;
    until(&host, &id, "cancelled").await;
    let other = host.accept("/r/receipts/in", "whole").await;
    host.until(&other, "delivered").await;
    assert_eq!(received(&consumer), [other]);
}

#[tokio::test]
async fn reliable_message_crash_before_the_confirm_arrives_the_sender_is_asked() {
    let operations = Operations::default();
    let (consumer, sender) = (consumer().await, sender(&operations).await);
    let mut host = host(&consumer, &sender, AT_ONCE).await;
    let id = prepare(&host, "one").await;
    host.kill().await;
    operations.came_to(&id, "committed");
    let confirm = host.request(Method::POST, &format!("/v1/transactions/{id}/confirm")).send().await;
    assert!(confirm.is_err(), "it did not arrive, and is not said again");
    host.restart().await;
    host.until(&id, "delivered").await;
    assert_eq!(received(&consumer), operations.committed());
}

/// The store cannot be written: the word is refused for now, and the host dies before it is.
#[tokio::test]
async fn reliable_message_crash_while_the_confirm_cannot_be_written_down_the_sender_is_asked() {
    let operations = Operations::default();
    let (consumer, sender) = (consumer().await, sender(&operations).await);
    let mut host = host(&consumer, &sender, "after: 2s, every: 20ms").await;
    let id = prepare(&host, "one").await;
    operations.came_to(&id, "committed");
    let (file, aside) = (host.place().path("backstop.db"), host.place().path("aside.db"));
    std::fs::rename(&file, &aside).expect("the store's file");
    let refused = say(&host, &id, "confirm").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(!refused.header("retry-after").is_empty());
    host.kill().await;
    assert!(consumer.received().is_empty());
    std::fs::rename(&aside, &file).expect("the store's file");
    host.restart().await;
    host.until(&id, "delivered").await;
    assert_eq!(received(&consumer), operations.committed());
    assert_eq!(say(&host, &id, "confirm").await.status, 200, "and the word that was refused may be said again");
}

#[tokio::test]
async fn reliable_message_crash_while_the_sender_is_asked_it_is_asked_again() {
    let (consumer, sender, gate) = (consumer().await, Vendor::answering([]).await, Gate::closed());
    sender.now_answers([says("committed").held_by(&gate)]);
    let mut host = host(&consumer, &sender, AT_ONCE).await;
    let id = prepare(&host, "one").await;
    sender.receives(1).await;
    host.kill().await;
    gate.open();
    host.restart().await;
    host.until(&id, "delivered").await;
    assert_eq!(checks(&sender, &id), 2);
    assert_eq!(transaction(&host, &id).await["checks"], 1, "a check nobody heard the answer of is not counted");
}

#[tokio::test]
async fn reliable_message_crash_after_the_confirm_it_is_delivered_all_the_same() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let gate = Gate::closed();
    consumer.now_answers([ok().held_by(&gate)]);
    let mut host = host(&consumer, &sender, NEVER).await;
    let id = prepare(&host, "one").await;
    assert_eq!(say(&host, &id, "confirm").await.status, 200);
    consumer.receives(1).await;
    host.kill().await;
    gate.open();
    host.restart().await;
    host.until(&id, "delivered").await;
    assert_eq!(say(&host, &id, "confirm").await.status, 200, "the same word again");
    assert_eq!(say(&host, &id, "cancel").await.status, 409);
    assert_eq!(received(&consumer), [id], "more than once perhaps, and recognisably so");
}

#[tokio::test]
async fn reliable_message_crash_does_not_resume_what_is_parked() {
    let (consumer, sender) = (consumer().await, Vendor::answering([says("unknown")]).await);
    let mut host = host(&consumer, &sender, "after: 1ms, every: 10ms, max_checks: 2").await;
    let id = prepare(&host, "one").await;
    until(&host, &id, "parked").await;
    restarted(&mut host).await;
    assert_eq!(transaction(&host, &id).await["state"], "parked");
    host.cli(&["transactions", "confirm", &id]).await;
    host.until(&id, "delivered").await;
    assert_eq!(checks(&sender, &id), 2);
}

/// Orders are taken one after the other, each third one failing, while the host is killed at whatever moment. In the end
/// the consumer has a message for every order that was taken, and for no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reliable_message_crash_after_crash_sender_and_consumer_agree_in_the_end() {
    const ORDERS: usize = 60;
    let operations = Operations::default();
    let (consumer, sender) = (consumer().await, sender(&operations).await);
    let mut host = host(&consumer, &sender, "after: 200ms, every: 50ms, max_checks: 1000000").await;
    let mut prepared = Vec::new();
    for order in 0..ORDERS {
        if order % 15 == 7 {
            host.signal("KILL").await;
        }
        // The sender asks once, and takes what comes: no answer means that it does not run its operation.
        let asked = preparation(&host, &order.to_string()).send().await;
        if let Ok(answer) = asked
            && let Ok(body) = answer.bytes().await
            && let Some(id) = serde_json::from_slice::<Value>(&body).unwrap_or_default()["id"].as_str()
        {
            if order % 15 == 12 {
                host.signal("KILL").await;
            }
            let state = if order % 3 == 0 { "rolled_back" } else { "committed" };
            operations.came_to(id, state);
            let word = if order % 3 == 0 { "cancel" } else { "confirm" };
            if order % 4 != 0 {
                let _ = host.request(Method::POST, &format!("/v1/transactions/{id}/{word}")).send().await;
            }
            prepared.push(id.to_owned());
        }
        if order % 15 == 13 || order % 15 == 8 {
            host.exited().await;
            host.restart().await;
        }
        SystemClock.sleep(Duration::from_millis(3)).await;
    }
    assert!(prepared.len() > ORDERS / 2, "{} of {ORDERS} orders came so far", prepared.len());
    for id in &prepared {
        let state = if operations.state(id) == "committed" { "confirmed" } else { "cancelled" };
        until(&host, id, state).await;
    }
    for id in operations.committed() {
        host.until(&id, "delivered").await;
    }
    assert_eq!(received(&consumer), operations.committed());
}
