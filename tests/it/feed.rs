//! The change feed of `scan-platform`: rows of a table become messages, each state of a row once, whoever dies and however
//! late a transaction commits.

mod hosts;
mod late_commits;
mod stage;
mod unfit;
mod unreadable;

use std::collections::BTreeSet;

use backstop_tests::postgres::Stop;
use backstop_tests::{Gate, Postgres, Setup, eventually, ok};
use serde_json::{Value, json};

use stage::{SCANS, Stage};

/// A trigger draws the next number for every row that is inserted or updated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_brings_each_new_and_changed_row_once_as_json() {
    let stage = Stage::with(SCANS).await;
    let mut host = stage.host("cursor: changed, batch: 10").await;
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'new' FROM generate_series(1, 25) AS n");
    stage.delivered(25).await;
    stage.sql("UPDATE scans SET state = 'done' WHERE id <= 3");
    let received = stage.delivered(28).await;
    host.signal("TERM").await;
    host.exited().await;
    stage.sql("INSERT INTO scans (id, state) VALUES (26, 'after the restart')");
    host.restart().await;
    stage.delivered(29).await;

    let rows = stage.rows();
    let mut changes: Vec<i64> = rows.iter().map(|row| row["changed"].as_i64().expect("a number")).collect();
    changes.sort_unstable();
    changes.dedup();
    assert_eq!(changes.len(), 29, "each state of a row once: {rows:?}");
    assert_eq!(rows.iter().filter(|row| row["state"] == "done").count(), 3);
    let first = received.iter().find(|request| request.text().contains("\"id\":1,")).expect("the first row");
    assert_eq!(
        serde_json::from_str::<Value>(&first.text()).expect("JSON"),
        json!({ "id": 1, "changed": 1, "state": "new" })
    );
    let carried =
        ["content-type", "broker-kind", "broker-origin", "broker-sequence", "broker-subject", "idempotency-key"];
    let carried = carried.map(|name| first.header(name));
    assert_eq!(carried, ["application/json", "feed", "public.scans", "1", "1", "\"changed-scans public.scans 1 1\""]);
}

/// The store's lane is full, and then the store is away: the feed waits in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_waits_for_a_store_that_cannot_take_more_and_loses_nothing() {
    let (stage, gate, store) = (Stage::with(SCANS).await, Gate::closed(), Postgres::start());
    let held = gate.clone();
    stage.vendor.answers_by(move |_| ok().held_by(&held));
    let route = "max_queued: 5, concurrency: 2";
    let host = stage.host_on(&store.database(), route, "cursor: changed, batch: 10").await;
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'new' FROM generate_series(1, 40) AS n");
    stage.vendor.receives(2).await;
    store.stop(Stop::Fast);
    gate.open();
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'new' FROM generate_series(41, 60) AS n");
    eventually("the store to be missed", async || {
        (!host.log_lines("cannot claim partitions").is_empty()).then_some(())
    })
    .await;
    store.start_again();
    eventually("every row to be delivered", async || (stage.ids().len() == 60).then_some(())).await;
}

/// A row that is longer than its route takes is put aside, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_puts_a_row_aside_that_is_too_long() {
    let stage = Stage::with(SCANS).await;
    let host = stage.host_on("sqlite:backstop.db", "body_limit: 1KiB", "cursor: changed").await;
    stage.sql("INSERT INTO scans (id, state) VALUES (1, 'short'), (2, repeat('long', 1000)), (3, 'short')");
    stage.delivered(2).await;
    assert_eq!(stage.ids(), [1, 3].into());
    let dead = eventually("the dead letter", async || host.messages("dead").await.pop()).await;
    assert!(dead["reason"].as_str().is_some_and(|reason| reason.contains("body_limit")), "{dead}");
}

/// A batch is bounded in bytes, too: what it leaves out is not passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_reads_long_rows_a_few_at_a_time() {
    let stage = Stage::with(SCANS).await;
    stage.sql("INSERT INTO scans (id, state) SELECT n, repeat('x', 1500000) FROM generate_series(1, 11) AS n");
    let _host = stage.host_on("sqlite:backstop.db", "body_limit: 2MiB, concurrency: 2", "cursor: changed").await;
    stage.delivered(11).await;
    assert_eq!(stage.ids(), (1..=11).collect());
}

/// Of two rows with the same number one may be passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_warns_of_numbers_that_two_rows_may_have() {
    const WARNING: &str = "nothing keeps two rows from having the same cursor";
    let plain = "CREATE TABLE scans (id bigint PRIMARY KEY, changed bigint NOT NULL); CREATE INDEX ON scans (changed)";
    let warned = Stage::with(plain).await.host("cursor: changed").await;
    warned.says(WARNING, 1).await;
    assert!(warned.log_lines("no index begins with the cursor").is_empty());
    let fine = Stage::with(SCANS).await.host("cursor: changed").await;
    fine.says("reading the table", 1).await;
    assert!(fine.log_lines(WARNING).is_empty());
}

