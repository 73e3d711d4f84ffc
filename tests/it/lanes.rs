//! Lanes: what one destination does, or asks for, is its own lane's business. Rate, circuit breaker, retry budget, and
//! messages that are delivered in order.

use std::time::Duration;

use backstop_tests::{Gate, Host, Received, Reply, Vendor, black_hole, eventually, ok, status};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;

/// A destination that fails the first attempt of every message.
fn fails_first(request: &Received) -> Reply {
    if request.header("backstop-attempt") == "1" { status(503) } else { ok() }
}

/// Checks that at no time since the vendor's start, when nothing had been sent yet, more requests had arrived than a
/// rate of `per_second` with this burst allows.
#[track_caller]
fn assert_kept(received: &[Received], per_second: f64, burst: f64) {
    for (before, request) in received.iter().enumerate() {
        let allowed = burst + per_second * request.at.as_secs_f64();
        assert!(before as f64 + 1.0 <= allowed, "request {} came after {:?}", before + 1, request.at);
    }
}

/// What the admin API says of a route.
async fn lane(host: &Host, route: &str) -> Value {
    let routes = host.admin("/v1/routes").await;
    let known = routes["routes"].as_array().cloned().unwrap_or_default();
    known.into_iter().find(|shown| shown["route"] == route).unwrap_or_default()
}

async fn until_breaker(host: &Host, route: &str, state: &str) {
    let what = format!("the breaker of {route} to be {state}");
    eventually(&what, async || (lane(host, route).await["breaker"]["state"] == state).then_some(())).await;
}

/// POSTs a message that belongs to the order called `key`, and returns its id.
pub(crate) async fn accept_in(host: &Host, route: &str, key: &str, body: &str) -> String {
    let request = host.request(Method::POST, &format!("/r/{route}")).header("x-key", key).body(body.to_owned());
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 202);
    answer.headers()["backstop-message-id"].to_str().expect("an id").to_owned()
}

#[tokio::test]
async fn lanes_a_rate_is_kept_and_retries_count() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(fails_first);
    let routes = format!(
        "
        orders:
          destination: {vendor}
          rate: {{ per_second: 20, burst: 2 }}
          retry: {{ min_delay: 10ms, jitter: none }}
        "
    );
    let host = Host::start(&routes).await;
    let ids = join_all((0..15).map(|_| host.accept("/r/orders", ""))).await;
    for id in ids {
        assert_eq!(host.until(&id, "delivered").await["attempts"], 2);
    }
    assert_kept(&vendor.receives(30).await, 20.0, 2.0);
}

#[tokio::test]
async fn lanes_a_rate_is_kept_for_callers_that_wait() {
    let vendor = Vendor::answering([ok()]).await;
    let host = Host::start(&format!(
        "
        orders: {{ destination: '{vendor}', mode: sync, deadline: 30s, rate: {{ per_second: 10, burst: 1 }} }}
        hasty: {{ destination: '{vendor}', mode: sync, deadline: 1s, rate: 0.01 }}
        crowded: {{ destination: '{vendor}', mode: sync, deadline: 1s, rate: {{ per_second: 2, burst: 1 }} }}
        "
    ))
    .await;
    let answers = join_all((0..10).map(|_| host.post("/r/orders", ""))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_kept(&vendor.receives(10).await, 10.0, 1.0);

    assert_eq!(host.post("/r/hasty", "").await.status, 200);
    let refused = host.post("/r/hasty", "").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.json()["type"], "urn:backstop:problem:rate-used-up");
    assert!(refused.json()["detail"].as_str().is_some_and(|why| why.contains("rate is used up")), "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"));

    let answers = join_all((0..10).map(|_| host.post("/r/crowded", ""))).await;
    // One whose attempt began just before its deadline may hear that it was too late.
    for refused in answers.iter().filter(|answer| answer.status == 503) {
        assert!(refused.json()["detail"].as_str().is_some_and(|why| why.contains("rate")), "{refused:?}");
    }
}

