//! The contract on Postgres, and what is Postgres' own: its schema, hosts that share it, connections that break.
//!
//! They need a server: `tests/run` starts one and says where it is in `BACKSTOP_TEST_POSTGRES`. Each test has a schema
//! of its own.

use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use tokio::sync::Notify;
use uuid::Uuid;

use super::*;
use crate::clock::{Chance, SystemClock};
use crate::store::Then;
use crate::store::contract::{
    accept, acceptance, at, claim_ids, delivered, feeds, finish, id, keys, lease, leased, leases, model, orders, owner,
    queued, route, selections, stored, transactions,
};

/// A schema that is gone at the end of the test, unless that fails.
struct Place {
    target: PostgresTarget,
}

impl Place {
    fn new() -> Self {
        let url = std::env::var("BACKSTOP_TEST_POSTGRES").expect(
            "BACKSTOP_TEST_POSTGRES is not set: run the tests with tests/run, which starts a Postgres for them",
        );
        let joint = if url.contains('?') { '&' } else { '?' };
        let name = format!("test_{}", Uuid::now_v7().simple());
        let target = format!("{url}{joint}schema={name}&application_name={name}");
        Self { target: PostgresTarget::parse(&target).unwrap() }
    }

    async fn open(&self) -> PostgresStore {
        PostgresStore::open(&self.target, Arc::new(SystemClock)).await.unwrap()
    }

    /// Runs a statement beside the store.
    async fn run(&self, sql: &str) {
        let connections = Connections::new(self.target.clone(), Arc::new(SystemClock)).unwrap();
        connections.call(PATIENCE, |connection| Box::pin(async move { connection.run(sql).await })).await.unwrap();
        connections.close().await;
    }

    async fn remove(self) {
        self.run(&format!("DROP SCHEMA \"{}\" CASCADE", self.target.schema())).await;
    }
}

/// Runs each rule of the contract on an empty store of its own.
macro_rules! rules {
    ($($name:ident => $rule:path;)*) => {$(
        #[tokio::test]
        async fn $name() {
            let place = Place::new();
            let store = place.open().await;
            $rule(&store).await;
            store.close().await.unwrap();
            place.remove().await;
        }
    )*};
}