/// Cursors that begin anew lie before what was read, and are not read. That is said, and seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_says_that_a_table_was_begun_anew() {
    let stage = Stage::with(SCANS).await;
    let host = stage.host("cursor: changed").await;
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'old' FROM generate_series(1, 20) AS n");
    stage.delivered(20).await;
    assert!(stage::shown(&host).await["went_back"].is_null());
    stage.sql("TRUNCATE scans RESTART IDENTITY; INSERT INTO scans (id, state) VALUES (1, 'new')");
    eventually("it to be seen", async || (stage::shown(&host).await["went_back"] == true).then_some(())).await;
    assert_eq!(host.says("the largest cursor lies before what was read already", 1).await.len(), 1);
}

/// Of a table that hides rows from its reader a feed would have holes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_does_not_read_around_rows_that_are_hidden() {
    let stage = Stage::with(SCANS).await;
    stage.sql(
        "ALTER TABLE scans ENABLE ROW LEVEL SECURITY; CREATE POLICY visible ON scans USING (id <> 2);
         CREATE ROLE half_blind LOGIN PASSWORD 'a-password';
         GRANT SELECT ON scans TO half_blind; INSERT INTO scans (id, state) VALUES (1, 'new'), (2, 'hidden')",
    );
    let reader = stage.url.replace("//backstop:", "//half_blind:");
    let host = stage.host_reading(&reader, "sqlite:backstop.db", "", "cursor: changed").await;
    let away = host.source_until("away").await["last_error"]["why"].to_string();
    assert!(away.contains("row-level security"), "{away}");
    assert!(stage.rows().is_empty());
}

/// Rows with the same cursor, and fewer at once than there are: they are told apart by their keys, whatever their type.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_reads_rows_with_the_same_cursor_by_their_keys() {
    let stage = Stage::with("").await;
    let cursors = ["smallint", "integer", "bigint", "timestamptz"].map(|cursor| (cursor, "bigint", ""));
    let keys = ["smallint", "integer", "numeric", "uuid", "text", "varchar(40)"].map(|key| ("timestamptz", key, ""));
    let split = [("bigint", "integer", "PARTITION BY HASH (id)")];
    let tables: Vec<_> = cursors.into_iter().chain(keys).chain(split).enumerate().collect();
    let mut sources = String::new();
    for (number, (cursor, key, split)) in &tables {
        let value = if *cursor == "timestamptz" { "now()" } else { "7" };
        let id = if *key == "uuid" { "md5(n::text)::uuid".to_owned() } else { format!("n::{key}") };
        let part = if split.is_empty() {
            String::new()
        } else {
            format!(
                "CREATE TABLE part_{number} PARTITION OF \"Scans {number}\" FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
            )
        };
        stage.sql(&format!(
            "CREATE TABLE \"Scans {number}\" (id {key} PRIMARY KEY, \"when\" {cursor} NOT NULL DEFAULT {value}) {split}; {part}
             INSERT INTO \"Scans {number}\" (id) SELECT {id} FROM generate_series(1, 20) AS n"
        ));
        let url = &stage.url;
        sources.push_str(&format!(
            "scans-{number}: {{ route: scans, feed: {{ url: '{url}', table: Scans {number}, cursor: when, key: id, \
             partitions: 2, batch: 3, poll: 100ms }} }}, "
        ));
    }
    let routes = format!("scans: {{ destination: '{}' }}", stage.vendor);
    let host = Setup::routes(&routes).setting("sources", &format!("{{ {sources} }}")).start().await;
    let received = stage.delivered(20 * tables.len()).await;
    let keys: BTreeSet<String> = received.iter().map(|request| request.header("idempotency-key")).collect();
    assert_eq!(keys.len(), received.len(), "each row of each table once");
    let warned = host.says("no index begins with the cursor", tables.len()).await;
    assert_eq!(warned.len(), tables.len(), "each is warned of once");
}

/// What was split into two goes on split into four.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_split_anew_loses_no_row() {
    let stage = Stage::with(SCANS).await;
    let mut host = stage.host("cursor: changed, partitions: 2").await;
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'new' FROM generate_series(1, 30) AS n");
    stage.delivered(30).await;
    host.signal("TERM").await;
    host.exited().await;
    let config = std::fs::read_to_string(host.place().path("backstop.yaml")).expect("its configuration");
    host.place().write("backstop.yaml", config.replace("partitions: 2", "partitions: 4"));
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'new' FROM generate_series(31, 60) AS n");
    host.restart().await;
    stage.delivered(60).await;
    assert_eq!(stage.ids().len(), 60, "what was read again was known again");
    assert_eq!(stage::held(&host).await, [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_goes_on_when_its_connection_is_cut() {
    let (own, stage) = (Postgres::start(), Stage::with(SCANS).await);
    let table = own.database();
    own.query_at(&table, SCANS);
    let host = stage.host_reading(&table, "sqlite:backstop.db", "", "cursor: changed").await;
    own.query_at(&table, "INSERT INTO scans (id, state) VALUES (1, 'before')");
    stage.delivered(1).await;
    host.source_until("connected").await;
    own.stop(Stop::Immediate);
    let away = host.source_until("away").await;
    assert!(away["last_error"]["why"].is_string() && away["since"].is_u64(), "{away}");
    own.start_again();
    host.source_until("connected").await;
    own.query_at(&table, "INSERT INTO scans (id, state) VALUES (2, 'after')");
    stage.delivered(2).await;
    assert_eq!(stage.ids().len(), 2);
    assert!(!host.log().contains("a-password"), "no password is logged");
}
