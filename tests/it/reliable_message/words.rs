//! Without anything breaking: what is prepared, what is said, what is asked, and what a person may do.

use std::time::Duration;

use backstop::clock::Stopwatch;
use backstop_tests::hand_made::HandMade;
use backstop_tests::host::answer_to;
use backstop_tests::{Gate, Host, Setup, Vendor, eventually, ok, status};
use reqwest::Method;
use serde_json::json;

use super::*;

#[tokio::test]
async fn reliable_message_is_delivered_once_it_is_confirmed_and_not_before() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let host = host(&consumer, &sender, NEVER).await;

    let prepared = answer_to(preparation(&host, "one").header("idempotency-key", "order-1")).await;
    let id = prepared.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(prepared.status, 201);
    assert_eq!(prepared.header("location"), format!("/v1/transactions/{id}"));
    assert_eq!(prepared.header("backstop-message-id"), id);
    assert_eq!(prepared.json()["links"]["confirm"], format!("/v1/transactions/{id}/confirm"));
    assert_eq!(transaction(&host, &id).await["state"], "prepared");
    assert_eq!(host.send(Method::GET, &format!("/v1/messages/{id}"), "").await.status, 404, "it is no message yet");
    // What comes after it is delivered; it is not.
    let other = host.accept("/r/receipts/in", "whole").await;
    host.until(&other, "delivered").await;
    assert_eq!(received(&consumer), std::slice::from_ref(&other));

    let confirmed = say(&host, &id, "confirm").await;
    assert_eq!((confirmed.status, &confirmed.json()["state"]), (200, &json!("confirmed")));
    assert_eq!(confirmed.json()["links"]["message"], format!("/v1/messages/{id}"));
    host.until(&id, "delivered").await;
    let delivered = &consumer.received()[1];
    assert_eq!(
        (delivered.method.as_str(), delivered.path(), delivered.text().as_str()),
        ("POST", "/in", r#"{"order":"one"}"#)
    );
    assert_eq!(delivered.header("backstop-message-id"), id, "the consumer recognises a repeat by it");
    assert_eq!(delivered.header("idempotency-key"), "\"order-1\"");
    assert_eq!(delivered.header("content-type"), "application/json");
    assert!(sender.received().is_empty(), "nobody was asked who spoke");
}

#[tokio::test]
async fn reliable_message_that_is_cancelled_is_never_delivered() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let host = host(&consumer, &sender, NEVER).await;
    let id = prepare(&host, "one").await;
    assert_eq!(say(&host, &id, "cancel").await.json()["state"], "cancelled");
    let other = host.accept("/r/receipts/in", "whole").await;
    host.until(&other, "delivered").await;
    assert_eq!(received(&consumer), [other]);
    assert_eq!(host.send(Method::GET, &format!("/v1/messages/{id}"), "").await.status, 404);
}

#[tokio::test]
async fn reliable_message_the_first_word_holds_and_a_contrary_one_is_refused() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let host = host(&consumer, &sender, NEVER).await;
    let (one, other) = (prepare(&host, "one").await, prepare(&host, "other").await);
    for _ in 0..3 {
        assert_eq!(say(&host, &one, "confirm").await.status, 200);
        assert_eq!(say(&host, &other, "cancel").await.status, 200);
    }
    for (id, word, state) in [(&one, "cancel", "confirmed"), (&other, "confirm", "cancelled")] {
        let refused = say(&host, id, word).await;
        assert_eq!((refused.status, &refused.json()["type"]), (409, &json!("urn:backstop:problem:contrary-word")));
        assert_eq!(refused.json()["state"], state, "{refused:?}");
        assert_eq!(transaction(&host, id).await["state"], state);
    }
    host.until(&one, "delivered").await;
    assert_eq!(consumer.received().len(), 1);
    for word in ["confirm", "cancel"] {
        for unknown in ["01a200ce-7d98-708d-a5f1-1a63b4590abb", "none"] {
            assert_eq!(say(&host, unknown, word).await.status, 404);
        }
    }
}

