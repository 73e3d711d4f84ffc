//! The configuration changes while the host serves: routes come, change and go, and nothing is dropped for that. What is
//! wrong with a file is said, and changes nothing. Messages of a route that is not served wait, in sight, until it is.

use std::sync::atomic::{AtomicBool, Ordering};

use backstop_tests::{Gate, Host, Setup, Vendor, eventually, ok, status};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The configuration with these routes, each as it stands in YAML, on the settings that hosts are started with here.
fn yaml(routes: &[&str]) -> String {
    let settings = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstore: sqlite:backstop.db\n";
    let routes: String = routes.iter().map(|route| format!("  {route}\n")).collect();
    format!("{settings}routes:\n{routes}")
}

/// Starts a host with these routes.
async fn start(routes: &[&str]) -> Host {
    let place = Setup::routes("").place();
    place.write("backstop.yaml", yaml(routes));
    Host::start_in(place).await
}

/// Puts a configuration in the place of the one there is, in one step, as many editors do.
fn save(host: &Host, text: &str) {
    host.place().write("saved.yaml", text);
    let renamed = std::fs::rename(host.place().path("saved.yaml"), host.place().path("backstop.yaml"));
    renamed.expect("the file is there");
}

/// How often the host said that it reloaded its configuration.
fn reloads(host: &Host) -> usize {
    host.log_lines("configuration reloaded").len()
}

/// Waits for one more reload than there were `before`, and returns its line.
async fn reloaded(host: &Host, before: usize) -> Value {
    let line =
        eventually("the reload", async || host.log_lines("configuration reloaded").into_iter().nth(before)).await;
    serde_json::from_str(&line).expect("a line of JSON")
}

/// Waits until the admin API tells why the file is refused.
async fn refusal(host: &Host) -> Value {
    eventually("the refusal", async || {
        Some(host.admin("/v1/config").await["refusal"].clone()).filter(|refusal| refusal.is_object())
    })
    .await
}

/// The route called `name` as the admin API lists it; null when it does not.
async fn listed(host: &Host, name: &str) -> Value {
    let listed = host.admin("/v1/routes").await;
    let routes = listed["routes"].as_array().cloned().unwrap_or_default();
    routes.into_iter().find(|route| route["route"] == name).unwrap_or_default()
}

/// Sends one request after the other to `path` on a single connection until `over`, and returns how many were answered
/// with 200. Any other answer, or the end of the connection, is a failure.
async fn keeps_being_served(host: &Host, path: &str, over: &AtomicBool) -> usize {
    let url = host.request(Method::GET, "/").build().expect("a request").url().clone();
    let address = format!("{}:{}", url.host_str().expect("a host"), url.port().expect("a port"));
    let mut stream = BufReader::new(TcpStream::connect(address).await.expect("it listens"));
    let request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{{}}");
    let mut answered = 0;
    while !over.load(Ordering::SeqCst) {
        stream.write_all(request.as_bytes()).await.expect("the connection lasts");
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            let read = stream.read_line(&mut line).await.expect("the connection lasts");
            assert!(read > 0, "the connection was closed after {answered} answers");
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            head.push(line);
        }
        assert!(head[0].starts_with("HTTP/1.1 200"), "after {answered} answers: {head:?}");
        assert!(head.iter().all(|line| !line.to_ascii_lowercase().starts_with("connection: close")), "{head:?}");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("a whole answer");
        answered += 1;
    }
    answered
}

