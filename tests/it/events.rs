//! `event-pipeline`: events come in, and each becomes a message on every route whose match is true of it.

use std::time::Duration;

use backstop::clock::Stopwatch;
use backstop_tests::host::{Answer, answer_to};
use backstop_tests::{Host, Postgres, Setup, Vendor, eventually, ok, status};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

/// Publishes an event in binary mode.
async fn publish(host: &Host, kind: &str, id: &str, data: &str) -> Answer {
    let request = host.request(Method::POST, "/events").body(data.to_owned());
    let request = request.header("ce-specversion", "1.0").header("ce-type", kind).header("ce-id", id);
    answer_to(request.header("ce-source", "/shop/eu").header("content-type", "application/json")).await
}

/// Publishes JSON of this media type.
async fn publish_json(host: &Host, media_type: &str, body: &Value) -> Answer {
    let request = host.request(Method::POST, "/events").header("content-type", media_type);
    answer_to(request.body(body.to_string())).await
}

/// The messages that the `event`th of a publish became: route and id.
fn messages(answer: &Answer, event: usize) -> Vec<(String, String)> {
    let messages = answer.json()["events"][event]["messages"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    messages.iter().map(|message| (text(&message["route"]), text(&message["id"]))).collect()
}

fn uid(answer: &Answer) -> String {
    answer.json()["events"][0]["message_uid"].as_str().expect("a uid").to_owned()
}

#[tokio::test]
async fn event_pipeline_an_event_goes_to_every_route_that_matches() {
    let (orders, everything, refunds) =
        (Vendor::answering([ok()]).await, Vendor::answering([ok()]).await, Vendor::answering([ok()]).await);
    let host = Host::start(&format!(
        r#"
        orders: {{ destination: {orders}, match: 'type == "order.created" && source.startsWith("/shop")' }}
        everything: {{ destination: {everything}, match: true }}
        refunds: {{ destination: {refunds}, match: type == "order.refunded" }}
        plain: {{ destination: {refunds} }}
        "#
    ))
    .await;
    let answer = publish(&host, "order.created", "1", r#"{"total": 7}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let taken = messages(&answer, 0);
    assert_eq!(taken.iter().map(|(route, _)| route.as_str()).collect::<Vec<_>>(), ["everything", "orders"]);
    assert_ne!(taken[0].1, taken[1].1, "each a message of its own");
    for (_, id) in &taken {
        host.until(id, "delivered").await;
    }
    for vendor in [&orders, &everything] {
        let received = &vendor.receives(1).await[0];
        assert_eq!(received.header("ce-id"), "1");
        assert_eq!(received.header("ce-source"), "/shop/eu");
        assert_eq!(received.header("ce-messageuid"), uid(&answer));
        assert_eq!(received.text(), r#"{"total": 7}"#);
    }
    let again = publish(&host, "order.created", "1", "{}").await;
    assert_ne!(uid(&again), uid(&answer), "the same event published twice has two uids");
    assert!(refunds.received().is_empty());
}

#[tokio::test]
async fn event_pipeline_events_come_as_json_too_and_in_batches() {
    let vendor = Vendor::answering([ok()]).await;
    let host = Host::start(&format!("all: {{ destination: {vendor}, match: true }}")).await;
    let event = |id: &str| json!({ "specversion": "1.0", "type": "t", "source": "/s", "id": id, "data": { "n": id } });

    let answer = publish_json(&host, "application/cloudevents+json; charset=utf-8", &event("1")).await;
    host.until(&messages(&answer, 0)[0].1, "delivered").await;
    let received = &vendor.receives(1).await[0];
    assert_eq!((received.header("ce-id"), received.text()), ("1".to_owned(), r#"{"n":"1"}"#.to_owned()));
    assert_eq!(received.header("content-type"), "application/json");

    let batch = json!([event("2"), event("3")]);
    let answer = publish_json(&host, "application/cloudevents-batch+json", &batch).await;
    for event in [0, 1] {
        host.until(&messages(&answer, event)[0].1, "delivered").await;
    }
    assert_eq!(vendor.receives(3).await.len(), 3);

    let broken = json!([event("4"), { "specversion": "1.0", "type": "t", "source": "/s" }]);
    let answer = publish_json(&host, "application/cloudevents-batch+json", &broken).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("/1/id"), "{}", answer.text());
    assert_eq!(host.messages("delivered").await.len(), 3, "of a batch that is none, nothing is taken");
}

#[tokio::test]
async fn event_pipeline_an_event_that_nobody_takes_is_refused_or_caught() {
    let vendor = Vendor::answering([ok()]).await;
    let orders = format!("orders: {{ destination: {vendor}, match: type == \"order.created\" }}");
    let host = Host::start(&orders).await;
    let answer = publish(&host, "other", "1", "{}").await;
    assert_eq!(
        (answer.status, answer.json()["type"].as_str()),
        (404, Some("urn:backstop:problem:no-route")),
        "{}",
        answer.text()
    );

    let host = Host::start(&format!("{orders}\nrest: {{ destination: {vendor}, match: otherwise }}")).await;
    for (kind, route) in [("other", "rest"), ("order.created", "orders")] {
        let taken = messages(&publish(&host, kind, "1", "{}").await, 0);
        assert_eq!(taken.iter().map(|(route, _)| route.as_str()).collect::<Vec<_>>(), [route]);
    }
}

#[tokio::test]
async fn event_pipeline_an_event_that_does_not_fit_is_put_aside_without_an_attempt() {
    let vendor = Vendor::answering([ok()]).await;
    let place = Setup::routes(&format!("orders: {{ destination: {vendor}, match: true, schema: order.json }}")).place();
    place.write(
        "order.json",
        r#"{"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}"#,
    );
    let host = Host::start_in(place).await;

    let fits = publish(&host, "order.created", "1", r#"{"total": 7}"#).await;
    host.until(&messages(&fits, 0)[0].1, "delivered").await;
    let misfit = publish(&host, "order.created", "2", r#"{"total": "seven"}"#).await;
    assert_eq!(misfit.status, 202, "{}", misfit.text());
    assert_eq!(misfit.json()["events"][0]["messages"][0]["state"], "dead");
    let message = host.message(&messages(&misfit, 0)[0].1).await;
    assert_eq!((message["state"].as_str(), message["attempts"].as_u64()), (Some("dead"), Some(0)), "{message}");
    assert!(message["reason"].as_str().unwrap_or_default().contains("/total"), "{message}");
    assert_eq!(vendor.received().len(), 1);
}

#[tokio::test]
async fn event_pipeline_a_repeat_within_the_window_is_not_taken_again() {
    let vendor = Vendor::answering([ok()]).await;
    let host = Host::start(&format!(
        "
        once: {{ destination: '{vendor}', match: true, dedupe: source+id }}
        always: {{ destination: '{vendor}', match: true }}
        "
    ))
    .await;
    let first = publish(&host, "t", "1", "{}").await;
    let second = publish(&host, "t", "1", r#"{"other": "data"}"#).await;
    let of = |answer: &Answer, route: &str| messages(answer, 0).into_iter().find(|(name, _)| name == route);
    assert_eq!(of(&first, "once"), of(&second, "once"));
    assert_ne!(of(&first, "always"), of(&second, "always"));
    assert_eq!(second.json()["events"][0]["messages"][1]["repeated"], true, "{}", second.text());
    assert_eq!(vendor.receives(3).await.len(), 3);
}

#[tokio::test]
async fn event_pipeline_after_the_window_a_repeat_is_an_event_like_any_other() {
    let vendor = Vendor::answering([]).await;
    let host = Host::start(&format!(
        "once: {{ destination: '{vendor}', match: true, dedupe: {{ by: source+id, window: 1s }} }}"
    ))
    .await;
    let repeated = |answer: &Answer| answer.json()["events"][0]["messages"][0]["repeated"] == true;
    let (began, first) = (Stopwatch::start(), publish(&host, "t", "1", "{}").await);
    assert!(!repeated(&first), "{}", first.text());
    let later = eventually("the window's end", async || {
        let again = publish(&host, "t", "1", "{}").await;
        (!repeated(&again)).then_some(again)
    })
    .await;
    assert!(began.elapsed() >= Duration::from_secs(1), "the window was cut short: {:?}", began.elapsed());
    assert_ne!(messages(&first, 0), messages(&later, 0));
    vendor.receives(2).await;
}

#[tokio::test]
async fn event_pipeline_twice_in_one_batch_is_a_repeat_too() {
    let vendor = Vendor::answering([]).await;
    let host = Host::start(&format!("once: {{ destination: '{vendor}', match: true, dedupe: source+id }}")).await;
    let event = json!({ "specversion": "1.0", "type": "t", "source": "/s", "id": "1", "data": {} });
    let answer = publish_json(&host, "application/cloudevents-batch+json", &json!([event, event])).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(messages(&answer, 0)[0].1, messages(&answer, 1)[0].1, "{}", answer.text());
    host.until(&messages(&answer, 0)[0].1, "delivered").await;
    assert_eq!(vendor.received().len(), 1);
}

/// The schedule is the bus's own: the first retry comes a second after the first attempt, and not sooner.
#[tokio::test]
async fn event_pipeline_the_profile_tries_again_when_the_bus_would() {
    let vendor = Vendor::answering([status(503), ok()]).await;
    let host =
        Host::start(&format!("all: {{ destination: '{vendor}', match: true, retry: {{ profile: event-pipeline }} }}"))
            .await;
    let answer = publish(&host, "t", "1", "{}").await;
    vendor.receives(1).await;
    let first = Stopwatch::start();
    let message = host.until(&messages(&answer, 0)[0].1, "delivered").await;
    assert!(first.elapsed() >= Duration::from_millis(950), "{:?}", first.elapsed());
    assert_eq!((&message["attempts"], &message["journal"][0]["delay_ms"]), (&json!(2), &json!(1000)), "{message}");
}

/// It fails before it can be routed, which is final: neither lost nor delivered.
#[tokio::test]
async fn event_pipeline_an_event_that_a_match_cannot_judge_is_put_aside() {
    let vendor = Vendor::answering([]).await;
    let host = Host::start(&format!("all: {{ destination: '{vendor}', match: 'int(subject) > 3' }}")).await;
    let request = host.request(Method::POST, "/events").body("{}").header("ce-subject", "seven");
    let request = request.header("ce-specversion", "1.0").header("ce-type", "t").header("ce-id", "1");
    let answer = answer_to(request.header("ce-source", "/s")).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let message = host.message(&messages(&answer, 0)[0].1).await;
    assert_eq!((&message["state"], &message["attempts"]), (&json!("dead"), &json!(0)), "{message}");
    assert!(vendor.received().is_empty());
}

#[tokio::test]
async fn event_pipeline_of_a_batch_with_an_event_that_nobody_takes_nothing_is_taken() {
    let vendor = Vendor::answering([]).await;
    let host = Host::start(&format!("a: {{ destination: '{vendor}', match: type == \"a\", body_limit: 20 }}")).await;
    let event = |kind: &str, id: &str, data: &str| json!({ "specversion": "1.0", "type": kind, "source": "/s", "id": id, "datacontenttype": "text/plain", "data": data });
    for (batch, code, problem) in [
        (json!([event("a", "1", "short"), event("b", "2", "short")]), 404, "no-route"),
        (json!([event("a", "1", "short"), event("a", "2", &"long".repeat(10))]), 413, "body-too-long"),
    ] {
        let answer = publish_json(&host, "application/cloudevents-batch+json", &batch).await;
        assert_eq!(answer.status, code, "{}", answer.text());
        assert!(answer.json()["type"].as_str().is_some_and(|kind| kind.ends_with(problem)), "{}", answer.text());
    }
    let longer = format!("POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", (16 << 20) + 1);
    assert!(host.raw(longer).await.starts_with("HTTP/1.1 413"), "16 MiB at most");
    assert!(host.messages("").await.is_empty(), "nothing is stored");
}

/// One route has no room: the other has taken the event, and the publisher is told of both.
#[tokio::test]
async fn event_pipeline_a_publisher_is_told_which_routes_took_an_event_and_which_did_not() {
    let (free, stuck) = (Vendor::answering([]).await, Vendor::answering([]).await);
    stuck.answers_by(|_| status(503));
    let host = Host::start(&format!(
        "
        free: {{ destination: '{free}', match: true }}
        full: {{ destination: '{stuck}', match: true, max_queued: 1, retry: {{ min_delay: 10m, max_delay: 10m }} }}
        "
    ))
    .await;
    let first = publish(&host, "t", "1", "{}").await;
    assert_eq!((first.status, messages(&first, 0).len()), (202, 2), "{}", first.text());
    let second = publish(&host, "t", "2", "{}").await;
    assert_eq!((second.status, second.header("retry-after")), (503, "1".to_owned()), "{}", second.text());
    let told = &second.json()["events"][0]["messages"];
    assert_eq!((&told[0]["route"], &told[1]["route"]), (&json!("free"), &json!("full")), "{told}");
    host.until(told[0]["id"].as_str().expect("an id"), "delivered").await;
    assert!(told[1]["refused"].as_str().is_some_and(|why| why.contains("max_queued")), "{told}");
}

const JOINED: &str = "SELECT m.state, count(*), sum(CASE WHEN a.status = 503 THEN 1 ELSE 0 END), max(a.verdict)
    FROM archive_messages m JOIN archive_attempts a USING (message_uid, message_id)";

/// Publishes an event whose delivery fails once; answers its uid.
async fn delivered_at_the_second_attempt(store: &str) -> (Host, String) {
    let vendor = Vendor::answering([status(503), ok()]).await;
    let routes = format!("all: {{ destination: '{vendor}', match: true, retry: {{ min_delay: 10ms, jitter: none }} }}");
    let host = Setup::routes(&routes).setting("store", store).start().await;
    let answer = publish(&host, "t", "1", r#"{"n": 1}"#).await;
    host.until(&messages(&answer, 0)[0].1, "delivered").await;
    (host, uid(&answer))
}

#[tokio::test]
async fn event_pipeline_the_archive_joins_messages_and_attempts() {
    let (host, uid) = delivered_at_the_second_attempt("sqlite:backstop.db").await;
    let archive = Connection::open(host.place().path("backstop.db")).expect("the file");
    let found = archive
        .query_row(&format!("{JOINED} WHERE m.message_uid = ?1 GROUP BY m.state"), [&uid], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
        })
        .expect("the archive");
    assert_eq!(found, ("delivered".to_owned(), 2, 1, "retry".to_owned()));
    let first = "SELECT count(*) FROM archive_messages WHERE original IS NULL";
    assert_eq!(archive.query_row(first, [], |row| row.get::<_, i64>(0)).expect("the archive"), 1);
}

#[tokio::test]
async fn event_pipeline_the_archive_on_postgres_joins_them_alike() {
    let postgres = Postgres::start();
    let store = postgres.database();
    let (_host, uid) = delivered_at_the_second_attempt(&store).await;
    let found = postgres.query_at(&store, &format!("{JOINED} WHERE m.message_uid = '{uid}' GROUP BY m.state"));
    assert_eq!(found.trim(), "delivered|2|1|retry");
    let moments = "SELECT count(*) FROM archive_messages WHERE accepted_at::timestamptz > now() - interval '1 day'
        AND ended_at::timestamptz >= accepted_at::timestamptz";
    assert_eq!(postgres.query_at(&store, moments).trim(), "1");
}

#[tokio::test]
async fn event_pipeline_what_the_bus_refuses_is_refused() {
    let check = async |route: &str| {
        let output =
            Setup::routes(&format!("all: {{ destination: 'http://127.0.0.1:9', {route} }}")).run(&["check"]).await;
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (route, complaint) in [
        ("retry: { profile: event-pipeline, min_delay: 500ms }", "from 1s to 600s"),
        ("retry: { profile: event-pipeline, max_delay: 601s }", "from 1s to 600s"),
        ("retry: { profile: event-pipeline, max_attempts: 0 }", "whole number from 1"),
        ("retry: { profile: event-pipeline, factor: 3 }", "doubles each delay"),
        ("retry: { profile: event-pipeline, max_attempts: unlimited }", "max_attempts"),
        ("retry: { profile: event-pipeline, min_delay: 9s, max_delay: 8s }", "max_delay"),
        ("match: type ==", "line 1"),
        ("schema: order.json", "without a match"),
        ("match: true, mode: sync", "mode: async"),
        ("match: true, schema: absent.json", "cannot be read"),
    ] {
        let (good, said) = check(route).await;
        assert!(!good && said.contains(complaint), "{route}: {said}");
    }
    let (good, said) = check("match: true, retry: { profile: event-pipeline, min_delay: 5s, max_delay: 5s }").await;
    assert!(good, "{said}");
}
