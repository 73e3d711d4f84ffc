//! A policy is a file: replaced while the host serves, refused if it is bad, and survived if it breaks.

use backstop_tests::artefacts::guest;
use backstop_tests::{Host, Setup, Vendor, eventually, status};

async fn moody(vendor: &Vendor) -> Host {
    let routes = format!(
        "
        orders:
          destination: {vendor}
          policy: moody
          retry: {{ max_attempts: 2, min_delay: 10ms, max_delay: 10ms }}
        "
    );
    Setup::routes(&routes).policy("moody", guest("moody-patient")).start().await
}

#[tokio::test]
async fn policy_reload_a_file_replaced_while_serving_takes_effect_without_a_restart() {
    let vendor = Vendor::answering([status(404)]).await;
    let host = moody(&vendor).await;
    let before = host.accept("/r/orders", "").await;
    assert_eq!(host.until(&before, "dead").await["attempts"], 2, "the patient edition tries again");

    host.place().drop_policy("moody", &guest("moody-strict"));
    eventually("the reload", async || (!host.log_lines("policy reloaded").is_empty()).then_some(())).await;
    let after = host.accept("/r/orders", "").await;
    let message = host.until(&after, "dead").await;
    assert_eq!((&message["attempts"], &message["reason"]), (&1.into(), &"it will never come".into()));
    assert_eq!(message["journal"][0]["provenance"]["policy"]["version"], "0.2.0");
}

#[tokio::test]
async fn policy_reload_a_bad_file_leaves_the_old_one_serving_and_says_so_once() {
    let vendor = Vendor::answering([status(404)]).await;
    let host = moody(&vendor).await;
    host.place().write("policies/moody.wasm", "this is not WebAssembly");
    let refusal = eventually("the refusal", async || {
        Some(host.admin("/v1/policies").await["policies"][0]["refusal"].clone()).filter(|refusal| refusal.is_object())
    })
    .await;
    assert!(refusal["why"][0].is_string(), "{refusal}");
    let id = host.accept("/r/orders", "").await;
    let message = host.until(&id, "dead").await;
    assert_eq!(message["journal"][0]["provenance"]["policy"]["version"], "0.1.0");

    // Mended, it is taken: so the bad file was looked at for as long as it was there.
    host.place().drop_policy("moody", &guest("moody-strict"));
    eventually("the reload", async || (!host.log_lines("policy reloaded").is_empty()).then_some(())).await;
    assert_eq!(host.says("changed policy refused", 1).await.len(), 1);
}

#[tokio::test]
async fn policy_reload_a_file_that_holds_another_policy_is_refused() {
    let vendor = Vendor::answering([status(404)]).await;
    let host = moody(&vendor).await;
    // Its file is named for one policy, and its manifest for another.
    host.place().drop_policy("moody", &guest("rough"));
    let line = eventually("the refusal", async || host.log_lines("changed policy refused").pop()).await;
    assert!(line.contains("rough"), "{line}");
}

/// The policy fails at run time; its message goes on under the standard rule, and the failure is on the attempt.
async fn is_survived(trouble: &str, failure: &str) {
    let vendor = Vendor::answering([status(418)]).await;
    let routes = format!(
        "
        orders:
          destination: {vendor}
          policy: rough
          policy_config: {{ trouble: {trouble} }}
          policy_limits: {{ time: 1m }}
        "
    );
    let host = Setup::routes(&routes).policy("rough", guest("rough")).start().await;
    for _ in 0..3 {
        let id = host.accept("/r/orders", "").await;
        let message = host.until(&id, "dead").await;
        let attempt = &message["journal"][0];
        assert_eq!((&message["attempts"], &attempt["verdict"]), (&1.into(), &"dead_letter".into()));
        let said = attempt["provenance"]["failure"].to_string();
        assert!(said.contains(failure), "{said}");
    }
    let failures = || host.log_lines(r#""message":"policy failed""#);
    let lines = eventually("three lines", async || Some(failures()).filter(|lines| lines.len() >= 3)).await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().all(|line| line.matches("\"message\":").count() == 1), "no key twice: {lines:?}");
    let totals = host.admin("/v1/routes").await["routes"][0]["since_start"].clone();
    assert_eq!(totals["policy_failures"], 3, "{totals}");
}

#[tokio::test]
async fn policy_reload_a_policy_that_panics_costs_no_message() {
    is_survived("panic", "a teapot was not foreseen").await;
}

#[tokio::test]
async fn policy_reload_a_policy_that_never_returns_is_cut_off() {
    is_survived("spin", "out of ").await;
}

#[tokio::test]
async fn policy_reload_a_policy_that_wants_all_memory_is_cut_off() {
    is_survived("grow", "out of memory").await;
}

#[tokio::test]
async fn policy_reload_a_policy_that_calls_itself_for_ever_is_cut_off() {
    is_survived("recurse", "out of ").await;
}

#[tokio::test]
async fn policy_reload_on_policy_failure_says_what_to_do_instead() {
    let vendor = Vendor::answering([status(418)]).await;
    let routes = format!(
        "
        orders:
          destination: {vendor}
          policy: rough
          policy_config: {{ trouble: panic }}
          on_policy_failure: retry
          retry: {{ max_attempts: 3, min_delay: 10ms, max_delay: 10ms }}
        "
    );
    let host = Setup::routes(&routes).policy("rough", guest("rough")).start().await;
    let id = host.accept("/r/orders", "").await;
    assert_eq!(host.until(&id, "dead").await["attempts"], 3);
}
