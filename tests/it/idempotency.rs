//! `Idempotency-Key` on ingress, as in the IETF's draft: the same request again gets the same answer again.

use backstop_tests::host::{Answer, answer_to};
use std::time::Duration;

use backstop_tests::{Gate, Host, Vendor, eventually, ok};
use reqwest::Method;

async fn host(vendor: &Vendor) -> Host {
    let routes = format!(
        "
        queued:
          destination: {vendor}
        waited-for:
          destination: {vendor}
          mode: sync
        strict:
          destination: {vendor}
          idempotency: {{ required: true }}
        "
    );
    Host::start(&routes).await
}

async fn post(host: &Host, path: &str, key: &str, body: &'static str) -> Answer {
    answer_to(host.request(Method::POST, path).header("idempotency-key", key).body(body)).await
}

#[tokio::test]
async fn idempotency_the_same_request_again_gets_the_same_202_and_is_delivered_once() {
    let vendor = Vendor::answering([ok()]).await;
    let host = host(&vendor).await;
    let first = post(&host, "/r/queued/a", "\"k-1\"", "one").await;
    let again = post(&host, "/r/queued/a", "k-1", "one").await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.json()["id"], again.json()["id"], "quoted or bare, it is the same key");
    assert_eq!(again.header("backstop-replayed"), "true");
    host.until(first.json()["id"].as_str().expect("an id"), "delivered").await;
    assert_eq!(vendor.received().len(), 1);
}

#[tokio::test]
async fn idempotency_the_same_request_again_gets_the_same_answer_of_the_destination() {
    let vendor = Vendor::answering([ok().header("x-number", 1).body("first"), ok().body("second")]).await;
    let host = host(&vendor).await;
    let first = post(&host, "/r/waited-for", "k-1", "one").await;
    let again = post(&host, "/r/waited-for", "k-1", "one").await;
    assert_eq!((first.text().as_str(), again.text().as_str()), ("first", "first"));
    assert_eq!((again.header("x-number").as_str(), again.header("backstop-replayed").as_str()), ("1", "true"));
    assert_eq!(vendor.received().len(), 1);
}

#[tokio::test]
async fn idempotency_another_request_with_the_same_key_is_refused() {
    let vendor = Vendor::answering([ok()]).await;
    let host = host(&vendor).await;
    for route in ["queued", "waited-for"] {
        post(&host, &format!("/r/{route}"), "k-1", "one").await;
        let other = post(&host, &format!("/r/{route}"), "k-1", "two").await;
        assert_eq!(other.status, 422, "{other:?}");
        assert_eq!(other.json()["type"], "urn:backstop:problem:idempotency-key-reused");
    }
}

#[tokio::test]
async fn idempotency_a_key_whose_first_request_is_still_served_is_refused_for_now() {
    let gate = Gate::closed();
    let vendor = Vendor::answering([ok().body("late").held_by(&gate)]).await;
    let host = host(&vendor).await;
    let second = async {
        vendor.receives(1).await;
        let meanwhile = post(&host, "/r/waited-for", "k-1", "one").await;
        gate.open();
        meanwhile
    };
    let (first, meanwhile) = tokio::join!(post(&host, "/r/waited-for", "k-1", "one"), second);
    assert_eq!((first.text().as_str(), meanwhile.status), ("late", 409));
    assert_eq!(meanwhile.header("retry-after"), "1");
    assert_eq!(post(&host, "/r/waited-for", "k-1", "one").await.text(), "late");
}

#[tokio::test]
async fn idempotency_a_route_may_require_a_key() {
    let vendor = Vendor::answering([ok()]).await;
    let host = host(&vendor).await;
    let without = host.post("/r/strict", "one").await;
    assert_eq!(without.status, 400, "{without:?}");
    assert!(without.text().contains("Idempotency-Key"), "{without:?}");
    assert_eq!(post(&host, "/r/strict", "k-1", "one").await.status, 202);
}

#[tokio::test]
async fn idempotency_keys_outlive_a_restart() {
    let vendor = Vendor::answering([ok()]).await;
    let mut host = host(&vendor).await;
    let first = post(&host, "/r/queued", "k-1", "one").await;
    host.kill().await;
    host.restart().await;
    let again = post(&host, "/r/queued", "k-1", "one").await;
    assert_eq!(first.json()["id"], again.json()["id"]);
}

/// What the host began with the store it brings to its end, whether or not anybody waits for it.
#[tokio::test]
async fn idempotency_a_caller_that_hangs_up_leaves_no_key_in_flight_and_no_message_behind() {
    let vendor = Vendor::answering([ok()]).await;
    let host = host(&vendor).await;
    for route in ["queued", "waited-for"] {
        for n in 0..60_u64 {
            let key = format!("{route}-{n}");
            let request = host.request(Method::POST, &format!("/r/{route}")).header("idempotency-key", key).body("one");
            // Gone somewhere between the request and its answer: now here, now there.
            let _ = request.timeout(Duration::from_micros(300 * n)).send().await;
        }
        for n in 0..60 {
            eventually("the key is free, or its answer is given again", async || {
                let again = post(&host, &format!("/r/{route}"), &format!("{route}-{n}"), "one").await;
                (again.status != 409).then(|| assert!([200, 202].contains(&again.status), "{again:?}"))
            })
            .await;
        }
    }
    eventually("nothing waits any more", async || {
        let routes = host.admin("/v1/routes").await;
        routes["routes"].as_array()?.iter().all(|route| route["open"] == 0).then_some(())
    })
    .await;
}
