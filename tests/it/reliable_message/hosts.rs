//! On Postgres, where hosts share what is prepared: one is killed, and another one goes on.

use backstop_tests::host::answer_to;
use backstop_tests::{Postgres, Vendor, eventually};

use super::*;

/// A host on a store that others may share.
async fn host_on(store: &str, consumer: &Vendor, sender: &Vendor, check_back: &str) -> Host {
    let routes = routes(consumer, sender, check_back);
    Setup::routes(&routes).setting("store", store).setting("lease", "1s").start().await
}

async fn two_hosts(consumer: &Vendor, sender: &Vendor, check_back: &str) -> (Postgres, Host, Host) {
    let postgres = Postgres::start();
    let store = postgres.database();
    let one = host_on(&store, consumer, sender, check_back).await;
    let other = host_on(&store, consumer, sender, check_back).await;
    (postgres, one, other)
}

#[tokio::test]
async fn reliable_message_hosts_one_is_killed_and_the_other_asks_delivers_and_forgets() {
    let operations = Operations::default();
    let (consumer, sender) = (consumer().await, sender(&operations).await);
    let (_postgres, mut one, other) = two_hosts(&consumer, &sender, "after: 1s, every: 50ms, timeout: 1s").await;
    let (committed, rolled_back) = (prepare(&one, "a").await, prepare(&one, "b").await);
    one.kill().await;
    operations.came_to(&committed, "committed");
    operations.came_to(&rolled_back, "rolled_back");
    other.until(&committed, "delivered").await;
    until(&other, &rolled_back, "cancelled").await;
    assert_eq!(received(&consumer), operations.committed());
}

#[tokio::test]
async fn reliable_message_hosts_know_each_others_words_and_keys() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let (_postgres, one, other) = two_hosts(&consumer, &sender, NEVER).await;
    let under = |host: &Host| answer_to(preparation(host, "one").header("idempotency-key", "order-1"));
    let first = under(&one).await;
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(under(&other).await.json()["id"], *id);

    let words = (0..20).map(|n| {
        let (host, word) = (if n % 2 == 0 { &one } else { &other }, if n % 3 == 0 { "cancel" } else { "confirm" });
        let id = &id;
        async move { (word, say(host, id, word).await.status) }
    });
    let said = futures_util::future::join_all(words).await;
    let state = transaction(&one, &id).await["state"].clone();
    for (word, status) in said {
        let agrees = (word == "confirm") == (state == "confirmed");
        assert_eq!(status, if agrees { 200 } else { 409 }, "{word}, and it is {state}");
    }
    if state == "confirmed" {
        other.until(&id, "delivered").await;
    }
    assert_eq!(received(&consumer).len(), usize::from(state == "confirmed"));
}

#[tokio::test]
async fn reliable_message_hosts_one_asks_at_a_time_and_another_when_that_one_dies() {
    const CHECK_BACK: &str = "after: 1ms, every: 50ms, timeout: 3s";
    let (consumer, sender) = (consumer().await, Vendor::answering([says("unknown")]).await);
    let (postgres, checks_of) = (Postgres::start(), |id: &str| checks(&sender, id));
    let store = postgres.database();
    let mut one = host_on(&store, &consumer, &sender, CHECK_BACK).await;
    // Its first question is never answered, and the next one is.
    sender.answers_by(|_| backstop_tests::black_hole());
    let id = prepare(&one, "one").await;
    sender.receives(1).await;
    sender.answers_at(&format!("/transactions/{id}"), [says("committed")]);
    sender.now_answers([says("unknown")]);

    // Another host comes, and asks about something else: it has looked, and does not ask about this.
    let other = host_on(&store, &consumer, &sender, CHECK_BACK).await;
    let another = prepare(&other, "another").await;
    let looks = "asked a sender what became of its operation";
    eventually("several checks by the other host", async || (other.log_lines(looks).len() > 3).then_some(())).await;
    assert!(checks_of(&another) > 3);
    assert_eq!(checks_of(&id), 1);

    // The one that asks dies, and with it its question.
    one.kill().await;
    other.until(&id, "delivered").await;
    assert_eq!(received(&consumer), std::slice::from_ref(&id));
    assert_eq!((checks_of(&id), &transaction(&other, &id).await["checks"]), (2, &serde_json::json!(1)));
}