rules! {
    postgres_gives_a_message_back_as_it_came => acceptance::a_message_comes_back_as_it_went;
    postgres_keeps_header_values_that_are_not_text => acceptance::header_values_need_not_be_text_and_names_may_repeat;
    postgres_keeps_a_large_body_whole => acceptance::a_large_body_comes_back_whole;
    postgres_stores_a_message_that_has_ended => acceptance::a_message_may_be_stored_ended;
    postgres_answers_none_for_an_unknown_message => acceptance::an_unknown_message_is_none;
    postgres_never_stores_one_id_twice => acceptance::one_id_is_never_stored_twice;
    postgres_keeps_holds_until_they_run_out => acceptance::holds_stand_until_they_run_out;
    postgres_keeps_a_hold_of_no_message => acceptance::a_hold_is_written_down_without_a_message;
    postgres_tallies_by_route_and_state => acceptance::the_tally_counts_by_route_and_state;
    postgres_keeps_the_journal_in_order => acceptance::the_journal_grows_in_order;
    postgres_gives_each_message_to_one_claimer => leases::each_message_goes_to_one_claimer;
    postgres_claims_the_oldest_due_first => leases::the_oldest_due_goes_first_and_no_more_than_asked_for;
    postgres_claims_for_each_lane => leases::each_lane_gets_its_own;
    postgres_claims_again_what_lost_its_lease => leases::a_lease_that_ran_out_is_claimed_again;
    postgres_ignores_a_finish_after_the_lease_was_lost => leases::finishing_after_the_lease_was_lost_changes_nothing;
    postgres_writes_progress_journal_and_end => leases::finishing_writes_progress_journal_and_end;
    postgres_reroutes_a_message => leases::a_rerouted_message_waits_on_its_new_route;
    postgres_prolongs_a_lease_for_its_holder => leases::a_lease_is_prolonged_for_its_holder_only;
    postgres_releases_a_message_to_its_turn => leases::what_is_released_keeps_its_turn;
    postgres_claims_no_more_retries_than_may_be => leases::no_more_retries_are_claimed_than_may_be;
    postgres_claims_lapsed_leases_whatever_the_retries => leases::a_lapsed_lease_is_claimed_whatever_may_be_retried;
    postgres_writes_down_what_a_lapsed_lease_interrupted => leases::what_a_lapsed_lease_interrupted_is_in_the_journal;
    postgres_keeps_an_order => orders::one_goes_at_a_time_and_as_they_came;
    postgres_keeps_an_order_over_a_retry => orders::a_retry_keeps_those_behind_it_waiting;
    postgres_orders_nobody_else => orders::other_keys_and_routes_go_on;
    postgres_leases_nobody_out_of_turn => orders::one_behind_another_is_not_leased_to_who_accepts_it;
    postgres_gives_one_of_many_the_turn => orders::of_many_accepted_at_once_one_has_the_turn;
    postgres_blocks_an_order_behind_a_dead_letter => orders::a_dead_letter_blocks_its_order_until_it_is_discarded;
    postgres_redrives_before_what_was_blocked => orders::a_dead_letter_that_is_redriven_goes_before_those_it_blocked;
    postgres_skips_a_dead_letter => orders::a_dead_letter_that_is_skipped_lets_the_next_one_go;
    postgres_unblocks_an_order_when_it_sweeps => orders::a_dead_letter_that_is_kept_no_longer_lets_the_next_one_go;
    postgres_keeps_the_turn_on_another_route => orders::a_message_that_leaves_for_another_route_keeps_its_turn;
    postgres_goes_on_with_an_order_whose_first_is_given_up => orders::an_order_goes_on_when_who_has_the_turn_is_given_up;
    postgres_names_what_a_message_waits_for => orders::a_message_names_the_one_that_it_waits_for;
    postgres_takes_a_key_with_its_message => keys::a_key_is_taken_with_its_message;
    postgres_keeps_keys_by_route => keys::keys_of_different_routes_are_different_keys;
    postgres_finds_one_of_many_keys_fresh => keys::of_many_that_come_at_once_one_is_fresh;
    postgres_finds_an_opened_key_in_flight => keys::an_opened_key_is_in_flight_until_it_is_answered;
    postgres_frees_a_key_given_back => keys::a_key_given_back_is_free;
    postgres_does_not_close_a_key_that_another_message_opened_since => keys::a_key_that_another_message_opened_since_is_not_closed;
    postgres_keeps_a_stored_key_that_is_given_back => keys::only_an_opened_key_is_given_back;
    postgres_stores_a_message_under_its_opened_key => keys::a_message_is_stored_under_the_key_opened_for_it;
    postgres_leaves_a_key_to_its_answer => keys::a_message_stored_for_analysis_leaves_its_key_to_the_answer;
    postgres_frees_a_key_past_its_time => keys::a_key_past_its_time_is_free;
    postgres_takes_no_key_for_what_it_did_not_store => keys::a_failed_acceptance_takes_no_key;
    postgres_sweeps_keys_past_their_time => keys::keys_past_their_time_are_swept;
    postgres_lists_from_the_newest_page_by_page => selections::a_list_goes_from_the_newest_page_by_page;
    postgres_bounds_a_list => selections::a_list_is_bounded;
    postgres_filters_a_list => selections::a_list_is_filtered;
    postgres_archives_from_the_oldest => selections::the_archive_goes_from_the_oldest_and_has_a_line_for_every_message;
    postgres_redrives_afresh => selections::a_redriven_message_starts_afresh;
    postgres_redrives_only_what_ended_undelivered => selections::only_what_ended_undelivered_is_redriven;
    postgres_discards_only_dead_letters => selections::only_dead_letters_are_discarded;
    postgres_gives_up_what_is_queued_on_a_route => selections::what_is_queued_on_a_route_is_given_up;
    postgres_amends_only_what_fits => selections::a_selection_by_filter_touches_only_what_fits;
    postgres_limits_a_selection_that_says_so => selections::a_selection_by_filter_is_limited_only_if_it_says_so;
    postgres_redrives_many_named_messages => selections::many_named_messages_are_all_redriven;
    postgres_sweeps_what_has_had_its_time => selections::what_has_ended_is_swept_when_its_time_is_over;
    postgres_sweeps_a_journal_with_its_message => selections::a_swept_message_takes_its_journal_along;
    postgres_prepares_no_message => transactions::what_is_prepared_is_no_message;
    postgres_repeats_a_preparation_under_its_key => transactions::a_preparation_is_repeated_under_its_key;
    postgres_delivers_whole_what_is_confirmed => transactions::what_is_confirmed_is_delivered_whole;
    postgres_leases_what_is_confirmed => transactions::what_is_confirmed_may_be_leased_at_once;
    postgres_orders_what_is_confirmed => transactions::what_is_confirmed_joins_its_order_then;
    postgres_forgets_what_is_cancelled => transactions::what_is_cancelled_is_forgotten;
    postgres_keeps_to_the_first_word => transactions::the_first_word_holds;
    postgres_takes_one_of_many_words => transactions::of_many_words_at_once_one_is_the_first;
    postgres_lets_one_at_a_time_ask => transactions::one_at_a_time_asks;
    postgres_has_checks_made_again => transactions::a_check_that_settles_nothing_is_made_again;
    postgres_ignores_an_answer_after_a_word => transactions::an_answer_after_a_word_changes_nothing;
    postgres_counts_an_answer_that_settles => transactions::an_answer_that_settles_is_counted;
    postgres_keeps_what_is_parked => transactions::what_is_parked_waits_for_a_person_or_its_senders_word;
    postgres_lists_half_messages => transactions::a_list_of_them_goes_from_the_newest;
    postgres_counts_what_is_prepared_as_open => transactions::what_is_open_counts_as_not_ended;
    postgres_sweeps_transactions_after_their_keys => transactions::what_has_ended_is_swept_after_its_key;
    postgres_gives_one_host_all_partitions => feeds::one_host_holds_all_partitions;
    postgres_shares_partitions_among_hosts => feeds::hosts_share_and_no_partition_is_two_hosts;
    postgres_gives_a_partition_to_one_of_many_that_claim => feeds::of_hosts_that_claim_at_once_none_holds_what_another_does;
    postgres_hands_a_partition_on_with_its_checkpoint => feeds::a_partition_goes_on_from_its_checkpoint_at_another_host;
    postgres_ignores_a_checkpoint_after_the_lease_was_lost => feeds::who_lost_a_partition_does_not_move_its_checkpoint;
    postgres_waits_for_nobody_who_left_a_feed => feeds::who_leaves_is_not_waited_for;
    postgres_splits_a_feed_anew => feeds::a_feed_split_anew_goes_on_from_before_its_smallest_checkpoint;
    postgres_starts_an_unbegun_feed_over => feeds::a_feed_that_is_split_anew_before_all_of_it_began_starts_over;
    postgres_tells_feeds_apart => feeds::feeds_are_told_apart;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn postgres_does_as_the_model_does(calls in model::calls()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let store = place.open().await;
            model::any_calls_leave_what_the_model_leaves(&store, calls).await;
            store.close().await.unwrap();
            place.remove().await;
        });
    }
}