#[tokio::test]
async fn config_reload_routes_come_change_and_go_while_another_is_served_on_one_connection() {
    let vendor = Vendor::answering([ok()]).await;
    let steady = format!("steady: {{ destination: {vendor}, mode: sync }}");
    let host = start(&[&steady]).await;
    let over = AtomicBool::new(false);

    let changes = async {
        assert_eq!(host.post("/r/fresh", "").await.status, 404);
        save(&host, &yaml(&[&steady, &format!("fresh: {{ destination: {vendor}/one }}")]));
        let line = reloaded(&host, 0).await;
        assert_eq!(
            (&line["added"], &line["changed"], &line["removed"]),
            (&"fresh".into(), &"none".into(), &"none".into())
        );
        let id = host.accept("/r/fresh", "").await;
        host.until(&id, "delivered").await;
        assert_eq!(vendor.received_at("/one").len(), 1);

        save(&host, &yaml(&[&steady, &format!("fresh: {{ destination: {vendor}/two, mode: sync }}")]));
        assert_eq!(reloaded(&host, 1).await["changed"], "fresh");
        assert_eq!(host.post("/r/fresh", "").await.status, 200, "it is a synchronous route now");
        assert_eq!(vendor.received_at("/two").len(), 1);

        save(&host, &yaml(&[&steady]));
        assert_eq!(reloaded(&host, 2).await["removed"], "fresh");
        assert_eq!(host.post("/r/fresh", "").await.status, 404);

        // A signal has the file read at once, whether it changed or not.
        host.signal("HUP").await;
        assert_eq!(reloaded(&host, 3).await["changed"], "none");
        host.place().write("backstop.yaml", yaml(&[&steady, &format!("again: {{ destination: {vendor} }}")]));
        host.signal("HUP").await;
        assert_eq!(reloaded(&host, 4).await["added"], "again");
        host.until(&host.accept("/r/again", "").await, "delivered").await;
        over.store(true, Ordering::SeqCst);
    };
    let (answered, ()) = tokio::join!(keeps_being_served(&host, "/r/steady", &over), changes);
    assert!(answered > 0, "there was traffic meanwhile");
    assert_eq!(reloads(&host), 5, "each is said once");
}

#[tokio::test]
async fn config_reload_a_bad_file_changes_nothing_says_why_and_can_be_mended() {
    let vendor = Vendor::answering([ok()]).await;
    let orders = format!("orders: {{ destination: {vendor} }}");
    let host = start(&[&orders]).await;
    let bad = "fresh: { destination: http://127.0.0.1:9, retrys: { max_attempts: 0 } }";
    save(&host, &yaml(&[&orders, bad]));

    let refusal = refusal(&host).await;
    let problem = &refusal["problems"][0];
    assert_eq!((&problem["line"], &problem["key"]), (&6.into(), &"routes.fresh.retrys".into()), "{refusal}");
    // The log is written a moment after what it tells of.
    let logged = async || Some(host.log_lines("changed configuration refused")).filter(|lines| !lines.is_empty());
    let said = eventually("the refusal to be logged", logged).await;
    assert!(said.len() == 1 && said[0].contains("backstop.yaml:6:") && said[0].contains("retrys"), "{said:?}");
    assert_eq!(host.post("/r/fresh", "").await.status, 404);
    host.until(&host.accept("/r/orders", "").await, "delivered").await;

    save(&host, &yaml(&[&orders, "fresh: { destination: http://127.0.0.1:9, retry: { max_attempts: 1 } }"]));
    assert_eq!(reloaded(&host, 0).await["added"], "fresh");
    assert_eq!(host.admin("/v1/config").await["refusal"], Value::Null);
    host.accept("/r/fresh", "").await;
}

#[tokio::test]
async fn config_reload_a_file_that_is_still_being_written_is_waited_for() {
    let vendor = Vendor::answering([ok()]).await;
    let orders = format!("orders: {{ destination: {vendor} }}");
    let host = start(&[&orders]).await;
    let whole = yaml(&[&orders, &format!("fresh: {{ destination: {vendor} }}")]);
    // Emptied first, then filled in pieces that are none of them good; and only then complete.
    for end in [0, whole.len() / 3, whole.len() - 12, whole.len()] {
        host.place().write("backstop.yaml", &whole[..end]);
        tokio::task::yield_now().await;
    }
    assert_eq!(reloaded(&host, 0).await["added"], "fresh");
    assert_eq!(host.log_lines("changed configuration refused"), [""; 0]);
}

