//! The disk under the store: full, read-only, damaged, or taken away. What was answered 202 is never lost without a
//! word, and what cannot be kept is not accepted.

use std::path::Path;
use std::time::Duration;

use backstop_tests::setup::Place;
use backstop_tests::{Host, Load, Setup, Vendor, eventually, ok};

/// Callers that send at once.
const CALLERS: usize = 4;
/// The small disk, in KiB: what a log that is not yet checkpointed takes (16 MiB), and some room beside it.
const DISK: u32 = 48 << 10;

fn orders(vendor: &Vendor) -> Setup {
    Setup::routes(&format!(
        "
        orders:
          destination: {vendor}
          concurrency: 8
          retry: {{ max_attempts: 20, min_delay: 20ms, max_delay: 200ms }}
        "
    ))
}

/// A host whose database is on a small disk, and its load.
async fn on_a_small_disk() -> (Vendor, Host, Load) {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(Load::answer);
    let place = orders(&vendor).setting("store", "sqlite:disk/backstop.db").place().with_disk(DISK);
    (vendor, Host::start_in(place).await, Load::on("/r/orders"))
}

/// Fills the disk, and keeps sending until callers have been refused again and again.
async fn refused_on_a_full_disk(host: &Host, load: &Load) {
    host.place().disk().fill();
    let refused = eventually("callers to be refused", async || (load.refused(503).len() > 50).then_some(()));
    load.while_sending(&[host], CALLERS, refused).await;
    for answer in load.refused(503) {
        assert_eq!(answer.header("retry-after"), "1", "{answer:?}");
        assert_eq!(answer.json()["type"], "urn:backstop:problem:store-unavailable", "{answer:?}");
    }
}

#[tokio::test]
async fn disk_full_callers_are_told_to_come_again_and_all_goes_on_once_there_is_room() {
    let (vendor, host, load) = on_a_small_disk().await;
    load.send_all(&host, 300, CALLERS).await;
    refused_on_a_full_disk(&host, &load).await;
    host.place().disk().free();
    load.send_all(&host, 300, CALLERS).await;
    let audit = load.audit(&host, &vendor).await;
    assert_eq!(audit.interrupted, 0, "an attempt whose outcome could not be written down at once is not made again");
    assert!(load.refused(500).is_empty(), "{:?}", load.refused(500));
}

#[tokio::test]
async fn disk_full_when_the_power_goes_what_was_accepted_is_there_afterwards() {
    let (vendor, mut host, load) = on_a_small_disk().await;
    load.send_all(&host, 300, CALLERS).await;
    refused_on_a_full_disk(&host, &load).await;
    host.kill().await;
    host.place().disk().free();
    host.restart().await;
    load.audit(&host, &vendor).await;
}

/// Starts a host that is to be refused, and answers what it says.
async fn refused(place: &Place) -> String {
    let serve = tokio::time::timeout(Duration::from_secs(60), place.run(&["serve", "-c", "backstop.yaml"]));
    let output = serve.await.expect("a start that is refused, not a host that serves");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[tokio::test]
async fn disk_read_only_the_start_is_refused_by_name() {
    let vendor = Vendor::answering([ok()]).await;
    let place = orders(&vendor).setting("store", "sqlite:disk/backstop.db").place().with_disk(1 << 10);
    place.disk().write_protect();
    let said = refused(&place).await;
    assert!(said.contains("disk/backstop.db") && said.contains("Read-only file system"), "{said}");
}

#[tokio::test]
async fn disk_read_only_after_a_run_the_start_is_refused_and_nothing_is_lost() {
    let vendor = Vendor::answering([ok()]).await;
    let place = orders(&vendor).setting("store", "sqlite:disk/backstop.db").place().with_disk(DISK);
    let mut host = Host::start_in(place).await;
    let id = host.accept("/r/orders", "1").await;
    host.until(&id, "delivered").await;
    host.kill().await;
    host.place().disk().write_protect();
    let said = refused(host.place()).await;
    assert!(said.contains("disk/backstop.db") && said.contains("Read-only file system"), "{said}");
}

#[tokio::test]
async fn disk_a_folder_that_the_host_may_not_write_to_is_refused_by_name() {
    let vendor = Vendor::answering([ok()]).await;
    let place = orders(&vendor).setting("store", "sqlite:data/backstop.db").place().without_privileges();
    std::fs::create_dir(place.path("data")).expect("a folder");
    std::fs::set_permissions(place.path("data"), std::os::unix::fs::PermissionsExt::from_mode(0o555))
        .expect("its owner may do that");
    let said = refused(&place).await;
    assert!(said.contains("data/backstop.db") && said.contains("Permission denied"), "{said}");
}

/// The files of a store, and what is in them.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?.to_owned();
            let bytes = std::fs::read(&path).unwrap_or_default();
            // The lock is empty; whoever opens the file makes the log's index anew, and an empty log where there is none.
            let made = name.ends_with(".lock") || name.ends_with("-shm") || name.ends_with("-wal") && bytes.is_empty();
            (name.starts_with("backstop.db") && !made).then_some((name, bytes))
        })
        .collect();
    files.sort();
    files
}

