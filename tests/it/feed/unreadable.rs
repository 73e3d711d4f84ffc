//! Rows that the server cannot write as JSON: each is put aside by its key, and stops no other.

use std::collections::BTreeSet;

use backstop_tests::{Host, Postgres, eventually};
use serde_json::Value;

use super::stage::Stage;

/// Scans whose mood is written as JSON by a cast of its own, which some moods have raise an exception that quotes them.
/// No index begins with the cursor, so that the server writes every row as JSON before it sorts and counts them.
const MOODY_SCANS: &str = "
    CREATE TYPE mood AS ENUM ('calm', 'a-secret');
    CREATE TABLE scans (id bigint PRIMARY KEY, changed bigserial, feed text DEFAULT 'scans', mood mood);
    CREATE FUNCTION mood_as_json(mood) RETURNS json LANGUAGE plpgsql AS
        'BEGIN IF $1 = ''a-secret'' THEN RAISE ''cannot write %'', $1; END IF; RETURN to_json($1::text); END';
    CREATE CAST (mood AS json) WITH FUNCTION mood_as_json(mood);";

/// The keys of the rows that were put aside, which must be all that is.
async fn put_aside(host: &Host, count: usize) -> BTreeSet<i64> {
    let dead =
        eventually("the dead letters", async || Some(host.messages("dead").await).filter(|dead| dead.len() >= count))
            .await;
    assert_eq!(dead.len(), count, "{dead:?}");
    let mut keys = BTreeSet::new();
    for letter in dead {
        let shown = host.message(letter["id"].as_str().expect("an id")).await;
        keys.insert(field(&shown, "broker-subject").parse().expect("a number"));
    }
    keys
}