#[tokio::test]
async fn config_reload_what_a_policy_refuses_changes_nothing_until_the_policy_is_there() {
    let vendor = Vendor::answering([ok()]).await;
    let orders = format!("orders: {{ destination: {vendor} }}");
    let host = start(&[&orders]).await;
    // A good new route beside a bad one: neither comes.
    let fresh = format!("fresh: {{ destination: {vendor} }}");
    let risky = |config: &str| {
        format!("risky: {{ destination: {vendor}, mode: sync, policy: risk-control, policy_config: {config} }}")
    };
    save(&host, &yaml(&[&orders, &fresh, &risky("{}")]));
    let missing = refusal(&host).await;
    assert_eq!(missing["problems"][0]["line"], 7, "{missing}");
    assert!(missing["problems"][0]["message"].as_str().is_some_and(|text| text.contains("no risk-control.wasm")));
    assert_eq!(host.post("/r/fresh", "").await.status, 404);

    // The policy comes, and with it the configuration that was refused for want of it.
    let policy = backstop_tests::artefacts::stock_policy("risk-control");
    host.place().drop_policy("risk-control", &policy);
    assert_eq!(reloaded(&host, 0).await["added"], "fresh, risky");
    assert_eq!(host.admin("/v1/config").await["refusal"], Value::Null);

    save(&host, &yaml(&[&orders, &risky("{ retriable: [X] }")]));
    let misfit = refusal(&host).await;
    assert_eq!(misfit["problems"][0]["line"], 6, "{misfit}");
    assert!(misfit["problems"][0]["key"].as_str().is_some_and(|key| key.contains("risky.policy")), "{misfit}");
    host.accept("/r/fresh", "").await;
    assert_eq!(reloads(&host), 1);
}

#[tokio::test]
async fn config_reload_a_removed_routes_messages_are_parked_in_sight_and_go_on_when_it_is_back() {
    let vendor = Vendor::answering([status(503)]).await;
    let other = format!("other: {{ destination: {vendor}/other }}");
    let orders = format!(
        "orders: {{ destination: {vendor}/orders, retry: {{ max_attempts: 1000, min_delay: 50ms, max_delay: 50ms }} }}"
    );
    let host = start(&[&other, &orders]).await;
    let id = host.accept("/r/orders", "").await;
    vendor.receives(2).await;

    save(&host, &yaml(&[&other]));
    reloaded(&host, 0).await;
    let parked = eventually("it to be parked", async || {
        Some(listed(&host, "orders").await).filter(|route| route["state"] == "parked" && route["open"] == 1)
    })
    .await;
    assert!(parked["why"].as_str().is_some_and(|why| why.contains("not configured")), "{parked}");
    assert_eq!(host.post("/r/orders", "").await.status, 404);
    // An attempt that was claimed before may still come to its end.
    let list = eventually("it to be listed", async || {
        Some(host.cli(&["messages", "list", "--state", "parked"]).await).filter(|list| list.contains(&id))
    })
    .await;
    assert!(list.contains("its route is not configured"), "{list}");
    let refused = host.try_cli(&["messages", "list", "--state", "parked", "--state", "dead"]).await;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("ask for it by itself"), "{why}");
    let shown = host.cli(&["messages", "show", &id]).await;
    assert!(shown.contains("parked     its route is not configured"), "{shown}");

    // Nothing is begun for it, however much another route does.
    let sent = vendor.received_at("/orders").len();
    vendor.answers_at("/other", [ok()]);
    for _ in 0..20 {
        host.until(&host.accept("/r/other", "").await, "delivered").await;
    }
    let sent_since = vendor.received_at("/orders").len() - sent;
    assert!(sent_since <= 1, "{sent_since} attempts of a message that is parked");
    vendor.now_answers([ok()]);

    save(&host, &yaml(&[&other, &orders]));
    let message = host.until(&id, "delivered").await;
    assert_eq!(message["parked"], Value::Null);
    assert_eq!(listed(&host, "orders").await["state"], "serving");
}

#[tokio::test]
async fn config_reload_messages_of_a_route_that_is_gone_for_good_can_be_given_up() {
    let vendor = Vendor::answering([status(503)]).await;
    let other = format!("other: {{ destination: {vendor}/other }}");
    let retry = "retry: { min_delay: 1h, max_delay: 1h }";
    let old = format!("old: {{ destination: {vendor}/old, {retry} }}");
    let host = start(&[&other, &old]).await;
    let ids = [host.accept("/r/old", "").await, host.accept("/r/old", "").await];
    for id in &ids {
        eventually("its first attempt", async || (host.message(id).await["attempts"] == 1).then_some(())).await;
    }
    let discard = ["messages", "discard", "--route", "old", "--all"];
    let served = host.try_cli(&discard).await;
    let why = String::from_utf8_lossy(&served.stderr).into_owned();
    assert!(!served.status.success() && why.contains("is served"), "{why}");

    save(&host, &yaml(&[&other]));
    reloaded(&host, 0).await;
    assert!(!host.try_cli(&discard[..4]).await.status.success(), "all of them must be asked for");
    assert_eq!(
        host.cli(&["messages", "discard", "--route", "old", "--reason", "no such reason"]).await,
        "0 discarded\n"
    );
    assert_eq!(host.cli(&discard).await, "2 discarded\n");
    for id in &ids {
        assert_eq!(host.message(id).await["state"], "discarded");
    }
    assert_eq!(listed(&host, "old").await, Value::Null, "nothing waits there any more");
}

