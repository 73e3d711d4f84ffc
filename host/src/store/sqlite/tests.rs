//! The contract on SQLite, and what is SQLite's own: the file, its lock, its end.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::message::AttemptRecord;
use crate::store::contract::{
    self, accept, acceptance, at, claim_ids, delivered, feeds, finish, id, keys, lease, leased, leases, model, orders,
    owner, queued, route, selections, stored, transactions,
};
use crate::store::{Entry, Finished, Preparation, Transacting as _};

/// A place for a file, gone at the end of the test.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("backstop.db")
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.file()).unwrap()
    }

    fn refusal(&self) -> String {
        match SqliteStore::open(&self.file()) {
            Err(StoreError::Unusable(reason)) => reason,
            other => panic!("not refused as unusable: {other:?}"),
        }
    }
}

/// Runs each rule of the contract on an empty store of its own.
macro_rules! rules {
    ($($name:ident => $rule:path;)*) => {$(
        #[tokio::test]
        async fn $name() {
            let place = Place::new();
            let store = place.open();
            $rule(&store).await;
            store.close().await.unwrap();
        }
    )*};
}

rules! {
    sqlite_gives_a_message_back_as_it_came => acceptance::a_message_comes_back_as_it_went;
    sqlite_keeps_header_values_that_are_not_text => acceptance::header_values_need_not_be_text_and_names_may_repeat;
    sqlite_keeps_a_large_body_whole => acceptance::a_large_body_comes_back_whole;
    sqlite_stores_a_message_that_has_ended => acceptance::a_message_may_be_stored_ended;
    sqlite_answers_none_for_an_unknown_message => acceptance::an_unknown_message_is_none;
    sqlite_never_stores_one_id_twice => acceptance::one_id_is_never_stored_twice;
    sqlite_keeps_holds_until_they_run_out => acceptance::holds_stand_until_they_run_out;
    sqlite_keeps_a_hold_of_no_message => acceptance::a_hold_is_written_down_without_a_message;
    sqlite_tallies_by_route_and_state => acceptance::the_tally_counts_by_route_and_state;
    sqlite_keeps_the_journal_in_order => acceptance::the_journal_grows_in_order;
    sqlite_gives_each_message_to_one_claimer => leases::each_message_goes_to_one_claimer;
    sqlite_claims_the_oldest_due_first => leases::the_oldest_due_goes_first_and_no_more_than_asked_for;
    sqlite_claims_for_each_lane => leases::each_lane_gets_its_own;
    sqlite_claims_again_what_lost_its_lease => leases::a_lease_that_ran_out_is_claimed_again;
    sqlite_ignores_a_finish_after_the_lease_was_lost => leases::finishing_after_the_lease_was_lost_changes_nothing;
    sqlite_writes_progress_journal_and_end => leases::finishing_writes_progress_journal_and_end;
    sqlite_reroutes_a_message => leases::a_rerouted_message_waits_on_its_new_route;
    sqlite_prolongs_a_lease_for_its_holder => leases::a_lease_is_prolonged_for_its_holder_only;
    sqlite_releases_a_message_to_its_turn => leases::what_is_released_keeps_its_turn;
    sqlite_claims_no_more_retries_than_may_be => leases::no_more_retries_are_claimed_than_may_be;
    sqlite_claims_lapsed_leases_whatever_the_retries => leases::a_lapsed_lease_is_claimed_whatever_may_be_retried;
    sqlite_writes_down_what_a_lapsed_lease_interrupted => leases::what_a_lapsed_lease_interrupted_is_in_the_journal;
    sqlite_keeps_an_order => orders::one_goes_at_a_time_and_as_they_came;
    sqlite_keeps_an_order_over_a_retry => orders::a_retry_keeps_those_behind_it_waiting;
    sqlite_orders_nobody_else => orders::other_keys_and_routes_go_on;
    sqlite_leases_nobody_out_of_turn => orders::one_behind_another_is_not_leased_to_who_accepts_it;
    sqlite_gives_one_of_many_the_turn => orders::of_many_accepted_at_once_one_has_the_turn;
    sqlite_blocks_an_order_behind_a_dead_letter => orders::a_dead_letter_blocks_its_order_until_it_is_discarded;
    sqlite_redrives_before_what_was_blocked => orders::a_dead_letter_that_is_redriven_goes_before_those_it_blocked;
    sqlite_skips_a_dead_letter => orders::a_dead_letter_that_is_skipped_lets_the_next_one_go;
    sqlite_unblocks_an_order_when_it_sweeps => orders::a_dead_letter_that_is_kept_no_longer_lets_the_next_one_go;
    sqlite_keeps_the_turn_on_another_route => orders::a_message_that_leaves_for_another_route_keeps_its_turn;
    sqlite_goes_on_with_an_order_whose_first_is_given_up => orders::an_order_goes_on_when_who_has_the_turn_is_given_up;
    sqlite_names_what_a_message_waits_for => orders::a_message_names_the_one_that_it_waits_for;
    sqlite_takes_a_key_with_its_message => keys::a_key_is_taken_with_its_message;
    sqlite_keeps_keys_by_route => keys::keys_of_different_routes_are_different_keys;
    sqlite_finds_one_of_many_keys_fresh => keys::of_many_that_come_at_once_one_is_fresh;
    sqlite_finds_an_opened_key_in_flight => keys::an_opened_key_is_in_flight_until_it_is_answered;
    sqlite_frees_a_key_given_back => keys::a_key_given_back_is_free;
    sqlite_does_not_close_a_key_that_another_message_opened_since => keys::a_key_that_another_message_opened_since_is_not_closed;
    sqlite_keeps_a_stored_key_that_is_given_back => keys::only_an_opened_key_is_given_back;
    sqlite_stores_a_message_under_its_opened_key => keys::a_message_is_stored_under_the_key_opened_for_it;
    sqlite_leaves_a_key_to_its_answer => keys::a_message_stored_for_analysis_leaves_its_key_to_the_answer;
    sqlite_frees_a_key_past_its_time => keys::a_key_past_its_time_is_free;
    sqlite_takes_no_key_for_what_it_did_not_store => keys::a_failed_acceptance_takes_no_key;
    sqlite_sweeps_keys_past_their_time => keys::keys_past_their_time_are_swept;
    sqlite_lists_from_the_newest_page_by_page => selections::a_list_goes_from_the_newest_page_by_page;
    sqlite_bounds_a_list => selections::a_list_is_bounded;
    sqlite_filters_a_list => selections::a_list_is_filtered;
    sqlite_archives_from_the_oldest => selections::the_archive_goes_from_the_oldest_and_has_a_line_for_every_message;
    sqlite_redrives_afresh => selections::a_redriven_message_starts_afresh;
    sqlite_redrives_only_what_ended_undelivered => selections::only_what_ended_undelivered_is_redriven;
    sqlite_discards_only_dead_letters => selections::only_dead_letters_are_discarded;
    sqlite_gives_up_what_is_queued_on_a_route => selections::what_is_queued_on_a_route_is_given_up;
    sqlite_amends_only_what_fits => selections::a_selection_by_filter_touches_only_what_fits;
    sqlite_limits_a_selection_that_says_so => selections::a_selection_by_filter_is_limited_only_if_it_says_so;
    sqlite_redrives_many_named_messages => selections::many_named_messages_are_all_redriven;
    sqlite_sweeps_what_has_had_its_time => selections::what_has_ended_is_swept_when_its_time_is_over;
    sqlite_sweeps_a_journal_with_its_message => selections::a_swept_message_takes_its_journal_along;
    sqlite_prepares_no_message => transactions::what_is_prepared_is_no_message;
    sqlite_repeats_a_preparation_under_its_key => transactions::a_preparation_is_repeated_under_its_key;
    sqlite_delivers_whole_what_is_confirmed => transactions::what_is_confirmed_is_delivered_whole;
    sqlite_leases_what_is_confirmed => transactions::what_is_confirmed_may_be_leased_at_once;
    sqlite_orders_what_is_confirmed => transactions::what_is_confirmed_joins_its_order_then;
    sqlite_forgets_what_is_cancelled => transactions::what_is_cancelled_is_forgotten;
    sqlite_keeps_to_the_first_word => transactions::the_first_word_holds;
    sqlite_takes_one_of_many_words => transactions::of_many_words_at_once_one_is_the_first;
    sqlite_lets_one_at_a_time_ask => transactions::one_at_a_time_asks;
    sqlite_has_checks_made_again => transactions::a_check_that_settles_nothing_is_made_again;
    sqlite_ignores_an_answer_after_a_word => transactions::an_answer_after_a_word_changes_nothing;
    sqlite_counts_an_answer_that_settles => transactions::an_answer_that_settles_is_counted;
    sqlite_keeps_what_is_parked => transactions::what_is_parked_waits_for_a_person_or_its_senders_word;
    sqlite_lists_half_messages => transactions::a_list_of_them_goes_from_the_newest;
    sqlite_counts_what_is_prepared_as_open => transactions::what_is_open_counts_as_not_ended;
    sqlite_sweeps_transactions_after_their_keys => transactions::what_has_ended_is_swept_after_its_key;
    sqlite_gives_one_host_all_partitions => feeds::one_host_holds_all_partitions;
    sqlite_shares_partitions_among_hosts => feeds::hosts_share_and_no_partition_is_two_hosts;
    sqlite_gives_a_partition_to_one_of_many_that_claim => feeds::of_hosts_that_claim_at_once_none_holds_what_another_does;
    sqlite_hands_a_partition_on_with_its_checkpoint => feeds::a_partition_goes_on_from_its_checkpoint_at_another_host;
    sqlite_ignores_a_checkpoint_after_the_lease_was_lost => feeds::who_lost_a_partition_does_not_move_its_checkpoint;
    sqlite_waits_for_nobody_who_left_a_feed => feeds::who_leaves_is_not_waited_for;
    sqlite_splits_a_feed_anew => feeds::a_feed_split_anew_goes_on_from_before_its_smallest_checkpoint;
    sqlite_starts_an_unbegun_feed_over => feeds::a_feed_that_is_split_anew_before_all_of_it_began_starts_over;
    sqlite_tells_feeds_apart => feeds::feeds_are_told_apart;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn sqlite_does_as_the_model_does(calls in model::calls()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            model::any_calls_leave_what_the_model_leaves(&place.open(), calls).await;
        });
    }
}