/// A field of a message's request.
fn field(message: &Value, name: &str) -> String {
    let headers = message["request"]["headers"].as_array().cloned().unwrap_or_default();
    let found = headers.iter().find(|header| header[0] == name);
    found.and_then(|header| header[1].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_puts_a_row_aside_that_cannot_be_read_and_goes_on_in_order() {
    let stage = Stage::with(MOODY_SCANS).await;
    stage.sql(
        "INSERT INTO scans (id, mood)
         SELECT n, (CASE n WHEN 7 THEN 'a-secret' ELSE 'calm' END)::mood FROM generate_series(1, 20) AS n",
    );
    let mut host = stage.host_on("sqlite:backstop.db", "order_by: 'json:/feed'", "cursor: changed").await;
    stage.delivered(19).await;
    let ids: Vec<i64> = stage.rows().iter().filter_map(|row| row["id"].as_i64()).collect();
    assert_eq!(ids, (1..=20).filter(|id| *id != 7).collect::<Vec<_>>());

    assert_eq!(put_aside(&host, 1).await, [7].into());
    assert_eq!(host.source_until("connected").await["brought"]["put_aside"], 1);
    let dead = host.messages("dead").await.remove(0);
    let reason = dead["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("an exception that a function raised (SQLSTATE P0001)"), "{reason}");
    let dead = host.message(dead["id"].as_str().unwrap_or_default()).await;
    let named = ["broker-kind", "broker-origin", "broker-sequence", "broker-subject"].map(|name| field(&dead, name));
    assert_eq!(named, ["feed", "public.scans", "7", "7"]);
    assert_eq!(dead["request"]["body"], "");

    stage.sql("INSERT INTO scans (id, mood) VALUES (21, 'calm')");
    stage.delivered(20).await;
    host.signal("TERM").await;
    host.exited().await;
    host.restart().await;
    stage.sql("UPDATE scans SET changed = DEFAULT, mood = 'calm' WHERE id = 7");
    stage.delivered(21).await;
    assert_eq!(put_aside(&host, 1).await, [7].into(), "its place is behind it");
    assert!(!host.log().contains("a-secret"), "the server's words may quote a row");
}

/// Text that is no text, in a database that does not check its texts, in rows of both partitions and in a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_puts_many_rows_aside_and_brings_all_others() {
    let (own, stage) = (Postgres::start(), Stage::with("").await);
    own.query("CREATE DATABASE unchecked ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let url = format!("{}/unchecked", own.url().trim_end_matches("/postgres"));
    let bad = |id: i64| id % 13 == 0 || (40..50).contains(&id) || id == 100;
    own.query_at(
        &url,
        "CREATE TABLE scans (id bigint PRIMARY KEY, changed bigserial UNIQUE, state text);
         INSERT INTO scans (id, state) SELECT n, CASE WHEN n % 13 = 0 OR n BETWEEN 40 AND 49 OR n = 100
             THEN convert_from('\\xff', 'SQL_ASCII') ELSE 'new' END FROM generate_series(1, 100) AS n",
    );
    let host = stage.host_reading(&url, "sqlite:backstop.db", "", "cursor: changed, partitions: 2, batch: 10").await;
    let (unreadable, readable): (BTreeSet<i64>, BTreeSet<i64>) = (1..=100).partition(|id| bad(*id));
    stage.delivered(readable.len()).await;
    assert_eq!(stage.ids(), readable);
    assert_eq!(put_aside(&host, unreadable.len()).await, unreadable);
    own.query_at(&url, "INSERT INTO scans (id, state) VALUES (101, 'new')");
    stage.delivered(readable.len() + 1).await;
}

/// What fails for the want of something else than better data is no row's fault: no row is put aside for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_puts_no_row_aside_for_a_fault_of_its_table() {
    let stage = Stage::with(MOODY_SCANS).await;
    let replaced = |body: &str| {
        stage.sql(&format!(
            "CREATE OR REPLACE FUNCTION mood_as_json(mood) RETURNS json LANGUAGE plpgsql AS
                 'BEGIN {body} RETURN to_json($1::text); END'"
        ))
    };
    replaced("PERFORM no_such_function();");
    let host = stage.host("cursor: changed").await;
    stage.sql("INSERT INTO scans (id, mood) SELECT n, 'calm' FROM generate_series(1, 3) AS n");
    let away = host.source_until("away").await["last_error"]["why"].to_string();
    assert!(away.contains("no_such_function"), "{away}");
    replaced("");
    stage.delivered(3).await;
    assert!(host.messages("dead").await.is_empty());
}

/// A cast that fails for every row is not every row's fault, though its error looks as if it were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_does_not_put_a_whole_table_aside() {
    let stage = Stage::with(MOODY_SCANS).await;
    stage.sql("INSERT INTO scans (id, mood) SELECT n, 'a-secret' FROM generate_series(1, 300) AS n");
    let host = stage.host("cursor: changed, batch: 20").await;
    let shown = host.source_until("away").await;
    let away = shown["last_error"]["why"].to_string();
    assert!(away.contains("100 rows in a row were put aside") && !away.contains("a-secret"), "{away}");

    // It stays away for as long as it tries in vain, however long a try takes.
    stage.sql(
        "CREATE OR REPLACE FUNCTION mood_as_json(mood) RETURNS json LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep(0.3); RAISE ''no''; END'",
    );
    let mut tries = BTreeSet::new();
    eventually("three more tries", async || {
        let now = host.admin("/v1/sources").await["sources"][0].clone();
        assert_eq!((&now["state"], &now["since"]), (&shown["state"], &shown["since"]), "{now}");
        tries.extend(now["last_error"]["at"].as_u64());
        (tries.len() > 3).then_some(())
    })
    .await;
    stage.sql(
        "CREATE OR REPLACE FUNCTION mood_as_json(mood) RETURNS json LANGUAGE plpgsql AS
             'BEGIN RETURN to_json($1::text); END'",
    );
    stage.delivered(200).await;
    assert_eq!(stage.ids(), (101..=300).collect());
    assert_eq!(put_aside(&host, 100).await, (1..=100).collect());
    host.source_until("connected").await;
}