#[tokio::test]
async fn config_reload_a_disabled_route_takes_nothing_in_is_no_fallback_and_goes_on_when_enabled() {
    let vendor = Vendor::answering([status(503)]).await;
    let retry = "retry: { max_attempts: 1000, min_delay: 50ms, max_delay: 50ms }";
    let orders = |enabled: bool| format!("orders: {{ destination: {vendor}/orders, enabled: {enabled}, {retry} }}");
    let first = format!(
        "first: {{ destination: {vendor}/first, retry: {{ max_attempts: 1 }}, fallback: {{ route: orders }} }}"
    );
    let host = start(&[&first, &orders(true)]).await;
    let id = host.accept("/r/orders", "").await;
    vendor.receives(1).await;

    save(&host, &yaml(&[&first, &orders(false)]));
    assert_eq!(reloaded(&host, 0).await["changed"], "orders");
    let refused = host.post("/r/orders", "").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["type"], "urn:backstop:problem:route-disabled");
    assert!(!refused.header("retry-after").is_empty());
    let queued = host.until(&id, "queued").await;
    assert!(queued["parked"].as_str().is_some_and(|why| why.contains("disabled")), "{queued}");
    assert_eq!(
        (&listed(&host, "orders").await["state"], listed(&host, "first").await["state"].as_str()),
        (&"parked".into(), Some("serving"))
    );
    let stranded = host.accept("/r/first", "").await;
    let stranded = host.until(&stranded, "dead").await;
    assert_eq!(stranded["route"], "first", "a fallback that is disabled is not taken");
    assert!(stranded["journal"][0]["clamped"].to_string().contains("is disabled"), "{stranded}");

    vendor.now_answers([ok()]);
    save(&host, &yaml(&[&first, &orders(true)]));
    host.until(&id, "delivered").await;
}

#[tokio::test]
async fn config_reload_an_attempt_under_way_ends_under_the_terms_it_began_with() {
    let gate = Gate::closed();
    let vendor = Vendor::answering([status(503).held_by(&gate), status(503), ok()]).await;
    let orders = |attempts: u32| {
        format!(
            "orders: {{ destination: {vendor}, retry: {{ max_attempts: {attempts}, min_delay: 10ms, max_delay: 10ms }} }}"
        )
    };
    let host = start(&[&orders(1)]).await;
    let before = host.accept("/r/orders", "").await;
    vendor.receives(1).await;
    save(&host, &yaml(&[&orders(5)]));
    reloaded(&host, 0).await;
    gate.open();
    assert_eq!(host.until(&before, "dead").await["attempts"], 1, "the old terms allowed one attempt");
    let after = host.accept("/r/orders", "").await;
    assert_eq!(host.until(&after, "delivered").await["attempts"], 2, "the new ones allow more");
}

#[tokio::test]
async fn config_reload_a_changed_rate_holds_at_once_for_what_waits_by_the_one_before() {
    let vendor = Vendor::answering([ok()]).await;
    let queued = |rate| format!("queued: {{ destination: '{vendor}', rate: {rate} }}");
    let left = |rate| format!("left: {{ destination: '{vendor}', mode: sync_then_async, deadline: 1s, rate: {rate} }}");
    let host = start(&[&queued(0.001), &left(0.001)]).await;
    let first = host.accept("/r/queued", "").await;
    host.until(&first, "delivered").await;
    assert_eq!(host.post("/r/left", "").await.status, 200);
    let waiting = [host.accept("/r/queued", "").await, host.accept("/r/left", "").await];

    save(&host, &yaml(&[&queued(0.01), &left(0.01)]));
    reloaded(&host, 0).await;
    for id in waiting {
        host.until(&id, "delivered").await;
    }
}