/// A store that another one shares the schema with.
async fn two(place: &Place) -> (PostgresStore, PostgresStore) {
    (place.open().await, place.open().await)
}

#[tokio::test]
async fn postgres_lets_many_hosts_start_at_once() {
    let place = Place::new();
    let stores = futures_util::future::join_all((0..6).map(|_| place.open())).await;
    for (number, store) in (0..).zip(&stores) {
        accept(store, queued(number, "orders", at(0))).await;
    }
    assert_eq!(stores[0].backlog().await.unwrap(), BTreeMap::from([("orders".to_owned(), 6)]));
    place.remove().await;
}

#[tokio::test]
async fn postgres_finds_again_what_it_accepted_after_it_was_closed() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, queued(1, "orders", at(0))).await;
    store.close().await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(store.accept(queued(2, "orders", at(0))).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.tally().await, Err(StoreError::Unavailable(_))));

    let store = place.open().await;
    assert_eq!(claim_ids(&store, "orders", 9, at(1), lease("a", at(9))).await, [id(1)]);
    place.remove().await;
}

#[tokio::test]
async fn postgres_refuses_a_schema_of_a_newer_version() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    place.run("UPDATE migrations SET version = 99").await;
    let refused = PostgresStore::open(&place.target, Arc::new(SystemClock)).await;
    let Err(StoreError::Unusable(reason)) = refused else { panic!("not refused as unusable: {refused:?}") };
    assert!(reason.contains("newer version of Backstop (schema 99"), "{reason}");
    place.remove().await;
}