#[tokio::test]
async fn reliable_message_prepared_again_under_its_key_is_the_same_one() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let host = host(&consumer, &sender, NEVER).await;
    let under = |key: &str, body: &str| answer_to(preparation(&host, body).header("idempotency-key", key));
    let first = under("order-1", "one").await;
    let again = under("order-1", "one").await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!(again.header("backstop-replayed"), "true");
    let other = under("order-1", "two").await;
    assert_eq!((other.status, &other.json()["type"]), (422, &json!("urn:backstop:problem:idempotency-key-reused")));

    // A message that came whole is no half one, whatever its payload.
    let whole = host.request(Method::POST, "/r/receipts/in").header("idempotency-key", "order-1");
    assert_eq!(answer_to(whole.body(r#"{"order":"one"}"#)).await.status, 422);

    // Prepared again after the word, it says what became of it.
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    say(&host, &id, "cancel").await;
    assert_eq!(under("order-1", "one").await.json()["state"], "cancelled");
}

#[tokio::test]
async fn reliable_message_that_cannot_be_delivered_is_refused_when_it_is_prepared() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let more = format!("        plain:\n          destination: {consumer}\n");
    let host = Setup::routes(&format!("{}\n{more}", routes(&consumer, &sender, NEVER).trim_end())).start().await;
    let post = async |body: String| {
        let request = host.request(Method::POST, "/v1/transactions").header("content-type", "application/json");
        let answer = answer_to(request.body(body)).await;
        (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    for (body, status, detail) in [
        ("{".to_owned(), 400, "EOF"),
        (json!({ "route": "receipts", "massage": {} }).to_string(), 400, "massage"),
        (json!({ "route": "receipts" }).to_string(), 400, "missing field `message`"),
        (json!({ "route": "nobody", "message": {} }).to_string(), 404, "nobody"),
        (json!({ "route": "plain", "message": {} }).to_string(), 400, "check_back"),
        (json!({ "route": "receipts", "message": { "path": "/../admin" } }).to_string(), 400, "message.path"),
        (json!({ "route": "receipts", "message": { "body": "a", "json": 1 } }).to_string(), 400, "one of"),
        (json!({ "route": "receipts", "message": { "body": "a".repeat((1 << 20) + 1) } }).to_string(), 413, "1048576"),
    ] {
        let (code, said) = post(body).await;
        assert!(code == status && said.contains(detail), "{code} {said}, not {status} {detail}");
    }
    let untyped = host.post("/v1/transactions", r#"{"route": "receipts"}"#).await;
    assert!(untyped.status == 400 && untyped.text().contains("Content-Type"), "{untyped:?}");
    // A page of another site, which makes a browser on this machine send it.
    for path in ["/v1/transactions", "/v1/transactions/01a200ce-7d98-708d-a5f1-1a63b4590abb/confirm"] {
        let foreign = host.request(Method::POST, path).header("origin", "https://evil.example");
        assert_eq!(answer_to(foreign).await.status, 403);
    }
    assert!(host.admin("/v1/transactions").await["transactions"].as_array().is_some_and(Vec::is_empty));
}

#[tokio::test]
async fn reliable_message_that_waits_for_its_word_counts_against_max_queued() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let bounded = with_keys(&routes(&consumer, &sender, NEVER), "max_queued: 2");
    let mut host = Setup::routes(&bounded).start().await;
    let (one, two) = (prepare(&host, "one").await, prepare(&host, "two").await);
    assert_eq!(answer_to(preparation(&host, "three")).await.status, 503);
    assert_eq!(say(&host, &one, "confirm").await.status, 200, "a word is never refused for want of room");
    host.until(&one, "delivered").await;
    let three = prepare(&host, "three").await;
    assert_eq!(answer_to(preparation(&host, "four")).await.status, 503);
    host.kill().await;
    host.restart().await;
    assert_eq!(answer_to(preparation(&host, "four")).await.status, 503, "nor are they forgotten");
    say(&host, &two, "cancel").await;
    prepare(&host, "four").await;
    assert_eq!(say(&host, &three, "confirm").await.status, 200);
}

#[tokio::test]
async fn reliable_message_whose_sender_says_nothing_is_asked_about() {
    let operations = Operations::default();
    let (consumer, sender) = (consumer().await, sender(&operations).await);
    let host = host(&consumer, &sender, AT_ONCE).await;
    let [committed, rolled_back, unknown] =
        [prepare(&host, "a").await, prepare(&host, "b").await, prepare(&host, "c").await];
    operations.came_to(&committed, "committed");
    operations.came_to(&rolled_back, "rolled_back");

    host.until(&committed, "delivered").await;
    until(&host, &rolled_back, "cancelled").await;
    eventually("several checks", async || (checks(&sender, &unknown) > 3).then_some(())).await;

    assert_eq!(transaction(&host, &unknown).await["state"], "prepared");
    assert_eq!(received(&consumer), std::slice::from_ref(&committed));
    let asked = &sender.received_at(&format!("/transactions/{committed}"))[0];
    assert_eq!((asked.method.as_str(), asked.header("backstop-message-id")), ("GET", committed.clone()));
    let settled = transaction(&host, &committed).await;
    assert!(settled["reason"].as_str().is_some_and(|why| why.contains("when it was asked")), "{settled}");
    // Once it knows, it says so.
    operations.came_to(&unknown, "committed");
    host.until(&unknown, "delivered").await;
    let asked = checks(&sender, &unknown);
    let other = prepare(&host, "d").await;
    eventually("more checks", async || (checks(&sender, &other) > 3).then_some(())).await;
    assert_eq!(checks(&sender, &unknown), asked, "nobody is asked about what has ended");
}

#[tokio::test]
async fn reliable_message_is_not_asked_about_before_its_time_and_that_does_not_count() {
    let (consumer, sender) = (consumer().await, Vendor::answering([says("unknown")]).await);
    let host = host(&consumer, &sender, "after: 400ms, every: 10ms, max_checks: 3").await;
    let id = prepare(&host, "one").await;
    let prepared = transaction(&host, &id).await;
    let moment = |name: &str| prepared[name].as_u64().expect("a moment");
    assert_eq!(moment("next_check_at"), moment("prepared_at") + 400);
    let parked = until(&host, &id, "parked").await;
    assert_eq!((&parked["checks"], checks(&sender, &id)), (&json!(3), 3));
}

#[tokio::test]
async fn reliable_message_asked_about_in_vain_is_parked_for_a_person() {
    let (consumer, sender) = (consumer().await, Vendor::answering([says("unknown")]).await);
    let host = host(&consumer, &sender, "after: 1ms, every: 10ms, max_checks: 4").await;
    let ids =
        [prepare(&host, "a").await, prepare(&host, "b").await, prepare(&host, "c").await, prepare(&host, "d").await];
    for id in &ids {
        assert_eq!(until(&host, id, "parked").await["checks"], 4);
        assert_eq!(checks(&sender, id), 4, "the fifth is not made");
    }
    let [resumed, confirmed, cancelled, spoken] = &ids;

    // It is seen, and nothing was delivered or lost.
    assert!(consumer.received().is_empty());
    let parked = "a half message is parked";
    eventually("a line in the log for each", async || (host.log_lines(parked).len() == 4).then_some(())).await;
    let routes = host.admin("/v1/routes").await;
    assert_eq!(routes["routes"][0]["transactions"], json!({ "prepared": 0, "parked": 4 }));
    let listed = host.cli(&["transactions", "list", "--state", "parked"]).await;
    assert!(ids.iter().all(|id| listed.contains(id)) && listed.contains("settles nothing (200 OK)"), "{listed}");
    let shown = host.cli(&["transactions", "show", resumed]).await;
    assert!(shown.contains("parked") && shown.contains(r#"{"order":"a"}"#), "{shown}");

    // A person has the sender asked again, or decides; and the sender's own word counts as ever.
    sender.now_answers([says("committed")]);
    assert!(host.cli(&["transactions", "resume", resumed]).await.contains("prepared"));
    host.until(resumed, "delivered").await;
    assert!(host.cli(&["transactions", "confirm", confirmed]).await.contains("confirmed: a person said so"));
    host.until(confirmed, "delivered").await;
    assert!(host.cli(&["transactions", "cancel", cancelled]).await.contains("cancelled: a person said so"));
    assert_eq!(say(&host, spoken, "confirm").await.status, 200);
    host.until(spoken, "delivered").await;

    let refused = host.try_cli(&["transactions", "resume", cancelled]).await;
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("cancelled"), "{refused:?}");
    assert_eq!(received(&consumer).len(), 3);
}

#[tokio::test]
async fn reliable_message_whose_sender_cannot_be_reached_is_parked_without_a_check_being_counted() {
    let (consumer, nowhere) = (consumer().await, Vendor::answering([]).await);
    let routes = routes(&consumer, &nowhere, "after: 1ms, every: 10ms, max_checks: 1");
    drop(nowhere);
    let host = Setup::routes(&routes).start().await;
    let id = prepare(&host, "one").await;
    let parked = until(&host, &id, "parked").await;
    assert_eq!((&parked["checks"], &parked["unreached"]), (&json!(0), &json!(100)), "{parked}");
    assert!(parked["reason"].as_str().is_some_and(|why| why.contains("could not be asked (connect")), "{parked}");
}

/// A 503 with Retry-After speaks for the sender as a whole: nobody's check is sent to it before then.
#[tokio::test]
async fn reliable_message_a_sender_that_asks_for_quiet_gets_it() {
    let (consumer, sender) = (consumer().await, Vendor::answering([]).await);
    sender.now_answers([status(503).header("retry-after", 1), says("committed"), says("committed")]);
    let host = host(&consumer, &sender, "after: 1ms, every: 10ms, max_checks: 20").await;
    let first = prepare(&host, "one").await;
    sender.receives(1).await;
    let asked_for_quiet = Stopwatch::start();
    let second = prepare(&host, "two").await;
    host.until(&first, "delivered").await;
    host.until(&second, "delivered").await;
    assert!(asked_for_quiet.elapsed() >= Duration::from_millis(950), "{:?}", asked_for_quiet.elapsed());
    assert_eq!(sender.received().len(), 3, "neither was asked about meanwhile");
}

#[tokio::test]
async fn reliable_message_an_answer_that_comes_after_a_word_changes_nothing() {
    for (word, answer, state) in [("cancel", "committed", "cancelled"), ("confirm", "rolled_back", "confirmed")] {
        let (consumer, sender, gate) = (consumer().await, Vendor::answering([]).await, Gate::closed());
        sender.now_answers([says(answer).held_by(&gate)]);
        let host = host(&consumer, &sender, AT_ONCE).await;
        let id = prepare(&host, "one").await;
        sender.receives(1).await;
        assert_eq!(say(&host, &id, word).await.status, 200);
        gate.open();
        let contradiction = "contradicts an earlier word";
        eventually("the answer", async || (!host.log_lines(contradiction).is_empty()).then_some(())).await;
        assert_eq!(transaction(&host, &id).await["state"], state);
        if word == "confirm" {
            host.until(&id, "delivered").await;
        }
        assert_eq!(consumer.received().len(), usize::from(word == "confirm"));
        assert_eq!(checks(&sender, &id), 1);
    }
}

#[tokio::test]
async fn reliable_message_a_policy_reads_what_a_sender_answers() {
    let (consumer, sender) = (consumer().await, Vendor::answering([]).await);
    let routes = with_keys(
        &routes(&consumer, &sender, AT_ONCE),
        "policy: reliable-message\n\
         policy_config: { pointer: /order/status, committed: [paid], rolled_back: [refused], absent: [404] }",
    );
    let host = Setup::routes(&routes).start().await;
    let ids =
        [prepare(&host, "a").await, prepare(&host, "b").await, prepare(&host, "c").await, prepare(&host, "d").await];
    let replies = [
        backstop_tests::json(200, &json!({ "order": { "status": "paid" } })),
        backstop_tests::json(200, &json!({ "order": { "status": "refused" } })),
        status(404),
        says("committed"),
    ];
    for (id, reply) in ids.iter().zip(replies) {
        sender.answers_at(&format!("/transactions/{id}"), [backstop_tests::json(200, &json!({ "order": {} })), reply]);
    }
    host.until(&ids[0], "delivered").await;
    until(&host, &ids[1], "cancelled").await;
    until(&host, &ids[2], "cancelled").await;
    eventually("several checks", async || (checks(&sender, &ids[3]) > 3).then_some(())).await;
    assert_eq!(transaction(&host, &ids[3]).await["state"], "prepared", "the policy decides, and not the host's rule");
    assert_eq!(received(&consumer), [ids[0].clone()]);
}

#[tokio::test]
async fn reliable_message_is_delivered_in_the_order_in_which_it_is_confirmed() {
    let (consumer, sender, gate) = (consumer().await, sender(&Operations::default()).await, Gate::closed());
    consumer.now_answers([ok().held_by(&gate)]);
    let ordered = with_keys(&routes(&consumer, &sender, NEVER), "order_by: json:/order");
    let host = Setup::routes(&ordered).start().await;
    let (first, second) = (prepare(&host, "one").await, prepare(&host, "one").await);
    say(&host, &second, "confirm").await;
    consumer.receives(1).await;
    say(&host, &first, "confirm").await;
    assert_eq!(host.message(&first).await["turn"], "behind");
    gate.open();
    host.until(&first, "delivered").await;
    let order: Vec<String> = consumer.received().iter().map(|request| request.header("backstop-message-id")).collect();
    assert_eq!(order, [second, first]);
}

#[tokio::test]
async fn reliable_message_may_be_settled_while_its_route_is_disabled() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let host = host(&consumer, &sender, NEVER).await;
    let (one, two) = (prepare(&host, "one").await, prepare(&host, "two").await);
    let configure = |enabled: bool| {
        let text = std::fs::read_to_string(host.place().path("backstop.yaml")).expect("the configuration");
        let line = "  receipts:\n";
        let text = text.replace("    enabled: false\n", "");
        let disabled = text.replace(line, &format!("{line}    enabled: false\n"));
        host.place().write("backstop.yaml", if enabled { text } else { disabled });
    };
    configure(false);
    eventually("the route to be disabled", async || {
        (answer_to(preparation(&host, "four")).await.status == 503).then_some(())
    })
    .await;
    assert_eq!(say(&host, &one, "confirm").await.status, 200);
    assert_eq!(say(&host, &two, "cancel").await.status, 200);
    assert_eq!(host.message(&one).await["state"], "queued");
    assert!(consumer.received().is_empty());
    configure(true);
    host.until(&one, "delivered").await;
    assert_eq!(received(&consumer), [one]);
}

#[tokio::test]
async fn reliable_message_admin_takes_a_word_only_from_who_may_send_json() {
    let (consumer, sender) = (consumer().await, sender(&Operations::default()).await);
    let host = host(&consumer, &sender, NEVER).await;
    let id = prepare(&host, "one").await;
    let path = format!("/v1/transactions/{id}/confirm");
    let plain = host
        .raw_admin(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
        .await;
    assert!(plain.starts_with("HTTP/1.1 400"), "{plain}");
    assert_eq!(transaction(&host, &id).await["state"], "prepared");
}

/// Senders that hang hold up nobody else's.
#[tokio::test]
async fn reliable_message_a_sender_that_hangs_keeps_no_other_route_waiting() {
    let operations = Operations::default();
    let (consumer, hanging, sender) = (consumer().await, Vendor::answering([]).await, sender(&operations).await);
    hanging.now_answers([backstop_tests::black_hole()]);
    let other = routes(&consumer, &sender, AT_ONCE).replace("receipts:", "others:");
    let both = format!("{}\n{}", routes(&consumer, &hanging, AT_ONCE).trim_end(), other.trim_start_matches('\n'));
    let host: Host = Setup::routes(&both).start().await;
    for number in 0..40 {
        prepare(&host, &number.to_string()).await;
    }
    hanging.receives(16).await;
    let asked = json!({ "route": "others", "message": { "path": "/in" } });
    let request = host.request(Method::POST, "/v1/transactions").header("content-type", "application/json");
    let answer = answer_to(request.body(asked.to_string())).await;
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    operations.came_to(&id, "committed");
    host.until(&id, "delivered").await;
    assert_eq!(hanging.received().len(), 16, "so many at once on one route");
}

/// A policy that fails says nothing, whatever the host's own rule would read in the answer.
#[tokio::test]
async fn reliable_message_a_policy_that_never_ends_delivers_nothing_and_forgets_nothing() {
    let (consumer, sender) = (consumer().await, Vendor::answering([says("committed")]).await);
    let routes = with_keys(
        &routes(&consumer, &sender, "after: 1ms, every: 10ms, max_checks: 3"),
        "policy: settle-loops\npolicy_limits: { failures: 2 }",
    );
    let place = Setup::routes(&routes).place();
    place.place_policy("settle-loops", &HandMade::hostile("serving", "settle-loops").file());
    let host = Host::start_in(place).await;
    let id = prepare(&host, "one").await;
    let parked = until(&host, &id, "parked").await;
    assert_eq!(parked["checks"], 3, "{parked}");
    assert!(parked["reason"].as_str().is_some_and(|why| why.contains("the policy could not read")), "{parked}");
    let failed = "the policy could not read a sender's answer";
    eventually("a line in the log", async || {
        host.log_lines(failed).iter().any(|line| line.contains("out of ")).then_some(())
    })
    .await;
    assert!(consumer.received().is_empty());
    host.cli(&["transactions", "confirm", &id]).await;
    host.until(&id, "delivered").await;
}