#[tokio::test]
async fn config_reload_a_key_that_needs_a_restart_is_named_and_the_rest_applied() {
    let vendor = Vendor::answering([ok()]).await;
    let host = start(&[&format!("orders: {{ destination: {vendor} }}")]).await;
    let text = yaml(&[&format!("fresh: {{ destination: {vendor} }}")]);
    save(&host, &format!("max_in_flight: 7\nstate: none\n{text}"));
    let line = reloaded(&host, 0).await;
    assert_eq!((&line["added"], &line["removed"]), (&"fresh".into(), &"orders".into()));
    let warned = eventually("the warning", async || host.log_lines("wait for a restart").pop()).await;
    assert!(warned.contains("state, max_in_flight"), "{warned}");
    let config = host.admin("/v1/config").await;
    assert_eq!(config["waits_for_restart"], serde_json::json!(["state", "max_in_flight"]));
    host.until(&host.accept("/r/fresh", "").await, "delivered").await;
}

#[tokio::test]
async fn config_reload_a_secret_that_is_rotated_in_its_file_is_used_from_then_on() {
    let vendor = Vendor::answering([ok()]).await;
    let auth = "auth: { header: { name: x-key, value: '${file:key}' } }";
    let place = Setup::routes("").place();
    place.write("key", "the first");
    place.write("backstop.yaml", yaml(&[&format!("orders: {{ destination: {{ url: '{vendor}', {auth} }} }}")]));
    let host = Host::start_in(place).await;
    host.until(&host.accept("/r/orders", "").await, "delivered").await;
    host.place().write("key", "the second");
    assert_eq!(reloaded(&host, 0).await["changed"], "orders");
    host.until(&host.accept("/r/orders", "").await, "delivered").await;
    let keys: Vec<String> = vendor.received().iter().map(|request| request.header("x-key")).collect();
    assert_eq!(keys, ["the first", "the second"]);
    assert!(!host.log().contains("the second"), "it is not said");
}

/// Senders at once, and reloads under their load.
const SENDERS: usize = 8;
const RELOADS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_reload_a_storm_of_reloads_loses_no_message_that_was_accepted() {
    let vendor = Vendor::answering([]).await;
    // Every other message needs a second attempt, so that some always wait for one.
    vendor.answers_by(|request| if request.header("backstop-attempt") == "1" { status(503) } else { ok() });
    let steady = format!("steady: {{ destination: {vendor}, mode: async }}");
    let orders = |more: &str| {
        let retry = "retry: { max_attempts: 100, min_delay: 10ms, max_delay: 50ms }";
        format!("orders: {{ destination: {vendor}, {retry}{more} }}")
    };
    let served = yaml(&[&steady, &orders("")]);
    let forms = [
        yaml(&[&steady]),
        served.clone(),
        yaml(&[&steady, &orders(", enabled: false")]),
        yaml(&[&steady, &orders(", concurrency: 1")]),
        yaml(&[&steady, &orders(", mode: sync_then_async")]),
    ];
    let host = start(&[&steady, &orders("")]).await;
    let over = AtomicBool::new(false);

    let send = async || {
        let mut accepted = Vec::new();
        while !over.load(Ordering::SeqCst) {
            let answer = host.post("/r/orders", "").await;
            match answer.status {
                202 => accepted.push(answer.json()["id"].as_str().expect("an id").to_owned()),
                200 | 404 | 503 => {}
                other => panic!("{other}: {}", answer.text()),
            }
            let id = host.accept("/r/steady", "").await;
            accepted.push(id);
        }
        accepted
    };
    let storm = async {
        for (round, form) in forms.iter().cycle().take(RELOADS).enumerate() {
            save(&host, form);
            host.signal("HUP").await;
            eventually("the reload", async || (reloads(&host) > round).then_some(())).await;
        }
        save(&host, &served);
        host.signal("HUP").await;
        eventually("the last reload", async || (reloads(&host) > RELOADS).then_some(())).await;
        over.store(true, Ordering::SeqCst);
    };
    let (accepted, ()) = tokio::join!(join_all((0..SENDERS).map(|_| send())), storm);
    let accepted: Vec<String> = accepted.into_iter().flatten().collect();
    assert!(accepted.len() > SENDERS, "there was traffic meanwhile");
    for id in &accepted {
        host.until(id, "delivered").await;
    }
    assert_eq!(host.log_lines("panicked"), [""; 0]);
}