#[tokio::test]
async fn postgres_says_which_database_it_cannot_reach_and_not_the_password() {
    let target = PostgresTarget::parse("postgres://app:s3cret@127.0.0.1:1/nowhere").unwrap();
    let refused = PostgresStore::open(&target, Arc::new(SystemClock)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)));
    assert!(!format!("{refused:?} {target:?}").contains("s3cret"));
    assert_eq!(target.to_string(), "postgres://app:***@127.0.0.1:1/nowhere?schema=backstop");
}

#[tokio::test]
async fn postgres_gives_each_message_to_one_of_many_hosts() {
    let place = Place::new();
    let hosts = futures_util::future::join_all((0..4).map(|_| place.open())).await;
    futures_util::future::join_all((0..200).map(|number| accept(&hosts[0], queued(number, "orders", at(0))))).await;

    let claimers = (0..48).map(|n| {
        let host = &hosts[n % hosts.len()];
        async move { claim_ids(host, "orders", 5, at(1), lease(&format!("host-{n}"), at(60))).await }
    });
    let mut claimed: Vec<_> = futures_util::future::join_all(claimers).await.into_iter().flatten().collect();
    // Rows that somebody else had locked are passed over; they are there the next time.
    claimed.extend(claim_ids(&hosts[0], "orders", 200, at(1), lease("last", at(60))).await);

    claimed.sort_unstable();
    assert_eq!(claimed, (0..200).map(id).collect::<Vec<_>>(), "all are claimed, none twice");
    place.remove().await;
}

#[tokio::test]
async fn postgres_gives_one_of_many_hosts_the_turn_and_then_the_next() {
    let place = Place::new();
    let (one, other) = two(&place).await;
    let ordered = |number| Acceptance { order: Some("alice".to_owned()), ..queued(number, "orders", at(0)) };
    let accepted = (0..30).map(|number| {
        let host = if number % 2 == 0 { &one } else { &other };
        host.accept(ordered(number))
    });
    let accepted = futures_util::future::join_all(accepted).await;
    assert_eq!(accepted.iter().filter(|accepted| matches!(accepted, Ok(Accepted::Stored))).count(), 1);
    let mut delivered_by = Vec::new();
    for host in [&one, &other].into_iter().cycle().take(30) {
        let claimed = claim_ids(host, "orders", 9, at(1), lease("a", at(60))).await;
        assert_eq!(claimed.len(), 1, "one at a time");
        let finish = Finish { id: claimed[0], ..finish(0, "a", delivered(at(2))) };
        // Meanwhile another one comes, which must neither be lost nor overtake.
        let (finished, _) = tokio::join!(host.finish(finish), other.accept(ordered(100 + delivered_by.len() as u64)));
        assert_eq!(finished.unwrap(), Finished::Done);
        delivered_by.push(claimed[0]);
    }
    delivered_by.sort_unstable();
    assert_eq!(delivered_by, (0..30).map(id).collect::<Vec<_>>());
    place.remove().await;
}

