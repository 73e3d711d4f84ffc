//! Transactions that commit late, with cursors that are smaller than what was already there to be read.

use backstop_tests::Host;
use serde_json::Value;
use tokio_postgres::{Client, NoTls};
use tokio_util::task::TaskTracker;

use super::stage::{self, SCANS, Stage, TIMED_SCANS};

/// A session that is in the middle of something.
async fn writer(stage: &Stage) -> Client {
    let (client, connection) = tokio_postgres::connect(&stage.url, NoTls).await.expect("a connection");
    TaskTracker::new().spawn(connection);
    client
}

async fn says(writer: &Client, sql: &str) {
    writer.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn process(writer: &Client) -> i32 {
    writer.query_one("SELECT pg_backend_pid()", &[]).await.expect("an answer").get(0)
}

/// Waits until the feed is seen to wait for this writer, with nothing brought so far.
async fn waits_for(host: &Host, stage: &Stage, writer: &Client) {
    let pid = process(writer).await;
    stage::waits(host, |waiting: &Value| waiting["pid"] == pid).await;
    assert!(stage.vendor.received().is_empty(), "nothing is read past it: {:?}", stage.rows());
}

/// The first writer has drawn 1 and written; the second draws 2, and commits first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_of_two_writers_the_smaller_number_commits_last() {
    let stage = Stage::with(SCANS).await;
    let (late, early) = (writer(&stage).await, writer(&stage).await);
    says(&late, "BEGIN; INSERT INTO scans (id, state) VALUES (1, 'late')").await;
    says(&early, "INSERT INTO scans (id, state) VALUES (2, 'early')").await;
    let host = stage.host("cursor: changed").await;
    waits_for(&host, &stage, &late).await;
    assert!(stage::shown(&host).await["waits_since"].is_u64());
    says(&late, "COMMIT").await;
    let received = stage.delivered(2).await;
    assert!(stage::shown(&host).await["waits_since"].is_null());
    assert_eq!(stage.ids(), [1, 2].into());
    assert_eq!(received[0].header("broker-kind"), "feed");
}

/// The first writer has drawn its number and not written anything: it has no transaction id yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_a_number_drawn_before_the_first_write_is_not_passed_over() {
    let stage = Stage::with(SCANS).await;
    // From the second on, numbers are drawn without an entry in the log, and so without a transaction id.
    stage.sql("SELECT nextval('changes')");
    let (late, early) = (writer(&stage).await, writer(&stage).await);
    says(&late, "BEGIN; CREATE TEMPORARY VIEW nothing AS SELECT 1; COMMIT; BEGIN").await;
    let drawn: i64 = late.query_one("SELECT nextval('changes')", &[]).await.expect("a number").get(0);
    let ids = late.query_one("SELECT pg_current_xact_id_if_assigned() IS NULL", &[]).await.expect("an answer");
    assert!(ids.get::<_, bool>(0), "the writer has no transaction id");
    says(&early, "INSERT INTO scans (id, state) VALUES (2, 'early')").await;
    let host = stage.host("cursor: changed").await;
    waits_for(&host, &stage, &late).await;
    says(&late, &format!("INSERT INTO scans (id, changed, state) VALUES (1, {drawn}, 'late'); COMMIT")).await;
    stage.delivered(2).await;
    assert_eq!(stage.ids(), [1, 2].into());
}

/// The first writer's time is that of its beginning, before its first write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_a_time_taken_before_the_first_write_is_not_passed_over() {
    let stage = Stage::with(TIMED_SCANS).await;
    let (late, early) = (writer(&stage).await, writer(&stage).await);
    says(&late, "BEGIN; SELECT now()").await;
    says(&early, "INSERT INTO scans (id, state) VALUES (2, 'early')").await;
    let host = stage.host("cursor: changed").await;
    waits_for(&host, &stage, &late).await;
    says(&late, "INSERT INTO scans (id, state) VALUES (1, 'late'); COMMIT").await;
    stage.delivered(2).await;
    let rows = stage.rows();
    let changed = |id: i64| rows.iter().find(|row| row["id"] == id).and_then(|row| row["changed"].as_str());
    assert!(changed(1) < changed(2), "the later one to be written has the smaller cursor: {rows:?}");
}