#[tokio::test]
async fn sqlite_finds_again_what_it_accepted_after_it_was_closed() {
    let place = Place::new();
    let store = place.open();
    for number in 0..20 {
        accept(&store, queued(number, "orders", at(number))).await;
    }
    store.close().await.unwrap();
    assert!(!place.file().with_extension("db-wal").exists(), "everything is in the main file");

    let store = place.open();
    let due = claim_ids(&store, "orders", 100, at(100), lease("a", at(200))).await;
    assert_eq!(due, (0..20).map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn sqlite_keeps_what_was_answered_when_the_host_is_killed() {
    let place = Place::new();
    let store = place.open();
    let accepted = (0..200).map(|number| accept(&store, leased(number, "orders", lease("a", at(10)))));
    join_all(accepted).await;
    let finished = join_all((0..100).map(|number| store.finish(finish(number, "a", delivered(at(1)))))).await;
    assert!(finished.iter().all(|finished| matches!(finished, Ok(Finished::Done))));

    // A killed host leaves the files as they are at that moment: with the log, and without a last word.
    let after = Place::new();
    for name in ["backstop.db", "backstop.db-wal"] {
        std::fs::copy(place.0.path().join(name), after.0.path().join(name)).unwrap();
    }
    let store = after.open();

    let tally = store.tally().await.unwrap();
    assert_eq!(tally.get(&("orders".to_owned(), State::Delivered)), Some(&100));
    assert_eq!(tally.get(&("orders".to_owned(), State::InFlight)), Some(&100));
    assert_eq!(store.recover(owner("b"), at(2)).await.unwrap(), 100);
    assert_eq!(claim_ids(&store, "orders", 200, at(2), lease("b", at(9))).await.len(), 100);
}

#[tokio::test]
async fn sqlite_takes_over_what_earlier_hosts_held() {
    let place = Place::new();
    let store = place.open();
    accept(&store, leased(1, "orders", lease("before", at(1000)))).await;
    accept(&store, leased(2, "orders", lease("now", at(1000)))).await;
    let key = |number, by| KeyClaim {
        route: route("orders"),
        key: "k".to_owned(),
        fingerprint: [7; 32],
        message: id(number),
        owner: owner(by),
        opened_until: at(50),
        keep_until: at(60),
    };
    assert_eq!(store.open_key(key(1, "before"), at(0)).await.unwrap(), KeyState::Fresh);
    assert_eq!(store.open_key(key(2, "now"), at(0)).await.unwrap(), KeyState::Fresh, "its host is gone");
    assert_eq!(store.open_key(key(3, "now"), at(0)).await.unwrap(), KeyState::InFlight);

    assert_eq!(store.recover(owner("now"), at(5)).await.unwrap(), 1);

    assert_eq!(store.open_key(key(4, "now"), at(5)).await.unwrap(), KeyState::InFlight, "its own key stands");
    let taken_over = stored(&store, 1).await;
    assert_eq!(taken_over.summary.due_at, Some(at(5)));
    assert_eq!(taken_over.attempts, [AttemptRecord::interrupted(1, "orders", at(5))]);
    assert_eq!(claim_ids(&store, "orders", 9, at(5), lease("now", at(60))).await, [id(1)]);
    assert_eq!(stored(&store, 2).await.summary.state, State::InFlight);
}

#[tokio::test]
async fn sqlite_asks_again_at_once_about_what_an_earlier_host_was_asking_about() {
    let place = Place::new();
    let store = place.open();
    for number in [1, 2] {
        let message = contract::message(number, "orders");
        store.prepare(Preparation { message, order: None, first_check: at(60), key: None }).await.unwrap();
    }
    let claim = async |now, by| store.claim_checks(route("orders"), 1, now, lease(by, at(1000))).await.unwrap();
    assert_eq!((claim(at(60), "before").await.checks.len(), claim(at(60), "now").await.checks.len()), (1, 1));

    store.recover(owner("now"), at(70)).await.unwrap();

    let again = claim(at(70), "now").await.checks;
    assert_eq!(again.iter().map(|check| check.message.id).collect::<Vec<_>>(), [id(1)]);
    assert!(claim(at(70), "now").await.checks.is_empty(), "its own stand");
}

#[tokio::test]
async fn sqlite_turns_a_second_host_away() {
    let place = Place::new();
    let store = place.open();
    let reason = place.refusal();
    assert!(reason.contains("in use by another host"), "{reason}");
    store.close().await.unwrap();
    place.open();
}

#[tokio::test]
async fn sqlite_refuses_calls_once_it_is_closed() {
    let place = Place::new();
    let store = place.open();
    store.close().await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(store.accept(queued(1, "orders", at(0))).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.tally().await, Err(StoreError::Unavailable(_))));
}

#[test]
fn sqlite_refuses_a_file_that_is_not_a_database_and_leaves_it_alone() {
    let place = Place::new();
    let text = "dear diary, ".repeat(1000);
    std::fs::write(place.file(), &text).unwrap();
    let reason = place.refusal();
    assert!(reason.contains("backstop.db") && reason.contains("not a database"), "{reason}");
    assert_eq!(std::fs::read_to_string(place.file()).unwrap(), text);
}

#[tokio::test]
async fn sqlite_refuses_a_file_that_was_cut_short() {
    let place = Place::new();
    let store = place.open();
    for number in 0..200 {
        accept(&store, queued(number, "orders", at(0))).await;
    }
    store.close().await.unwrap();
    let length = std::fs::metadata(place.file()).unwrap().len();
    std::fs::File::options().write(true).open(place.file()).unwrap().set_len(length / 2).unwrap();
    let reason = place.refusal();
    assert!(reason.contains("damaged"), "{reason}");
    assert_eq!(std::fs::metadata(place.file()).unwrap().len(), length / 2, "no new file in its place");
}

#[tokio::test]
async fn sqlite_refuses_a_file_that_is_damaged_in_the_middle() {
    let place = Place::new();
    let store = place.open();
    for number in 0..200 {
        accept(&store, queued(number, "orders", at(0))).await;
    }
    store.close().await.unwrap();
    // As a host leaves it that was killed: with a log beside it.
    let store = place.open();
    accept(&store, queued(200, "orders", at(0))).await;
    let (killed, log) = (Place::new(), "backstop.db-wal");
    std::fs::copy(place.0.path().join(log), killed.0.path().join(log)).unwrap();
    let mut damaged = std::fs::read(place.file()).unwrap();
    let middle = damaged.len() / 2 / 4096 * 4096;
    damaged[middle..middle + 4096].fill(0xa5);
    std::fs::write(killed.file(), &damaged).unwrap();

    let reason = killed.refusal();

    assert!(reason.contains("damaged") && reason.contains(".recover"), "{reason}");
    assert!(std::fs::read(killed.file()).unwrap() == damaged, "it is left as it was");
    let log_of = |place: &Place| std::fs::read(place.0.path().join(log)).unwrap();
    assert!(!log_of(&killed).is_empty() && log_of(&killed) == log_of(&place), "and so is its log");
}

/// What a power cut leaves of `place` that comes in the middle of accepting a message with a body of `length` bytes: all
/// of the commit but its first page.
async fn cut_off_in_a_commit(place: &Place, number: u64, length: usize) -> Place {
    const FRAME: usize = 24 + 4096;
    let (store, log) = (place.open(), place.0.path().join("backstop.db-wal"));
    let before = std::fs::read(&log).unwrap();
    let mut message = queued(number, "orders", at(0));
    let request = crate::message::Request { body: vec![1; length].into(), ..(*message.message.request).clone() };
    message.message.request = request.into();
    accept(&store, message).await;
    let mut torn = std::fs::read(&log).unwrap();
    let begin = torn.iter().zip(&before).take_while(|(after, before)| after == before).count().max(32);
    torn[(begin - 32) / FRAME * FRAME + 32 + 24 + 100] ^= 0xff;
    let cut = Place::new();
    std::fs::copy(place.file(), cut.file()).unwrap();
    std::fs::write(cut.0.path().join("backstop.db-wal"), torn).unwrap();
    cut
}

#[tokio::test]
async fn sqlite_starts_after_two_power_cuts_one_after_the_other() {
    let place = Place::new();
    accept(&place.open(), queued(1, "orders", at(0))).await;
    // What is left of the first is longer than the second's, and lies behind it.
    let once = cut_off_in_a_commit(&place, 2, 300_000).await;
    let twice = cut_off_in_a_commit(&once, 3, 30_000).await;
    let store = twice.open();
    assert!(store.message(id(1)).await.unwrap().is_some());
    assert_eq!(store.tally().await.unwrap().values().sum::<u64>(), 1, "of the others nobody was told");
}

#[test]
fn sqlite_refuses_the_database_of_another_program_and_leaves_it_alone() {
    let place = Place::new();
    let other = rusqlite::Connection::open(place.file()).unwrap();
    other.execute_batch("CREATE TABLE diary (day TEXT)").unwrap();
    drop(other);
    let before = std::fs::read(place.file()).unwrap();
    let reason = place.refusal();
    assert!(reason.contains("another program"), "{reason}");
    assert_eq!(std::fs::read(place.file()).unwrap(), before);
}

#[test]
fn sqlite_refuses_a_file_of_a_newer_version() {
    let place = Place::new();
    drop(place.open());
    let newer = rusqlite::Connection::open(place.file()).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let reason = place.refusal();
    assert!(reason.contains("newer version of Backstop (schema 99"), "{reason}");
}

#[test]
fn sqlite_names_a_folder_in_the_place_of_a_side_file() {
    for ending in ["-wal", "-shm"] {
        let place = Place::new();
        let folder = format!("{}{ending}", place.file().display());
        std::fs::create_dir(&folder).unwrap();
        let reason = place.refusal();
        assert!(reason.contains(&folder) && reason.contains("not a regular file"), "{reason}");
    }
}

#[tokio::test]
async fn sqlite_passes_over_a_message_it_cannot_read() {
    let place = Place::new();
    let store = place.open();
    accept(&store, queued(1, "orders", at(0))).await;
    accept(&store, queued(2, "orders", at(1))).await;
    store
        .writer
        .run(0, |connection| Ok(connection.execute("UPDATE requests SET headers = x'00' WHERE seq = 1", [])?))
        .await
        .unwrap();
    assert_eq!(claim_ids(&store, "orders", 9, at(5), lease("a", at(60))).await, [id(2)]);
    assert!(matches!(store.message(id(1)).await, Err(StoreError::Unusable(_))), "asked for by name, it is an error");
}

#[tokio::test]
async fn sqlite_goes_on_once_a_full_disk_has_room_again() {
    let place = Place::new();
    let store = place.open();
    let limit_pages = |pages: i64| {
        store.writer.run(0, move |connection| {
            Ok(connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))?)
        })
    };
    let full = limit_pages(1).await.unwrap();
    let mut large = queued(1, "orders", at(0));
    let request = crate::message::Request { body: vec![1; 1 << 20].into(), ..(*large.message.request).clone() };
    large.message.request = request.into();

    assert!(matches!(store.accept(large.clone()).await, Err(StoreError::Unavailable(_))));
    assert!(store.message(id(1)).await.unwrap().is_none(), "nothing of it is left");

    limit_pages(full + 10_000).await.unwrap();
    accept(&store, large).await;
}