#[tokio::test]
async fn postgres_frees_a_key_that_a_host_opened_which_is_gone() {
    let place = Place::new();
    let (one, other) = two(&place).await;
    let claim = |number, by| KeyClaim {
        route: route("orders"),
        key: "k".to_owned(),
        fingerprint: [7; 32],
        message: id(number),
        owner: owner(by),
        opened_until: at(40),
        keep_until: at(60),
    };
    assert_eq!(one.open_key(claim(1, "one"), at(0)).await.unwrap(), KeyState::Fresh);
    assert_eq!(other.open_key(claim(2, "other"), at(39)).await.unwrap(), KeyState::InFlight, "it may be alive");
    assert_eq!(one.open_key(claim(3, "one"), at(50)).await.unwrap(), KeyState::InFlight, "it is alive");
    assert_eq!(other.open_key(claim(4, "other"), at(40)).await.unwrap(), KeyState::Fresh);
    place.remove().await;
}

#[tokio::test]
async fn postgres_keeps_texts_that_it_cannot_hold_as_they_are() {
    let place = Place::new();
    let store = place.open().await;
    let mut first = leased(1, "orders", lease("a", at(10)));
    first.message.idempotency_key = Some("k\0".to_owned());
    first.order = Some("a\0b".to_owned());
    accept(&store, first).await;
    let mut said = finish(1, "a", Then::End { state: State::Dead, reason: "no\0 way ␀".to_owned(), at: at(1) });
    said.attempt.outcome.excerpt = "nul \0 byte".to_owned();
    assert_eq!(store.finish(said.clone()).await.unwrap(), Finished::Done);

    let found = stored(&store, 1).await;

    assert_eq!(found.summary.reason, "no\0 way ␀");
    assert_eq!(found.summary.order_key.as_deref(), Some("a\0b"));
    assert_eq!(found.message.idempotency_key.as_deref(), Some("k\0"));
    assert_eq!(found.attempts, [said.attempt]);
    let searched = Filter { reason: Some("\0 way".to_owned()), ..Filter::default() };
    assert_eq!(store.list(searched).await.unwrap().len(), 1);
    place.remove().await;
}

#[tokio::test]
async fn postgres_fails_one_bad_call_of_a_batch_alone() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, queued(7, "orders", at(0))).await;

    let accepted = (0..20).map(|number| store.accept(queued(number, "orders", at(0))));
    let accepted = futures_util::future::join_all(accepted).await;

    for (number, accepted) in accepted.into_iter().enumerate() {
        assert_eq!(accepted.is_ok(), number != 7, "{number}: {accepted:?}");
    }
    place.remove().await;
}

#[tokio::test]
async fn postgres_goes_on_when_its_connections_are_cut() {
    let place = Place::new();
    let store = place.open().await;
    let cut = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = '{}' AND pid <> pg_backend_pid()",
        place.target.schema()
    );
    for number in 0..5 {
        accept(&store, leased(number, "orders", lease("a", at(10)))).await;
        place.run(&cut).await;
        // Whoever meets a cut connection is told so; what comes after finds a new one.
        let finished = loop {
            match store.finish(finish(number, "a", delivered(at(1)))).await {
                Ok(finished) => break finished,
                Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}"),
            }
        };
        assert_eq!(finished, Finished::Done);
    }
    place.remove().await;
}

