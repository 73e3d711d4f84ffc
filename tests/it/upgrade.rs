//! A newer binary goes on with an older one's file; an older binary leaves a newer one's alone.

use std::process::Output;

use backstop::clock::{Clock, SystemClock};
use backstop_tests::host::answer_to;
use backstop_tests::load::is_interrupted;
use backstop_tests::setup::Place;
use backstop_tests::{Host, Setup, Vendor, ok};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::json;

/// What a host of schema version 1 left when it was killed. See the file.
const SCHEMA_1: &str = include_str!("stores/schema-1.sql");
/// When it was killed, in milliseconds since the epoch.
const KILLED_AT: i64 = 1_795_309_863_309;
/// How long ago that is made to be: the retry that it had queued for half an hour later is due, and the hour of quiet
/// that one destination had asked for is not over.
const KILLED_AGO: i64 = 31 * 60 * 1000;

// What it had been told, and what had become of it.
const DELIVERED: &str = "01a200ce-7d98-708d-a5f1-1a63b4590abb";
const REFUSED: &str = "01a200ce-7d9b-79de-b13f-f55e513898f1";
const FAILED_ONCE: &str = "01a200ce-7d9d-7a7e-a2b8-c3c095b0fbc0";
const UNDER_A_KEY: &str = "01a200ce-7d9f-77e2-9c09-9774d35e87e3";
const ASKED_FOR_QUIET: &str = "01a200ce-7da3-757c-aba3-605f780ee8f6";
const IN_FLIGHT: &str = "01a200ce-818d-7d36-ad92-1ca4bcf67d80";

fn routes(vendor: &Vendor, quiet: &Vendor) -> Setup {
    Setup::routes(&format!(
        "
        orders:
          destination: {vendor}
          retry: {{ max_attempts: 5, min_delay: 30m, max_delay: 30m, jitter: none }}
        waited-for:
          destination: {vendor}
          mode: sync
        quiet:
          destination: {quiet}
        "
    ))
}

/// Makes the file of a host of schema version 1 that was killed a while ago.
fn leave_a_file_of_version_1(place: &Place, quiet: &Vendor) {
    let store = Connection::open(place.path("backstop.db")).expect("a new file");
    store.execute_batch(&SCHEMA_1.replace("http://127.0.0.1:47002", &quiet.to_string())).expect("the dump");
    let now = i64::try_from(SystemClock.now().as_millis()).expect("a moment in our time");
    let passed = now - KILLED_AGO - KILLED_AT;
    store
        .execute_batch(&format!(
            "UPDATE messages SET due_at = due_at + {passed}, lease_until = lease_until + {passed},
                 accepted_at = accepted_at + {passed}, ended_at = ended_at + {passed},
                 started_at = started_at + {passed};
             UPDATE keys SET keep_until = keep_until + {passed};
             UPDATE holds SET until = until + {passed};"
        ))
        .expect("the moments");
}

#[tokio::test]
async fn upgrade_a_store_of_version_1_goes_on_where_it_was() {
    let (vendor, quiet) = (Vendor::answering([ok()]).await, Vendor::answering([ok()]).await);
    let place = routes(&vendor, &quiet).place();
    leave_a_file_of_version_1(&place, &quiet);
    let host = Host::start_in(place).await;

    // What was queued is delivered when it is due; what was on its way is repeated, and the journal says so.
    let failed_once = host.until(FAILED_ONCE, "delivered").await;
    assert_eq!((&failed_once["attempts"], &failed_once["journal"][0]["outcome"]["status"]), (&json!(2), &json!(503)));
    let in_flight = host.until(IN_FLIGHT, "delivered").await;
    assert!(is_interrupted(&in_flight["journal"][0]), "{in_flight}");
    let mut delivered: Vec<(String, String)> = vendor
        .receives(2)
        .await
        .iter()
        .map(|request| (request.header("backstop-message-id"), request.text()))
        .collect();
    delivered.sort();
    let expected = [(FAILED_ONCE, "failed once"), (IN_FLIGHT, "in flight")].map(|(id, body)| (id.into(), body.into()));
    assert_eq!(delivered, expected);

    // What had ended is as it was, and a dead letter is delivered once it is redriven.
    for id in [DELIVERED, UNDER_A_KEY] {
        assert_eq!(host.message(id).await["state"], "delivered", "{id}");
    }
    assert_eq!(host.message(REFUSED).await["state"], "dead");
    assert_eq!(host.cli(&["dead", "redrive", REFUSED]).await, "1 redriven\n");
    assert_eq!(host.until(REFUSED, "delivered").await["request"]["body"], "refused");

    // The destination that asked for an hour of quiet still has it.
    assert_eq!(host.message(ASKED_FOR_QUIET).await["state"], "queued");
    assert_eq!(host.admin("/v1/holds").await["holds"][0]["destination"], quiet.to_string());
    assert!(quiet.received().is_empty());
}

#[tokio::test]
async fn upgrade_the_idempotency_keys_of_version_1_are_known() {
    let (vendor, quiet) = (Vendor::answering([ok().body("again")]).await, Vendor::answering([ok()]).await);
    let place = routes(&vendor, &quiet).place();
    leave_a_file_of_version_1(&place, &quiet);
    let host = Host::start_in(place).await;
    let post = async |path: &str, key: &str, body: &'static str| {
        answer_to(host.request(Method::POST, path).header("idempotency-key", key).body(body)).await
    };
    let stored = post("/r/orders/deliver/key", "order-1", "under a key").await;
    assert_eq!((stored.status, stored.json()["id"].as_str()), (202, Some(UNDER_A_KEY)), "{stored:?}");
    let answered = post("/r/waited-for/deliver", "waited-1", "waited for").await;
    assert_eq!((answered.status, answered.text().as_str()), (200, "done"), "{answered:?}");
    let cut_off = post("/r/waited-for/hang", "waited-2", "cut off").await;
    assert_eq!((cut_off.status, cut_off.text().as_str()), (200, "again"), "its caller's connection broke: it is free");
    let other = post("/r/orders/deliver/key", "order-1", "something else").await;
    assert_eq!(other.status, 422);
}

#[tokio::test]
async fn upgrade_a_newer_file_is_refused_and_left_as_it_is() {
    let vendor = Vendor::answering([ok()]).await;
    let place = routes(&vendor, &vendor).place();
    leave_a_file_of_version_1(&place, &vendor);
    Connection::open(place.path("backstop.db"))
        .and_then(|store| store.pragma_update(None, "user_version", 9999))
        .expect("the version");
    let before = std::fs::read(place.path("backstop.db")).expect("the file");
    let Output { status, stderr, .. } = place.run(&["serve", "-c", "backstop.yaml"]).await;
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("backstop.db") && said.contains("newer version") && said.contains("9999"), "{said}");
    assert!(std::fs::read(place.path("backstop.db")).expect("the file") == before, "not a byte was changed");
    assert!(vendor.received().is_empty());
}
