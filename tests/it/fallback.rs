//! A second vendor for the first one's outage: `fallback: { route: … }`.

use backstop_tests::{Host, Setup, Vendor, ok, status};

async fn two_vendors(first: &Vendor, second: &Vendor, mode: &str) -> Host {
    let routes = format!(
        "
        first:
          destination: {first}/one
          mode: {mode}
          retry: {{ max_attempts: 2, min_delay: 10ms, max_delay: 10ms }}
          fallback: {{ route: second }}
        second:
          destination: {second}/two
          mode: {mode}
          retry: {{ max_attempts: 2, min_delay: 10ms, max_delay: 10ms }}
        "
    );
    Host::start(&routes).await
}

#[tokio::test]
async fn fallback_a_second_vendor_takes_over_for_a_caller_who_waits() {
    let (first, second) = (Vendor::answering([status(503)]).await, Vendor::answering([ok().body("second")]).await);
    let host = two_vendors(&first, &second, "sync").await;
    let answer = host.post("/r/first/pay?x=1", "{}").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "second"));
    assert_eq!((first.received().len(), second.received().len()), (2, 1));
    assert_eq!(second.received()[0].target, "/two/pay?x=1");
}

#[tokio::test]
async fn fallback_a_second_vendor_takes_over_a_queued_message_with_attempts_of_its_own() {
    let (first, second) = (Vendor::answering([status(503)]).await, Vendor::answering([status(503), ok()]).await);
    let host = two_vendors(&first, &second, "async").await;
    let id = host.accept("/r/first", "{}").await;
    let message = host.until(&id, "delivered").await;
    assert_eq!((&message["attempts"], &message["route"]), (&4.into(), &"second".into()));
    let ids = [first.received(), second.received()].concat();
    assert!(ids.iter().all(|request| request.header("backstop-message-id") == id), "one message, one id");
}

#[tokio::test]
async fn fallback_a_circle_of_routes_that_policies_make_comes_to_an_end() {
    let vendor = Vendor::answering([status(503)]).await;
    let sends_it = |route: &str| format!("{{ rules: [{{ status: 503, verdict: fall_back, route: {route} }}] }}");
    let host = Host::start(&format!(
        "
        here:
          destination: {vendor}
          policy: vendor-codes
          policy_config: {}
        there:
          destination: {vendor}
          policy: vendor-codes
          policy_config: {}
        ",
        sends_it("there"),
        sends_it("here")
    ))
    .await;
    let id = host.accept("/r/here", "{}").await;
    let message = host.until(&id, "dead").await;
    assert_eq!(message["attempts"], 5, "the first route and four hops: {message}");
    assert!(message["journal"][4]["clamped"].to_string().contains("too many fallback routes"), "{message}");
}

#[tokio::test]
async fn fallback_a_circle_of_routes_in_the_configuration_is_refused() {
    let route = |other: &str| format!("{{ destination: 'http://127.0.0.1:9', fallback: {{ route: {other} }} }}");
    let routes = format!("here: {}\nthere: {}\n", route("there"), route("here"));
    let output = Setup::routes(&routes).run(&["check"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("here") && said.contains("there"), "{said}");
}
