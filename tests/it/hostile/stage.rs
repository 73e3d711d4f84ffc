//! Where guests perform: a host in which the policy under suspicion judges one route, and one that behaves another.

use backstop_tests::hand_made::HandMade;
use backstop_tests::{Host, Setup, Vendor, eventually, ok, status};
use serde_json::Value;

/// The most memory that a host may have held, whatever was done to it.
const MOST_MEMORY_KIB: u64 = 400 << 10;

/// The log lines that are kept of one question, with the one that says how many were not.
const LOG_LINES: usize = 33;

/// A running host with two routes: `suspect`, judged by the policy that the test is about, and `other`.
pub(super) struct Stage {
    pub(super) host: Host,
    /// The name of the policy under suspicion.
    policy: String,
    _vendor: Vendor,
}

/// The policy that judges on `other`.
fn behaved() -> Vec<u8> {
    HandMade::named("behaved").version("well behaved").file()
}

impl Stage {
    /// A stage on which `file` serves as the policy called `policy`.
    pub(super) async fn with(policy: &str, file: &[u8]) -> Self {
        Self::with_setting(policy, file, "").await
    }

    /// As [`Stage::with`], with a further line in the configuration of `suspect`.
    pub(super) async fn with_setting(policy: &str, file: &[u8], setting: &str) -> Self {
        let vendor = vendor().await;
        let place = routes(&vendor, policy, setting).place();
        place.place_policy("behaved", &behaved());
        place.place_policy(policy, file);
        Self { host: Host::start_in(place).await, policy: policy.to_owned(), _vendor: vendor }
    }

    /// A stage on which a policy called `policy` serves that does no harm, in its version 1.
    pub(super) async fn before(policy: &str) -> Self {
        Self::with(policy, &HandMade::named(policy).file()).await
    }

    /// As [`Stage::before`], in a host that may read only what its user may: as `nobody`, if the tests run as root.
    pub(super) async fn before_without_privileges(policy: &str) -> Self {
        let vendor = vendor().await;
        let place = routes(&vendor, policy, "").place().without_privileges();
        place.place_policy("behaved", &behaved());
        place.place_policy(policy, &HandMade::named(policy).file());
        Self { host: Host::start_in(place).await, policy: policy.to_owned(), _vendor: vendor }
    }

    /// Sends a message to the vendor's teapot by way of `suspect`, and waits until it is at rest.
    pub(super) async fn teapot(&self) -> Value {
        let id = self.host.accept("/r/suspect/teapot", "{}").await;
        eventually("the message's fate", async || {
            let message = self.host.message(&id).await;
            let at_rest = !matches!(message["state"].as_str(), Some("queued" | "in_flight") | None);
            at_rest.then_some(message)
        })
        .await
    }