#[tokio::test]
async fn lanes_a_breaker_opens_probes_once_and_closes() {
    let vendor = Vendor::answering([status(503)]).await;
    let routes = format!(
        "
        orders:
          destination: {vendor}
          breaker: {{ min_attempts: 3, open_for: 500ms }}
          retry: {{ min_delay: 10ms, max_delay: 20ms, jitter: none, max_attempts: 20 }}
        others:
          destination: {vendor}/others
          retry: {{ min_delay: 100ms, jitter: none }}
        "
    );
    let host = Host::start(&routes).await;
    let mut ids = join_all((0..3).map(|_| host.accept("/r/orders", ""))).await;
    until_breaker(&host, "orders", "open").await;
    let before = vendor.received().len();

    let gate = Gate::closed();
    vendor.answers_at("/", [ok().held_by(&gate)]);
    vendor.answers_at("/others", [status(503), status(503), ok()]);
    ids.extend(join_all((0..5).map(|_| host.accept("/r/orders", ""))).await);
    vendor.receives(before + 1).await;
    until_breaker(&host, "orders", "half_open").await;
    // While another route has the time for two retries, nothing follows the probe.
    let other = host.accept("/r/others", "").await;
    host.until(&other, "delivered").await;
    let probes = vendor.received_at("/").len();
    gate.open();
    for id in &ids {
        host.until(id, "delivered").await;
    }
    until_breaker(&host, "orders", "closed").await;
    assert_eq!(probes, before + 1, "one probe at a time");
    for state in ["open", "half_open", "closed"] {
        let named = format!("\"state\":\"{state}\"");
        let said = async || host.log_lines("circuit breaker").iter().any(|line| line.contains(&named)).then_some(());
        eventually(&format!("{state} to be in the log"), said).await;
    }
    assert_eq!(host.message(&ids[3]).await["attempts"], 1, "who waited used no attempt");
}

#[tokio::test]
async fn lanes_callers_do_not_wait_for_an_open_breaker_beyond_their_deadline() {
    let vendor = Vendor::answering([status(500)]).await;
    let breaker = "breaker: { min_attempts: 1, open_for: 1h }, retry: { max_attempts: 1 }";
    let host = Host::start(&format!(
        "
        plain: {{ destination: '{vendor}', mode: sync, {breaker} }}
        answered: {{ destination: '{vendor}', mode: sync, {breaker}, fallback: {{ json: {{ result: pass }} }} }}
        queued: {{ destination: '{vendor}', mode: sync_then_async, {breaker} }}
        "
    ))
    .await;
    for route in ["plain", "answered", "queued"] {
        host.post(&format!("/r/{route}"), "").await;
        until_breaker(&host, route, "open").await;
    }
    let plain = host.post("/r/plain", "").await;
    assert_eq!(
        (plain.status, plain.json()["type"].clone()),
        (503, Value::from("urn:backstop:problem:breaker-open")),
        "{plain:?}"
    );
    assert!(plain.headers.contains_key("retry-after"));
    let answered = host.post("/r/answered", "").await;
    assert_eq!((answered.status, answered.json()["result"].clone()), (200, Value::from("pass")));
    let messages = host.messages("answered").await;
    let told = |message: &Value| message["reason"].as_str().is_some_and(|why| why.contains("circuit breaker is open"));
    assert!(messages.iter().any(told), "{messages:?}");
    assert_eq!(host.post("/r/queued", "").await.status, 202);
    assert_eq!(vendor.received().len(), 3, "one attempt on each route, and none since");
}

#[tokio::test]
async fn lanes_a_retry_budget_withholds_and_delivers_in_the_end() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(fails_first);
    let routes = format!(
        "
        orders:
          destination: {vendor}
          retry: {{ min_delay: 10ms, jitter: none, budget: {{ share: 20%, reserve: 2, window: 1s }} }}
        "
    );
    let host = Host::start(&routes).await;
    let ids = join_all((0..10).map(|_| host.accept("/r/orders", ""))).await;
    let mut withheld = 0;
    for id in &ids {
        let message = host.until(id, "delivered").await;
        assert_eq!(message["attempts"], 2, "{message}");
        withheld += u64::from(message["journal"][1]["withheld"] == "retry_budget");
    }
    assert!(withheld >= 4, "ten first attempts pay for two retries, and two a second there are: {withheld}");
    assert_eq!(lane(&host, "orders").await["withheld"], withheld);
    let retries: Vec<Duration> = vendor
        .received()
        .into_iter()
        .filter_map(|request| (request.header("backstop-attempt") == "2").then_some(request.at))
        .collect();
    assert!(retries[9] - retries[0] >= Duration::from_secs(1), "not all in one window: {retries:?}");
    let shown = host.cli(&["messages", "show", &ids[9]]).await;
    let tells = host.message(&ids[9]).await["journal"][1]["withheld"] == "retry_budget";
    assert_eq!(shown.contains("retry budget"), tells, "{shown}");
}

