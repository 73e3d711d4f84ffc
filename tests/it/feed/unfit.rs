//! Tables that cannot be fed from: the source says why, in a sentence.

use backstop_tests::postgres::Stop;
use backstop_tests::{Postgres, Setup, Vendor};

use super::stage::{SCANS, Stage};

/// What the source says of this table, having given up.
async fn says(url: &str, feed: &str) -> String {
    let vendor = Vendor::answering([]).await;
    let sources =
        format!("{{ scans: {{ route: scans, connect: {{ retries: 0 }}, feed: {{ url: '{url}', {feed} }} }} }}");
    let setup = Setup::routes(&format!("scans: {{ destination: '{vendor}' }}"));
    let host = setup.setting("sources", &sources).start().await;
    host.source_until("gave_up").await["last_error"]["why"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_says_why_a_table_cannot_be_read() {
    let stage = Stage::with(SCANS).await;
    for (table, feed, why) in [
        ("", "table: no.scans, cursor: changed, key: id", "there is no table no.scans"),
        ("", "table: scans, cursor: altered, key: id", "public.scans has no column altered"),
        ("", "table: scans, cursor: state, key: id", "column state may be null"),
        ("CREATE VIEW seen AS SELECT * FROM scans", "table: seen, cursor: changed, key: id", "is no table"),
        (
            "CREATE TABLE floats (id bigint PRIMARY KEY, at float8 NOT NULL)",
            "table: floats, cursor: at, key: id",
            "the cursor at is a double precision",
        ),
        (
            "CREATE TABLE twins (id bigint NOT NULL, at timestamptz NOT NULL)",
            "table: twins, cursor: at, key: id",
            "make a unique index on id",
        ),
        (
            "CREATE TABLE ahead (id bigint PRIMARY KEY, at bigserial); ALTER SEQUENCE ahead_at_seq CACHE 50",
            "table: ahead, cursor: at, key: id",
            "ALTER SEQUENCE public.ahead_at_seq CACHE 1",
        ),
        (
            "CREATE TABLE down (id bigint PRIMARY KEY, at int GENERATED ALWAYS AS IDENTITY (INCREMENT -1))",
            "table: down, cursor: at, key: id",
            "does not only grow",
        ),
    ] {
        stage.sql(table);
        let said = says(&stage.url, feed).await;
        assert!(said.contains(why), "{feed}: {said}");
    }
}

/// A table that changes under the feed is looked at once more: what the source says is what has changed, not which of its
/// statements the server refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_says_what_has_changed_of_its_table() {
    for (change, why) in [
        ("ALTER TABLE scans DROP COLUMN changed", "public.scans has no column changed"),
        (
            "ALTER TABLE scans ALTER changed DROP DEFAULT, ALTER changed TYPE timestamptz USING now()",
            "the column changed was a bigint, and is a timestamp with time zone now",
        ),
    ] {
        let (stage, vendor) = (Stage::with(SCANS).await, Vendor::answering([]).await);
        stage.sql("INSERT INTO scans (id) VALUES (1)");
        let feed = format!("feed: {{ url: '{}', table: scans, cursor: changed, key: id, poll: 100ms }}", stage.url);
        let sources = format!("{{ scans: {{ route: scans, connect: {{ retries: 0 }}, {feed} }} }}");
        let setup = Setup::routes(&format!("scans: {{ destination: '{vendor}' }}"));
        let host = setup.setting("sources", &sources).start().await;
        vendor.receives(1).await;
        stage.sql(change);
        let said = host.source_until("gave_up").await["last_error"]["why"].to_string();
        assert!(said.contains(why), "{change}: {said}");
    }
}

/// A standby does not know who is writing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_refuses_a_standby() {
    let standby = Postgres::start();
    standby.query(SCANS);
    standby.query("COPY (SELECT 'in the folder of its data') TO PROGRAM 'cat > standby.signal'");
    standby.stop(Stop::Fast);
    standby.start_again();
    let said = says(&standby.url(), "table: scans, cursor: changed, key: id").await;
    assert!(said.contains("this server is a standby"), "{said}");
}
