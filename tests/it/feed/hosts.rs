//! Hosts that share a store share a feed.

use backstop_tests::{Host, eventually};

use super::stage::{SCANS, Stage, held};

/// Waits until each of the two reads two partitions, and no partition is both's.
async fn share(one: &Host, two: &Host) {
    eventually("each host to read two partitions", async || {
        let (one, two) = (held(one).await, held(two).await);
        (one.len() == 2 && two.len() == 2 && one.iter().all(|number| !two.contains(number))).then_some(())
    })
    .await;
}

/// How many messages there are, and how many states of rows they are of.
fn stored(stage: &Stage, store: &str) -> (usize, usize) {
    let counted = stage.sql_at(store, "SELECT count(*), count(DISTINCT idempotency_key) FROM backstop.messages");
    let (messages, states) = counted.split_once('|').expect("two columns");
    (messages.parse().expect("a number"), states.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_two_hosts_share_the_partitions() {
    let stage = Stage::with(SCANS).await;
    let store = stage.store();
    let one = stage.host_on(&store, "", "cursor: changed, partitions: 4").await;
    eventually("the first to read all", async || (held(&one).await.len() == 4).then_some(())).await;
    let mut two = stage.host_on(&store, "", "cursor: changed, partitions: 4").await;
    share(&one, &two).await;
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'new' FROM generate_series(1, 100) AS n");
    stage.delivered(100).await;
    // The one that stops in order is not waited for.
    two.signal("TERM").await;
    two.exited().await;
    eventually("the first to read all again", async || (held(&one).await.len() == 4).then_some(())).await;
    stage.sql("UPDATE scans SET state = 'done'");
    stage.delivered(200).await;
    assert_eq!(stored(&stage, &store), (200, 200));
}

/// The host is killed in the middle of a batch, all of which another one reads again: what was stored is known again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_a_host_that_is_killed_is_taken_over_from_its_checkpoint() {
    let stage = Stage::with(SCANS).await;
    let store = stage.store();
    let (route, feed) = ("order_by: 'json:/state', concurrency: 1", "cursor: changed, batch: 1000");
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'n' || n % 50 FROM generate_series(1, 20) AS n");
    let mut killed = stage.host_on(&store, route, feed).await;
    stage.delivered(20).await;
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'n' || n % 50 FROM generate_series(21, 1000) AS n");
    eventually("a batch to be stored in part", async || (stored(&stage, &store).0 > 40).then_some(())).await;
    killed.signal("KILL").await;
    killed.exited().await;
    let (before, _) = stored(&stage, &store);
    let place = stage.sql_at(&store, "SELECT cursor FROM backstop.feed_partitions");
    assert!(before < 1000 && place == "20", "killed in the middle: {before} are stored, the checkpoint is {place}");

    let _other = stage.host_on(&store, route, feed).await;
    eventually("every row to be delivered", async || (stage.ids().len() == 1000).then_some(())).await;
    assert_eq!(stored(&stage, &store), (1000, 1000), "what was stored before was known again");
}

/// A host that splits the feed otherwise waits for those that hold it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_hosts_that_split_it_otherwise_wait_for_one_another() {
    let stage = Stage::with(SCANS).await;
    let store = stage.store();
    let mut two = stage.host_on(&store, "", "cursor: changed, partitions: 2").await;
    eventually("the first to read all", async || (held(&two).await.len() == 2).then_some(())).await;
    let three = stage.host_on(&store, "", "cursor: changed, partitions: 3").await;
    eventually("the second to say why it waits", async || {
        (!three.log_lines("other hosts split the feed").is_empty()).then_some(())
    })
    .await;
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'new' FROM generate_series(1, 30) AS n");
    stage.delivered(30).await;
    assert!(held(&three).await.is_empty());
    two.signal("KILL").await;
    two.exited().await;
    stage.sql("UPDATE scans SET state = 'done'");
    stage.delivered(60).await;
    assert_eq!(held(&three).await, [0, 1, 2]);
}

/// A host that is stopped for longer than its lease loses its partition, and goes on behind the one that took it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_platform_feed_a_host_that_slept_through_its_lease_reads_nothing_more_of_it() {
    let stage = Stage::with(SCANS).await;
    let store = stage.store();
    let one = stage.host_on(&store, "", "cursor: changed, batch: 5").await;
    eventually("the first to read it", async || (held(&one).await == [0]).then_some(())).await;
    let two = stage.host_on(&store, "", "cursor: changed, batch: 5").await;
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'new' FROM generate_series(1, 200) AS n");
    stage.vendor.receives(20).await;
    one.signal("STOP").await;
    eventually("the second to take it over", async || (held(&two).await == [0]).then_some(())).await;
    one.signal("CONT").await;
    eventually("the first to let go of it", async || held(&one).await.is_empty().then_some(())).await;
    stage.sql("INSERT INTO scans (id, state) SELECT n, 'new' FROM generate_series(201, 300) AS n");
    eventually("every row to be delivered", async || (stage.ids().len() == 300).then_some(())).await;
    assert_eq!(stored(&stage, &store), (300, 300));
}
