//! A configuration with mistakes is refused with all of them, each with its line; secrets are never shown.

use std::process::Output;

use backstop_tests::{Setup, Vendor, eventually, ok};

/// Four mistakes: an unknown key, a duration without unit, no attempt at all, and a policy that is not there.
const MISTAKEN: &str = "
    orders:
      destination: { url: http://127.0.0.1:9, timeout: 5 }
      retrys: { max_attempts: 3 }
    billing:
      destination: http://127.0.0.1:9
      retry: { max_attempts: 0 }
    ";

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn config_check_and_serve_refuse_with_every_mistake_its_line_and_the_mending() {
    for command in [&["check"][..], &["serve"]] {
        let output = Setup::routes(MISTAKEN).run(command).await;
        let said = says(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for mistake in [
            "backstop.yaml:6: routes.orders.destination.timeout",
            "backstop.yaml:7:",
            "backstop.yaml:10: routes.billing.retry.max_attempts",
        ] {
            assert!(said.contains(mistake), "{command:?}: no {mistake:?} in\n{said}");
        }
        assert!(said.contains("5s") && said.contains("retry"), "says what to write instead:\n{said}");
    }
}

#[tokio::test]
async fn config_check_and_serve_hold_every_policy_config_against_its_policy() {
    let routes = "
        orders:
          destination: http://127.0.0.1:9
          policy: vendor-codes
          policy_config:
            rules: [{ status: 999, verdict: retry }]
        billing:
          destination: http://127.0.0.1:9
          policy: risk-control
          policy_config: { retriable: [X] }
        ";
    for command in [&["check"][..], &["serve"]] {
        let output = Setup::routes(routes).run(command).await;
        let said = says(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains("backstop.yaml:9:") && said.contains("backstop.yaml:13:"), "{command:?}: {said}");
    }
}

#[tokio::test]
async fn config_a_policy_that_is_not_there_is_named_with_those_that_are() {
    let routes = "
        orders:
          destination: http://127.0.0.1:9
          policy: standard
        billing:
          destination: http://127.0.0.1:9
          policy: standart
        ";
    let output = Setup::routes(routes).run(&["check"]).await;
    let said = says(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("backstop.yaml:10: routes.billing.policy") && said.contains("there are: standard"), "{said}");
}

#[tokio::test]
async fn config_check_prints_the_resolved_routes() {
    let routes = "
        orders:
          destination: http://127.0.0.1:9
          policy: standard
        ";
    let output = Setup::routes(routes).run(&["check"]).await;
    let said = says(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("orders") && said.contains("max_attempts: 5"), "defaults are shown: {said}");
}

#[tokio::test]
async fn config_a_secret_is_sent_and_never_shown() {
    const SECRETS: [&str; 3] = ["s3cr3t-of-the-vendor", "s3cr3t-of-the-field", "s3cr3t-of-the-admin"];
    let vendor = Vendor::answering([ok()]).await;
    let routes = format!(
        "
        orders:
          destination:
            url: {vendor}
            headers: {{ x-tenant-key: '${{env:FIELD}}' }}
            auth: {{ header: {{ name: x-api-key, value: '${{env:KEY}}' }} }}
        "
    );
    let setup = || Setup::routes(&routes).env("KEY", SECRETS[0]).env("FIELD", SECRETS[1]).env("TOKEN", SECRETS[2]);
    // Also where there is something to complain of.
    let mut seen = says(&setup().setting("nonsense", "1").run(&["check"]).await);

    let host = setup().start().await;
    let id = host.accept("/r/orders", "").await;
    let message = host.until(&id, "delivered").await;
    assert_eq!(vendor.received()[0].header("x-api-key"), SECRETS[0]);
    assert_eq!(vendor.received()[0].header("x-tenant-key"), SECRETS[1]);
    seen += &says(&host.place().run(&["check"]).await);
    seen += &message.to_string();
    seen += &host.cli(&["messages", "show", &id]).await;
    seen += &host.admin("/v1/routes").await.to_string();
    seen += &host.log();
    assert!(SECRETS.iter().all(|secret| !seen.contains(secret)), "{seen}");
}

#[tokio::test]
async fn config_a_misplaced_secret_is_not_quoted_in_the_error() {
    let routes = "
        orders:
          destination: { url: 'http://127.0.0.1:9', timeout: '${env:KEY}' }
          retry: { max_attempts: '${env:KEY}', jitter: '${env:KEY}' }
          policy: '${env:KEY}'
          mode: '${env:KEY}'
        ";
    let output = Setup::routes(routes).env("KEY", "s3cr3t").run(&["check"]).await;
    let said = says(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("routes.orders.destination.timeout") && !said.contains("s3cr3t"), "{said}");
}

#[tokio::test]
async fn config_the_admin_api_asks_for_its_token() {
    let vendor = Vendor::answering([ok()]).await;
    let admin = "{ listen: 127.0.0.1:0, token: '${env:TOKEN}' }";
    let setup = Setup::routes(&format!("orders:\n  destination: {vendor}")).setting("admin", admin);
    let host = setup.env("TOKEN", "s3cr3t").start().await;
    assert_eq!(host.admin("/v1/routes").await["status"], 401);
    host.place().write("token", "s3cr3t\n");
    let listed = host.cli(&["dead", "list", "--admin-token-file", "token"]).await;
    assert_eq!(listed, "no messages fit\n");
    let refused = host.try_cli(&["dead", "list"]).await;
    assert!(!refused.status.success() && says(&refused).contains("token"), "{refused:?}");
}

#[tokio::test]
async fn config_two_hosts_do_not_share_a_database() {
    let vendor = Vendor::answering([ok()]).await;
    let host = Setup::routes(&format!("orders:\n  destination: {vendor}")).start().await;
    let second = host.place().run(&["serve"]).await;
    assert!(!second.status.success(), "{second:?}");
    assert!(says(&second).contains("backstop.db"), "{second:?}");
    eventually("the first to serve on", async || host.try_accept("/r/orders", "").await).await;
}
