//! Policies in JavaScript and Python, built from the folders of their guides with the tools they pin, and asked by the
//! real host. That they serve says that they import nothing beyond the contract: any other file is refused.

use backstop_tests::languages::{javascript_policy, python_policy};
use backstop_tests::{Host, Reply, Setup, Vendor, black_hole, json, status};
use serde_json::{Value, json};

/// What both guides say a route sets.
const LIMITS: &str = "{ memory: 64MiB, fuel: 50000000, time: 1s }";

/// Reading a file and compiling it take far longer than asking it, so one host serves for all of the questions.
#[tokio::test]
async fn languages_policies_in_javascript_and_python_judge_what_real_vendors_answer() {
    let vendors = [Vendor::answering([]).await, Vendor::answering([]).await];
    let python = tokio::task::spawn_blocking(python_policy);
    let javascript = tokio::task::spawn_blocking(javascript_policy).await.expect("the policy");
    let python = python.await.expect("the policy");
    let setup = Setup::routes(&format!(
        "{}{}",
        route("javascript", &vendors[0], "vendor-busy-js", LIMITS),
        route("python", &vendors[1], "vendor-busy-py", LIMITS)
    ));
    let host = setup.policy("vendor-busy-js", javascript).policy("vendor-busy-py", python).start().await;
    for (route, vendor) in ["javascript", "python"].into_iter().zip(&vendors) {
        reads_the_code_in_the_body_and_the_header(&host, route, vendor).await;
        asks_for_the_method_when_there_is_no_answer(&host, route, vendor).await;
    }
}

async fn reads_the_code_in_the_body_and_the_header(host: &Host, route: &str, vendor: &Vendor) {
    vendor.now_answers([code("QUOTA").header("x-quota-reset", 1), code("BUSY"), status(502), code("FINE")]);
    let message = host.until(&host.accept(&format!("/r/{route}"), "{}").await, "delivered").await;
    let [quota, busy, bad_gateway, fine] = attempts(&message)[..] else { panic!("four attempts: {message}") };
    for attempt in attempts(&message) {
        assert_eq!(attempt["provenance"].get("failure"), None, "{attempt}");
        assert!(attempt["provenance"]["policy"]["name"].as_str().is_some_and(|name| name.starts_with("vendor-busy-")));
    }
    assert_eq!(said(quota), ("retry", "QUOTA"), "{message}");
    assert_eq!(quota["delay_ms"], 1000, "what the vendor's own header says");
    assert_eq!(quota["provenance"]["log"][0]["text"], "QUOTA: the vendor's quota is reset in 1 s");
    assert_eq!(said(busy), ("retry", "BUSY"), "{message}");
    assert_eq!(said(bad_gateway), ("retry", "status 502"), "{message}");
    assert_eq!(said(fine), ("accept", "FINE"), "{message}");

    vendor.now_answers([code("NO-SUCH-CUSTOMER")]);
    let message = host.until(&host.accept(&format!("/r/{route}"), "{}").await, "dead").await;
    assert_eq!(said(attempts(&message)[0]), ("dead_letter", "NO-SUCH-CUSTOMER"), "{message}");
}

async fn asks_for_the_method_when_there_is_no_answer(host: &Host, route: &str, vendor: &Vendor) {
    vendor.now_answers([black_hole(), code("FINE")]);
    let message = host.until(&host.accept(&format!("/r/{route}"), "{}").await, "dead").await;
    assert_eq!(said(attempts(&message)[0]), ("dead_letter", "timeout: the vendor may have done it"), "{message}");

    vendor.now_answers([black_hole(), code("FINE")]);
    let answer = host.send(reqwest::Method::GET, &format!("/r/{route}"), "").await;
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let message = host.until(&id, "delivered").await;
    assert_eq!(said(attempts(&message)[0]), ("retry", "timeout"), "{message}");
}

#[tokio::test]
async fn languages_what_a_route_cannot_have_is_said_with_the_mending() {
    let python = tokio::task::spawn_blocking(python_policy);
    let javascript = tokio::task::spawn_blocking(javascript_policy).await.expect("the policy");
    let python = python.await.expect("the policy");
    let nowhere = "http://127.0.0.1:9";
    let both = |route: String| route.replace("[FINE]", "[BUSY]");
    let routes = [
        route("small", nowhere, "vendor-busy-js", "{ memory: 8MiB }"),
        route("weak", nowhere, "vendor-busy-js", "{ memory: 64MiB, fuel: 10000 }"),
        both(route("torn", nowhere, "vendor-busy-js", LIMITS)),
        route("small-too", nowhere, "vendor-busy-py", "{ memory: 12MiB }"),
        both(route("torn-too", nowhere, "vendor-busy-py", LIMITS)),
    ];
    let setup = Setup::routes(&routes.concat()).policy("vendor-busy-js", javascript);
    let output = setup.policy("vendor-busy-py", python).run(&["check"]).await;
    let said = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for (route, words) in [
        ("small", "its limit is 8 MiB; if it needs more, raise the route's `policy_limits.memory`"),
        ("weak", "out of fuel: it used the 10000 units"),
        ("weak", "raise the route's `policy_limits.fuel`"),
        ("torn", "the policy refuses its configuration: BUSY is both a success and retryable"),
        ("small-too", "its limit is 12 MiB; if it needs more, raise the route's `policy_limits.memory`"),
        ("torn-too", "the policy refuses its configuration: BUSY is both a success and retryable"),
    ] {
        let line = said.lines().find(|line| line.contains(&format!("routes.{route}.policy")) && line.contains(words));
        assert!(line.is_some(), "{route}: no {words:?} in\n{said}");
    }
}

fn route(name: &str, vendor: impl std::fmt::Display, policy: &str, limits: &str) -> String {
    format!(
        "
        {name}:
          destination: {{ url: '{vendor}', timeout: 500ms }}
          policy: {policy}
          policy_config: {{ success: [FINE], retryable: [BUSY, QUOTA] }}
          policy_limits: {limits}
          retry: {{ max_attempts: 5, min_delay: 1ms, max_delay: 5s, jitter: none }}
        "
    )
}

/// The vendor's 200 with this code inside.
fn code(code: &str) -> Reply {
    json(200, &json!({ "code": code, "message": "…" }))
}

fn attempts(message: &Value) -> Vec<&Value> {
    message["journal"].as_array().map(|journal| journal.iter().collect()).unwrap_or_default()
}

/// An attempt's verdict and reason.
fn said(attempt: &Value) -> (&str, &str) {
    (attempt["verdict"].as_str().unwrap_or_default(), attempt["reason"].as_str().unwrap_or_default())
}