#[tokio::test]
async fn sqlite_gives_space_back_to_the_file_system() {
    let place = Place::new();
    let store = place.open();
    for number in 0..60 {
        let entry = Entry::Ended { state: State::Delivered, reason: String::new(), at: at(0) };
        let mut large = contract::acceptance(contract::message(number, "orders"), entry);
        let request = crate::message::Request { body: vec![1; 1 << 20].into(), ..(*large.message.request).clone() };
        large.message.request = request.into();
        accept(&store, large).await;
    }
    let pages = async || {
        let count = |connection: &rusqlite::Connection| {
            Ok(connection.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))?)
        };
        store.readers.run(count).await.unwrap()
    };
    let before = pages().await;
    let retention = Retention { finished: std::time::Duration::ZERO, dead: BTreeMap::new() };
    for _ in 0..50 {
        store.sweep(retention.clone(), at(10), 1000).await.unwrap();
    }
    let after = pages().await;
    assert!(before > 15_000 && after < 5_000, "{before} pages became {after}");
}

#[cfg(unix)]
#[test]
fn sqlite_makes_files_that_only_their_owner_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let store = place.open();
    for name in ["backstop.db", "backstop.db-wal", "backstop.db-shm", "backstop.db.lock"] {
        let mode = std::fs::metadata(Path::new(place.0.path()).join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    drop(store);
}
