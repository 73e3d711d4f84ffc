//! What the ingress refuses, and how it says so: RFC 9457 problems, each with its status.

use backstop_tests::host::{Answer, answer_to};
use backstop_tests::{Gate, Host, Setup, Vendor, black_hole, ok, status};
use futures_util::future::join_all;

/// Every problem has the same shape.
fn is_problem(answer: &Answer, status: u16, kind: &str, instance: &str) {
    let problem = answer.json();
    assert_eq!((answer.status, answer.header("content-type").as_str()), (status, "application/problem+json"));
    assert_eq!(problem["type"], format!("urn:backstop:problem:{kind}"), "{problem}");
    assert_eq!((&problem["status"], &problem["instance"]), (&status.into(), &instance.into()), "{problem}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
}

async fn orders(vendor: &Vendor, more: &str) -> Host {
    Host::start(&format!("orders:\n  destination: {vendor}\n  body_limit: 1KiB\n{more}")).await
}

#[tokio::test]
async fn ingress_an_unknown_route_is_404() {
    let vendor = Vendor::answering([ok()]).await;
    let host = orders(&vendor, "").await;
    is_problem(&host.post("/r/nowhere/x", "").await, 404, "unknown-route", "/r/nowhere/x");
    is_problem(&host.post("/elsewhere", "").await, 404, "not-found", "/elsewhere");
}

#[tokio::test]
async fn ingress_a_body_that_is_too_long_is_413() {
    let vendor = Vendor::answering([ok()]).await;
    let host = orders(&vendor, "").await;
    is_problem(&host.post("/r/orders", vec![b'x'; 1025]).await, 413, "body-too-long", "/r/orders");
    assert_eq!(host.post("/r/orders", vec![b'x'; 1024]).await.status, 202);
}

#[tokio::test]
async fn ingress_a_path_that_could_leave_the_destination_is_400() {
    let vendor = Vendor::answering([ok()]).await;
    let host = orders(&vendor, "").await;
    for path in ["/../admin", "/a/%2e%2E/b", "/./a", "//evil.example/", "/a\\..\\b"] {
        let request = format!("GET /r/orders{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = host.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
    assert!(vendor.received().is_empty());
}

#[tokio::test]
async fn ingress_more_than_may_be_in_flight_is_503_with_a_retry_after() {
    let gate = Gate::closed();
    let vendor = Vendor::answering([ok().held_by(&gate)]).await;
    let setup = Setup::routes(&format!("checks:\n  destination: {vendor}\n  mode: sync")).setting("max_in_flight", "1");
    let host = setup.start().await;
    let second = async {
        vendor.receives(1).await;
        let refused = host.post("/r/checks", "").await;
        gate.open();
        refused
    };
    let (first, refused) = tokio::join!(host.post("/r/checks", ""), second);
    assert_eq!(first.status, 200);
    is_problem(&refused, 503, "saturated", "/r/checks");
    assert_eq!(refused.header("retry-after"), "1");
}

#[tokio::test]
async fn ingress_more_than_a_route_may_queue_is_503_and_never_accepted() {
    let vendor = Vendor::answering([status(503)]).await;
    let host = orders(&vendor, "  max_queued: 2\n  retry: { min_delay: 1h, max_delay: 1h }").await;
    host.accept("/r/orders", "1").await;
    host.accept("/r/orders", "2").await;
    let refused = host.post("/r/orders", "3").await;
    is_problem(&refused, 503, "saturated", "/r/orders");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(host.admin("/v1/messages").await["messages"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn ingress_a_malformed_idempotency_key_is_400() {
    let vendor = Vendor::answering([ok()]).await;
    let host = orders(&vendor, "").await;
    let request = host.request(reqwest::Method::POST, "/r/orders").header("idempotency-key", "\"open");
    is_problem(&backstop_tests::host::answer_to(request).await, 400, "bad-request", "/r/orders");
}

#[tokio::test]
async fn ingress_the_state_of_a_message_and_its_attempts_are_there_for_whoever_has_its_id() {
    let vendor = Vendor::answering([status(503).body("secret words"), ok()]).await;
    let host = orders(&vendor, "  retry: { min_delay: 10ms, max_delay: 10ms }").await;
    let accepted = host.post("/r/orders", "").await;
    let url = accepted.header("location");
    host.until(accepted.json()["id"].as_str().expect("an id"), "delivered").await;
    let shown = host.send(reqwest::Method::GET, &url, "").await;
    assert_eq!((shown.status, &shown.json()["state"]), (200, &"delivered".into()));
    assert_eq!(shown.json()["journal"][0]["outcome"]["status"], 503);
    assert!(!shown.text().contains("secret words"), "what the destination said is not for the caller");
    let unknown = "/v1/messages/01890000-0000-7000-8000-000000000000";
    is_problem(&host.send(reqwest::Method::GET, unknown, "").await, 404, "unknown-message", unknown);
}

#[tokio::test]
async fn ingress_the_admin_api_serves_no_page_of_another_site() {
    let vendor = Vendor::answering([ok()]).await;
    let host = orders(&vendor, "").await;
    let request = "GET /v1/routes HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let answer = host.raw_admin(request).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn ingress_backstop_send_tries_a_route() {
    let vendor = Vendor::answering([ok()]).await;
    let host = orders(&vendor, "").await;
    let said = host.cli(&["send", "orders", "/v1/orders?x=1", "-d", r#"{"id":7}"#]).await;
    assert!(said.starts_with("202"), "{said}");
    let received = &vendor.receives(1).await[0];
    assert_eq!((received.target.as_str(), received.text().as_str()), ("/v1/orders?x=1", r#"{"id":7}"#));
    assert_eq!(received.header("content-type"), "application/json");
}

#[tokio::test]
async fn ingress_no_page_of_another_site_sends_through_a_host_for_this_machine() {
    let vendor = Vendor::answering([ok()]).await;
    let host = orders(&vendor, "").await;
    for (origin, status) in [("http://evil.example", 403), ("null", 403), ("http://localhost:3000", 202)] {
        let answer = answer_to(host.request(reqwest::Method::POST, "/r/orders").header("origin", origin)).await;
        assert_eq!(answer.status, status, "{origin}");
    }
}

#[tokio::test]
async fn ingress_a_route_carries_no_tunnel() {
    let vendor = Vendor::answering([ok()]).await;
    let host = orders(&vendor, "").await;
    let answer = host.raw("CONNECT /r/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(host.messages("queued").await.is_empty() && vendor.received().is_empty());
}

/// A body that is too long by its own account is refused before it is read.
#[tokio::test]
async fn ingress_a_length_beyond_the_limit_is_refused_at_once() {
    let vendor = Vendor::answering([ok()]).await;
    let host = orders(&vendor, "").await;
    let answer =
        host.raw("POST /r/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

/// One destination that hangs may take half of the ingress, and no more.
#[tokio::test]
async fn ingress_callers_of_a_route_that_hangs_leave_room_for_those_of_another() {
    let (hangs, works) = (Vendor::answering([black_hole()]).await, Vendor::answering([ok()]).await);
    let routes = format!(
        "
        hangs: {{ destination: {hangs}, mode: sync, deadline: 20s, concurrency: 1 }}
        works: {{ destination: {works}, mode: sync }}
        "
    );
    let host = Setup::routes(&routes).setting("max_in_flight", "8").start().await;
    let callers = join_all((0..12).map(|_| host.post("/r/hangs", "")));
    let others = async {
        hangs.receives(1).await;
        for _ in 0..20 {
            assert_eq!(host.post("/r/works", "").await.status, 200);
        }
    };
    tokio::select! {
        _ = callers => panic!("those that wait were not kept waiting"),
        () = others => {}
    }
}