/// A store with some hundred messages that a power cut left, in its main file as well as in its log.
async fn left_by_a_power_cut() -> (Vendor, Host) {
    let vendor = Vendor::answering([ok()]).await;
    let mut host = orders(&vendor).start().await;
    let load = Load::on("/r/orders");
    load.send_all(&host, 300, CALLERS).await;
    host.signal("TERM").await;
    host.exited().await;
    host.restart().await;
    load.send_all(&host, 100, CALLERS).await;
    eventually("the last delivery", async || host.messages("queued,in_flight").await.is_empty().then_some(())).await;
    host.kill().await;
    (vendor, host)
}

/// Changes the bytes from `at` on in a file of the store, and checks that a start is refused and changes nothing.
async fn damaged(name: &str, at: impl FnOnce(usize) -> usize) {
    let (vendor, mut host) = left_by_a_power_cut().await;
    if name == "backstop.db" {
        // In order this time: what the log holds of a page would stand in for it.
        host.restart().await;
        host.signal("TERM").await;
        host.exited().await;
    }
    let before = vendor.received().len();
    let path = host.place().path(name);
    let mut bytes = std::fs::read(&path).expect("a file of the store");
    let at = at(bytes.len());
    bytes[at..at + 16].fill(0xa5);
    std::fs::write(&path, bytes).expect("a file of the store");
    let folder = host.place().path("");
    let left = files(&folder);
    let said = refused(host.place()).await;
    assert!(said.contains("backstop.db"), "it names the file: {said}");
    assert!(said.contains("damaged") || said.contains("not a database"), "{said}");
    assert!(files(&folder) == left, "not a byte was changed, no file came or went");
    assert_eq!(vendor.received().len(), before, "and nothing is sent");
}

#[tokio::test]
async fn disk_damage_to_the_header_is_refused() {
    damaged("backstop.db", |_| 0).await;
}

#[tokio::test]
async fn disk_damage_to_a_page_in_the_middle_is_refused() {
    damaged("backstop.db", |length| length / 2 / 4096 * 4096).await;
}

#[tokio::test]
async fn disk_damage_to_the_log_s_header_is_refused() {
    damaged("backstop.db-wal", |_| 8).await;
}

#[tokio::test]
async fn disk_damage_to_the_log_s_first_frames_is_refused() {
    damaged("backstop.db-wal", |_| 32 + 24 + 4096 + 24 + 100).await;
}

#[tokio::test]
async fn disk_a_log_whose_file_is_gone_is_refused_and_no_new_file_takes_its_place() {
    let (_vendor, host) = left_by_a_power_cut().await;
    let folder = host.place().path("");
    std::fs::rename(host.place().path("backstop.db"), host.place().path("elsewhere")).expect("the file");
    let left = files(&folder);
    let said = refused(host.place()).await;
    assert!(said.contains("backstop.db-wal holds messages"), "{said}");
    assert!(files(&folder) == left, "no new file");
}

/// What is written into a file that has no name any more is gone with the process: it is not to be promised.
#[tokio::test]
async fn disk_a_file_that_is_moved_away_under_the_host_stops_intake_until_it_is_back() {
    for name in ["backstop.db", "backstop.db-wal"] {
        let vendor = Vendor::answering([]).await;
        vendor.answers_by(Load::answer);
        let mut host = orders(&vendor).start().await;
        let load = Load::on("/r/orders");
        load.send_all(&host, 50, CALLERS).await;
        let (file, elsewhere) = (host.place().path(name), host.place().path("elsewhere"));
        std::fs::rename(&file, &elsewhere).expect("the file");
        let accepted = load.accepted();
        let refused = eventually("callers to be refused", async || (load.refused(503).len() > 20).then_some(()));
        load.while_sending(&[&host], CALLERS, refused).await;
        assert!(load.accepted() <= accepted + CALLERS, "{name} is gone, and messages are accepted still");
        host.says(&format!("{name} was removed or replaced while in use"), 1).await;
        std::fs::rename(&elsewhere, &file).expect("the file");
        load.send_all(&host, 50, CALLERS).await;
        host.kill().await;
        host.restart().await;
        load.audit(&host, &vendor).await;
    }
}