#[tokio::test]
async fn postgres_recognises_a_finish_whose_answer_was_lost() {
    let place = Place::new();
    let (store, other) = two(&place).await;
    accept(&store, leased(1, "orders", lease("a", at(10)))).await;
    let first = finish(1, "a", Then::Queue { due: at(1), route: route("orders") });
    assert_eq!(other.finish(first.clone()).await.unwrap(), Finished::Done);

    // Nothing says that this host wrote it: to repeat it is to have lost the lease.
    assert_eq!(store.finish(first.clone()).await.unwrap(), Finished::LeaseLost);

    store.finishes.doubt(id(1));
    assert_eq!(store.finish(first).await.unwrap(), Finished::Done);
    let mut another = finish(1, "a", delivered(at(5)));
    another.attempt.number = 2;
    store.finishes.doubt(id(1));
    assert_eq!(store.finish(another).await.unwrap(), Finished::LeaseLost, "it was not written");
    place.remove().await;
}

#[tokio::test]
async fn postgres_keeps_no_finish_waiting_for_those_that_wait_for_their_order() {
    let place = Place::new();
    let (store, other) = two(&place).await;
    let first = leased(1, "orders", lease("a", at(10)));
    accept(&store, Acceptance { order: Some("alice".to_owned()), ..first }).await;
    accept(&store, leased(2, "orders", lease("a", at(10)))).await;
    let (is_locked, release) = &(Notify::new(), Notify::new());
    let holding = other.connections.call(PATIENCE, |connection| {
        Box::pin(async move {
            connection.begin().await?;
            order::lock(&connection, "orders", "alice", 0).await?;
            is_locked.notify_one();
            release.notified().await;
            connection.roll_back().await
        })
    });
    let finishing = async {
        is_locked.notified().await;
        let mut ordered = std::pin::pin!(store.finish(finish(1, "a", delivered(at(1)))));
        tokio::select! {
            biased;
            early = &mut ordered => panic!("its order was locked: {early:?}"),
            finished = store.finish(finish(2, "a", delivered(at(1)))) => assert_eq!(finished.unwrap(), Finished::Done),
        }
        release.notify_one();
        ordered.await
    };
    let (held, finished) = tokio::join!(holding, finishing);
    held.unwrap();
    assert_eq!(finished.unwrap(), Finished::Done);
    place.remove().await;
}

/// The machine's clock, set ahead by so many milliseconds, or back.
#[derive(Default)]
struct SetClock(AtomicI64);

#[async_trait]
impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        let ahead = self.0.load(Ordering::SeqCst);
        Timestamp::from_millis(SystemClock.now().as_millis().saturating_add_signed(ahead))
    }

    async fn sleep_until(&self, moment: Timestamp) {
        self.sleep(moment.since(self.now())).await;
    }

    async fn sleep(&self, length: Duration) {
        SystemClock.sleep(length).await;
    }

    fn chance(&self) -> Chance {
        SystemClock.chance()
    }
}

#[tokio::test]
async fn postgres_claims_nothing_while_the_clocks_are_a_third_of_a_lease_apart() {
    let (place, clock) = (Place::new(), Arc::new(SetClock::default()));
    let store = PostgresStore::open(&place.target, Arc::clone(&clock) as Arc<dyn Clock>).await.unwrap();
    accept(&store, queued(1, "orders", at(0))).await;
    let claim = async || {
        let lane = LaneClaim { route: route("orders"), limit: 1, retries: 1 };
        store.claim_due(vec![lane], at(1), lease("a", at(31))).await
    };
    for (ahead, how) in [(15_000, "ahead of the database's"), (-15_000, "behind the database's")] {
        clock.0.store(ahead, Ordering::SeqCst);
        let refused = claim().await.expect_err("nothing is claimed");
        let why = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
        assert!(why.contains(how) && why.contains("a third of `lease`, 10s"), "{why}");
    }
    clock.0.store(-5_000, Ordering::SeqCst);
    assert_eq!(claim().await.unwrap().messages.len(), 1, "that is near enough, and found out at once");
    place.remove().await;
}
