//! What the scenarios share: a server for those that do not stop it, a table, and hosts that feed from it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use backstop_tests::{Host, Postgres, Received, Setup, Vendor, eventually};
use serde_json::Value;

/// The server of the scenarios that leave it running. It takes prepared transactions.
static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| {
    let postgres = Postgres::start();
    postgres.query("ALTER SYSTEM SET max_prepared_transactions = 10");
    postgres.stop(backstop_tests::postgres::Stop::Fast);
    postgres.start_again();
    postgres
});

/// Scans, numbered anew with each change.
pub(super) const SCANS: &str = "
    CREATE SEQUENCE changes;
    CREATE TABLE scans (id bigint PRIMARY KEY, changed bigint NOT NULL UNIQUE DEFAULT nextval('changes'), state text);
    ALTER SEQUENCE changes OWNED BY scans.changed;
    CREATE FUNCTION number() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW.changed := nextval(''changes''); RETURN NEW; END';
    CREATE TRIGGER changed BEFORE UPDATE ON scans FOR EACH ROW EXECUTE FUNCTION number();";

/// Scans, with the time of each change.
pub(super) const TIMED_SCANS: &str = "
    CREATE TABLE scans (id bigint PRIMARY KEY, changed timestamptz NOT NULL DEFAULT now(), state text);
    CREATE INDEX ON scans (changed, id);";

/// A table of its own, and whom its rows are delivered to.
pub(super) struct Stage {
    pub(super) vendor: Vendor,
    pub(super) url: String,
}

impl Stage {
    pub(super) async fn with(table: &str) -> Self {
        let stage = Self { vendor: Vendor::answering([]).await, url: POSTGRES.database() };
        stage.sql(table);
        stage
    }

    /// A store for hosts that share it.
    pub(super) fn store(&self) -> String {
        POSTGRES.database()
    }

    /// Runs SQL in the table's database.
    pub(super) fn sql(&self, sql: &str) -> String {
        POSTGRES.query_at(&self.url, sql)
    }

    /// Runs SQL in the database at `url`.
    pub(super) fn sql_at(&self, url: &str, sql: &str) -> String {
        POSTGRES.query_at(url, sql)
    }

    /// A host with a store of its own.
    pub(super) async fn host(&self, feed: &str) -> Host {
        self.host_on("sqlite:backstop.db", "", feed).await
    }

    /// A host with this store, route and feed.
    pub(super) async fn host_on(&self, store: &str, route: &str, feed: &str) -> Host {
        self.host_reading(&self.url, store, route, feed).await
    }

    /// A host that reads the table in the database at `url`.
    pub(super) async fn host_reading(&self, url: &str, store: &str, route: &str, feed: &str) -> Host {
        let vendor = &self.vendor;
        let sources = format!(
            "{{ changed-scans: {{ route: scans, connect: {{ wait: 100ms }}, \
               feed: {{ url: '${{env:SCANS_DATABASE}}', table: scans, key: id, poll: 100ms, lease: 1s, {feed} }} }} }}"
        );
        let routes = format!("scans: {{ destination: '{vendor}', {route} }}");
        let setup = Setup::routes(&routes).setting("store", store).setting("lease", "2s").setting("sources", &sources);
        setup.env("SCANS_DATABASE", url).start().await
    }

    /// Waits until so many rows were delivered.
    pub(super) async fn delivered(&self, count: usize) -> Vec<Received> {
        let received = self.vendor.receives(count).await;
        assert_eq!(received.len(), count, "each state of a row once");
        received
    }

    /// The rows that were delivered, in order.
    pub(super) fn rows(&self) -> Vec<Value> {
        self.vendor.received().iter().map(|request| serde_json::from_str(&request.text()).expect("JSON")).collect()
    }

    /// The ids of the rows that were delivered.
    pub(super) fn ids(&self) -> BTreeSet<i64> {
        self.rows().iter().map(|row| row["id"].as_i64().expect("a number")).collect()
    }
}

/// How the host's feed stands.
pub(super) async fn shown(host: &Host) -> Value {
    host.admin("/v1/sources").await["sources"][0]["feed"].clone()
}

/// The partitions that the host reads.
pub(super) async fn held(host: &Host) -> Vec<u32> {
    let shown = shown(host).await;
    let held = shown["held"].as_object().cloned().unwrap_or_default();
    held.keys().map(|number| number.parse().expect("a number")).collect()
}

/// Waits until the feed waits for something, and answers for what.
pub(super) async fn waits(host: &Host, found: impl Fn(&Value) -> bool) -> Value {
    eventually("the feed to wait", async || Some(shown(host).await["waits_for"].clone()).filter(&found)).await
}