#[tokio::test]
async fn lanes_messages_of_one_key_arrive_in_order_while_others_go_on() {
    let gate = Gate::closed();
    let held = gate.clone();
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(move |request| match (request.text().as_str(), request.header("backstop-attempt").as_str()) {
        ("first", "1") => status(503).held_by(&held),
        ("first", "2") => status(503),
        _ => ok(),
    });
    let routes = format!(
        "
        orders:
          destination: {vendor}
          order_by: header:x-key
          retry: {{ min_delay: 10ms, jitter: none }}
        "
    );
    let host = Host::start(&routes).await;
    let mut of_the_key = Vec::new();
    for body in ["first", "second", "third", "fourth"] {
        of_the_key.push(accept_in(&host, "orders", "k", body).await);
    }
    let mut others: Vec<String> = Vec::new();
    for key in ["a", "a", "b"] {
        others.push(accept_in(&host, "orders", key, "other").await);
    }
    others.push(host.accept("/r/orders", "without a key").await);
    for id in &others {
        host.until(id, "delivered").await;
    }
    let texts = |of: &str| {
        let received = vendor.received().into_iter().filter(|request| request.all("x-key") == [of]);
        received.map(|request| request.text()).collect::<Vec<_>>()
    };
    assert_eq!(texts("k"), ["first"], "nothing of the key has overtaken its head");
    gate.open();
    for id in &of_the_key {
        host.until(id, "delivered").await;
    }
    assert_eq!(texts("k"), ["first", "first", "first", "second", "third", "fourth"]);
}

#[tokio::test]
async fn lanes_behind_a_dead_letter_an_order_blocks_or_goes_on_as_the_route_says() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(|request| if request.text() == "bad" { status(404) } else { ok() });
    let routes = format!(
        "
        blocks: {{ destination: '{vendor}', order_by: 'header:x-key' }}
        skips: {{ destination: '{vendor}', order_by: {{ key: 'header:x-key', on_failure: skip }} }}
        "
    );
    let host = Host::start(&routes).await;
    let mut bad = Vec::new();
    let mut next = Vec::new();
    for route in ["blocks", "skips"] {
        bad.push(accept_in(&host, route, "k", "bad").await);
        next.push(accept_in(&host, route, "k", "good").await);
    }
    host.until(&bad[0], "dead").await;
    host.until(&bad[1], "dead").await;
    host.until(&next[1], "delivered").await;
    let other = accept_in(&host, "blocks", "other", "good").await;
    host.until(&other, "delivered").await;
    assert_eq!(host.message(&next[0]).await["state"], "queued", "it waits for a person");
    let waits = host.cli(&["messages", "show", &next[0]]).await;
    assert!(waits.contains(&format!("order      k: behind {}, a dead letter that blocks it", bad[0])), "{waits}");
    let blocks = host.cli(&["messages", "show", &bad[0]]).await;
    assert!(blocks.contains("order      k: blocks those behind it"), "{blocks}");
    let dead = host.cli(&["dead", "list"]).await;
    let marked = |id: &str| dead.lines().any(|line| line.starts_with(id) && line.contains("blocks its order, k: "));
    assert!(marked(&bad[0]) && !marked(&bad[1]), "{dead}");
    host.cli(&["dead", "discard", &bad[0]]).await;
    host.until(&next[0], "delivered").await;
}

#[tokio::test]
async fn lanes_a_destination_that_swallows_everything_delays_no_other() {
    let (hole, vendor) = (Vendor::answering([black_hole()]).await, Vendor::answering([ok()]).await);
    let names: Vec<String> = (0..10).map(|number| format!("good-{number}")).collect();
    let others: String = names.iter().map(|name| format!("        {name}: {{ destination: '{vendor}' }}\n")).collect();
    let hangs = format!("        hole: {{ destination: {{ url: '{hole}', timeout: 1h }}, concurrency: 4 }}\n");
    let host = Host::start(&(hangs + &others)).await;
    join_all((0..50).map(|_| host.accept("/r/hole", ""))).await;
    hole.receives(4).await;
    let paths: Vec<String> = names.iter().map(|name| format!("/r/{name}")).collect();
    let ids = join_all(paths.iter().flat_map(|path| (0..20).map(|_| host.accept(path, "")))).await;
    for id in ids {
        host.until(&id, "delivered").await;
    }
    assert_eq!(hole.received().len(), 4, "it still has all that it may have at once");
    assert_eq!(lane(&host, "hole").await["open"], 50);
}

#[tokio::test]
async fn lanes_a_retry_budget_withholds_the_retries_of_callers_that_wait() {
    let (gate, vendor) = (Gate::closed(), Vendor::answering([]).await);
    let held = gate.clone();
    vendor.answers_by(move |request| match request.header("backstop-attempt").as_str() {
        "1" => status(503).held_by(&held),
        _ => ok(),
    });
    let routes = format!(
        "
        orders:
          destination: {vendor}
          mode: sync
          retry: {{ min_delay: 10ms, jitter: none, budget: {{ share: 1%, reserve: 1, window: 1s }} }}
        "
    );
    let host = Host::start(&routes).await;
    let callers = join_all((0..4).map(|_| host.post("/r/orders", "")));
    let fail_at_once = async {
        vendor.receives(4).await;
        gate.open();
    };
    let (answers, ()) = tokio::join!(callers, fail_at_once);
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let withheld = lane(&host, "orders").await["withheld"].as_u64();
    assert!(withheld.is_some_and(|count| (1..=3).contains(&count)), "one retry a second there is: {withheld:?}");
}