    /// Delivers messages by way of `other`, judged by its own policy and without a failure, and finds the host well.
    pub(super) async fn others_do_not_notice(&self) {
        for _ in 0..2 {
            let id = self.host.accept("/r/other", "{}").await;
            let message = self.host.until(&id, "delivered").await;
            let attempt = &message["journal"][0];
            assert_eq!((&message["attempts"], &attempt["reason"]), (&1.into(), &"well behaved".into()), "{message}");
            assert_eq!(attempt["provenance"].get("failure"), None, "{message}");
        }
        let health = self.host.raw_admin("GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
        let peak = self.host.peak_memory_kib();
        assert!(peak < MOST_MEMORY_KIB, "it held {peak} KiB");
    }

    /// Puts this file in the place of the policy's under suspicion.
    pub(super) fn replace(&self, file: &[u8]) {
        self.host.place().place_policy(&self.policy, file);
    }

    /// What the admin API says of the policy under suspicion.
    pub(super) async fn status(&self) -> Value {
        let listed = self.host.admin("/v1/policies").await;
        let mut policies = listed["policies"].as_array().into_iter().flatten();
        policies.find(|policy| policy["name"] == self.policy.as_str()).cloned().unwrap_or_default()
    }

    /// Waits until the file that lies there now is refused, and returns why: in one line, in the admin API as in the
    /// log.
    pub(super) async fn refusal(&self) -> String {
        let why = eventually("the refusal", async || {
            let why = self.status().await["refusal"]["why"].clone();
            why.is_array().then_some(why)
        })
        .await;
        let lines = why.as_array().map_or(&[][..], Vec::as_slice);
        let [Value::String(line)] = lines else { panic!("not one reason: {why}") };
        assert!(!line.contains(char::is_control) && line.len() < 1500, "no single line: {line:?}");
        let logged = || self.host.log_lines("changed policy refused");
        let logged = eventually("the log line", async || Some(logged()).filter(|lines| !lines.is_empty())).await;
        assert_eq!(logged.len(), 1, "{logged:?}");
        line.clone()
    }

    /// A file of this version is taken up, and judges.
    pub(super) async fn serves_in_version(&self, version: &str) {
        eventually(&format!("version {version}"), async || (self.status().await["version"] == version).then_some(()))
            .await;
        self.is_judged_by_version(version).await;
    }

    /// A message by way of `suspect` is judged by this version, without a failure.
    pub(super) async fn is_judged_by_version(&self, version: &str) {
        let message = self.teapot().await;
        let attempt = &message["journal"][0];
        assert_eq!(attempt["provenance"]["policy"]["version"], version, "{message}");
        assert_eq!(attempt["provenance"].get("failure"), None, "{message}");
    }
}

/// Teapots at one place, and 200 everywhere else.
async fn vendor() -> Vendor {
    let vendor = Vendor::answering([ok()]).await;
    vendor.answers_at("/teapot", [status(418).body("short and stout ".repeat(16))]);
    vendor
}

fn routes(vendor: &Vendor, policy: &str, setting: &str) -> Setup {
    Setup::routes(&format!(
        "
        suspect:
          destination: {vendor}
          policy: {policy}
          retry: {{ max_attempts: 2, min_delay: 10ms, max_delay: 10ms }}
          {setting}
        other:
          destination: {vendor}
          policy: behaved
          retry: {{ max_attempts: 1 }}
        "
    ))
}

/// What `backstop check` and `backstop serve` say of this file as a policy, when they refuse it.
pub(super) async fn said_at_start(policy: &str, file: &[u8]) -> String {
    let place = routes(&vendor().await, policy, "").place();
    place.place_policy("behaved", &behaved());
    place.place_policy(policy, file);
    let mut said = Vec::new();
    for command in ["check", "serve"] {
        let output = place.run(&[command, "-c", "backstop.yaml"]).await;
        assert!(!output.status.success(), "`backstop {command}` takes {policy}");
        said.push(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let [check, serve] = &said[..] else { panic!("two commands") };
    assert_eq!(check.lines().last(), serve.lines().last(), "both say the same");
    said.concat()
}

/// The one failure that the journal of `message` tells of, which was at its last attempt. Within the bounds of what is
/// kept of a question, whatever the policy did.
pub(super) fn failure(message: &Value) -> String {
    let journal = message["journal"].as_array().map_or(&[][..], Vec::as_slice);
    let failed: Vec<&Value> = journal.iter().filter(|attempt| attempt["provenance"]["failure"].is_string()).collect();
    let [attempt] = failed[..] else { panic!("not one failure: {message}") };
    assert_eq!(Some(attempt), journal.last(), "{message}");
    let log = attempt["provenance"]["log"].as_array().map_or(&[][..], Vec::as_slice);
    assert!(log.len() <= LOG_LINES, "{} log lines are kept", log.len());
    assert!(log.iter().all(|line| line["text"].as_str().is_some_and(|text| text.len() <= 512)), "{message}");
    let failure = attempt["provenance"]["failure"].as_str().unwrap_or_default();
    assert!(!failure.contains(char::is_control) && failure.len() <= 1200, "no single line: {failure:?}");
    failure.to_owned()
}