/// The first writer is given a transaction id after the feed began to wait for it, and is then prepared under it: none
/// of its locks on its virtual id is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_a_writer_that_is_prepared_is_waited_for() {
    let stage = Stage::with(SCANS).await;
    stage.sql("SELECT nextval('changes')");
    let (late, early) = (writer(&stage).await, writer(&stage).await);
    says(&late, "BEGIN").await;
    let drawn: i64 = late.query_one("SELECT nextval('changes')", &[]).await.expect("a number").get(0);
    says(&early, "INSERT INTO scans (id, state) VALUES (2, 'early')").await;
    let host = stage.host("cursor: changed").await;
    waits_for(&host, &stage, &late).await;
    let insert = format!("INSERT INTO scans (id, changed, state) VALUES (1, {drawn}, 'late')");
    says(&late, &format!("{insert}; PREPARE TRANSACTION 'two phases'")).await;
    stage::waits(&host, |waiting| waiting["prepared"] == "two phases").await;
    assert!(stage.vendor.received().is_empty(), "nothing is read past it: {:?}", stage.rows());
    says(&late, "COMMIT PREPARED 'two phases'").await;
    stage.delivered(2).await;
    assert_eq!(stage.ids(), [1, 2].into());
}

/// Who may read the table and nothing else waits as well: it sees who is running, if not what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_needs_no_right_but_to_read_the_table() {
    let stage = Stage::with(SCANS).await;
    stage.sql("CREATE ROLE reader LOGIN PASSWORD 'a-password'; GRANT SELECT ON scans TO reader");
    let (late, early) = (writer(&stage).await, writer(&stage).await);
    says(&late, "BEGIN; INSERT INTO scans (id, state) VALUES (1, 'late')").await;
    says(&early, "INSERT INTO scans (id, state) VALUES (2, 'early')").await;
    let reader = stage.url.replace("//backstop:", "//reader:");
    let host = stage.host_reading(&reader, "sqlite:backstop.db", "", "cursor: changed").await;
    waits_for(&host, &stage, &late).await;
    says(&late, "COMMIT").await;
    stage.delivered(2).await;
    assert_eq!(stage.ids(), [1, 2].into());
}

/// What goes on in another database concerns nobody here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_does_not_wait_for_other_databases() {
    let (stage, other) = (Stage::with(SCANS).await, Stage::with(SCANS).await);
    let elsewhere = writer(&other).await;
    says(&elsewhere, "BEGIN; INSERT INTO scans (id, state) VALUES (1, 'elsewhere')").await;
    let _host = stage.host("cursor: changed").await;
    stage.sql("INSERT INTO scans (id, state) VALUES (2, 'here')");
    stage.delivered(1).await;
    says(&elsewhere, "COMMIT").await;
}

/// Four writers commit in any order, some roll back, while the feed reads all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn scan_platform_feed_many_writers_at_once_lose_no_row() {
    let stage = Stage::with(SCANS).await;
    let _host = stage.host("cursor: changed, partitions: 3, batch: 7").await;
    let write = async |writer: i64| {
        let client = self::writer(&stage).await;
        for turn in 0..60 {
            let (one, two) = (writer * 1000 + turn * 2, writer * 1000 + turn * 2 + 1);
            let end = if turn % 5 == 4 { "ROLLBACK" } else { "COMMIT" };
            says(&client, &format!("BEGIN; INSERT INTO scans VALUES ({one}, DEFAULT, 'a')")).await;
            says(&client, "SELECT pg_sleep(random() * 0.02)").await;
            says(&client, &format!("INSERT INTO scans VALUES ({two}, DEFAULT, 'b'); {end}")).await;
        }
    };
    tokio::join!(write(1), write(2), write(3), write(4));
    let written = stage.sql("SELECT count(*) FROM scans").parse::<usize>().expect("a number");
    assert_eq!(written, 4 * 48 * 2);
    stage.delivered(written).await;
    assert_eq!(stage.ids().len(), written);
}
