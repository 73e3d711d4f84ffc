//! A message is held by one claimer at a time, and finished only by it.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::*;
use crate::store::NextDue;

pub(in crate::store) async fn each_message_goes_to_one_claimer(store: &dyn Store) {
    for number in 0..100 {
        accept(store, queued(number, "orders", at(0))).await;
    }

    let claimers =
        (0..40).map(|n| async move { claim_ids(store, "orders", 7, at(1), lease(&format!("host-{n}"), at(60))).await });
    let claimed: Vec<_> = join_all(claimers).await.into_iter().flatten().collect();

    assert_eq!(claimed.len(), 100, "all are claimed, none twice");
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>().len(), 100);
}

pub(in crate::store) async fn the_oldest_due_goes_first_and_no_more_than_asked_for(store: &dyn Store) {
    for (number, due) in [(1, 30), (2, 10), (3, 20), (4, 99)] {
        accept(store, queued(number, "orders", at(due))).await;
    }
    accept(store, queued(5, "parcels", at(0))).await;

    let first = claim(store, "orders", 2, at(50), lease("a", at(100))).await;
    assert_eq!(first.messages.iter().map(|m| m.id).collect::<Vec<_>>(), [id(2), id(3)]);
    assert_eq!(first_due(&first), Some(at(30)), "the next is due already");

    let second = claim(store, "orders", 9, at(50), lease("a", at(100))).await;
    assert_eq!(second.messages.iter().map(|m| m.id).collect::<Vec<_>>(), [id(1)], "what is not due is not claimed");
    assert_eq!(first_due(&second), Some(at(99)));
}

pub(in crate::store) async fn each_lane_gets_its_own(store: &dyn Store) {
    for (number, on) in [(1, "orders"), (2, "orders"), (3, "parcels"), (4, "refunds")] {
        accept(store, queued(number, on, at(number))).await;
    }
    let lane = |name, limit| LaneClaim { route: route(name), limit, retries: limit };

    let lanes = vec![lane("orders", 1), lane("parcels", 1), lane("refunds", 0), lane("empty", 5)];
    let claimed = store.claim_due(lanes, at(10), lease("a", at(60))).await.unwrap();

    assert_eq!(claimed.messages.iter().map(|m| m.id).collect::<BTreeSet<_>>(), BTreeSet::from([id(1), id(3)]));
    let next: Vec<_> = claimed.next_due.into_iter().map(|(name, next)| (name, next.first)).collect();
    assert_eq!(next, [(route("orders"), Some(at(2))), (route("refunds"), Some(at(4)))]);
}

/// When the next message of "orders" that is no retry is due.
fn first_due(claimed: &Claimed) -> Option<Timestamp> {
    claimed.next_due.get("orders")?.first
}

/// Of six messages due, three were attempted before.
async fn three_retries_among_six(store: &dyn Store) {
    for number in 1..=6 {
        let mut message = message(number, "orders");
        message.progress.attempts = u32::from(number % 2 == 0);
        accept(store, acceptance(message, Entry::Queued { due: at(number) })).await;
    }
}

pub(in crate::store) async fn no_more_retries_are_claimed_than_may_be(store: &dyn Store) {
    three_retries_among_six(store).await;
    let claim = async |limit, retries| {
        let lane = LaneClaim { route: route("orders"), limit, retries };
        let claimed = store.claim_due(vec![lane], at(10), lease("a", at(60))).await.unwrap();
        let ids: Vec<_> = claimed.messages.iter().map(|message| message.id).collect();
        (ids, claimed.next_due.get("orders").copied().unwrap_or_default())
    };
    let due = |first: Option<u64>, retry: Option<u64>| NextDue { first: first.map(at), retry: retry.map(at) };

    assert_eq!(claim(2, 0).await, (vec![id(1), id(3)], due(Some(5), Some(2))), "the retries stand back");
    assert_eq!(claim(9, 1).await, (vec![id(2), id(5)], due(Some(60), Some(4))), "the oldest retry goes");
    assert_eq!(claim(9, 9).await, (vec![id(4), id(6)], due(Some(60), None)));
}

pub(in crate::store) async fn a_lapsed_lease_is_claimed_whatever_may_be_retried(store: &dyn Store) {
    let mut message = message(1, "orders");
    message.progress.attempts = 3;
    accept(store, acceptance(message, Entry::Leased(lease("a", at(10))))).await;
    let lane = LaneClaim { route: route("orders"), limit: 1, retries: 0 };

    let claimed = store.claim_due(vec![lane], at(10), lease("b", at(60))).await.unwrap();

    assert_eq!(claimed.messages.len(), 1);
}

pub(in crate::store) async fn what_a_lapsed_lease_interrupted_is_in_the_journal(store: &dyn Store) {
    accept(store, leased(1, "orders", lease("a", at(10)))).await;

    let claimed = claim(store, "orders", 1, at(12), lease("b", at(60))).await;

    assert_eq!(claimed.messages[0].progress.journal, 1, "the next attempt is the second");
    assert_eq!(stored(store, 1).await.attempts, [AttemptRecord::interrupted(1, "orders", at(12))]);
}

pub(in crate::store) async fn a_lease_that_ran_out_is_claimed_again(store: &dyn Store) {
    accept(store, leased(1, "orders", lease("a", at(10)))).await;

    let early = claim(store, "orders", 9, at(9), lease("b", at(60))).await;
    assert!(early.messages.is_empty(), "it is still held");
    assert_eq!(first_due(&early), Some(at(10)), "its lease is what is waited for");

    accept(store, queued(2, "orders", at(10))).await;
    let later = claim(store, "orders", 9, at(10), lease("b", at(60))).await;
    assert_eq!(later.messages.iter().map(|m| m.id).collect::<BTreeSet<_>>(), BTreeSet::from([id(1), id(2)]));
    assert_eq!(later.lapsed, BTreeSet::from([id(1)]), "the other one was queued");
}

pub(in crate::store) async fn finishing_after_the_lease_was_lost_changes_nothing(store: &dyn Store) {
    accept(store, leased(1, "orders", lease("a", at(10)))).await;
    claim(store, "orders", 1, at(10), lease("b", at(60))).await;

    let late = store.finish(finish(1, "a", delivered(at(11)))).await.unwrap();

    assert_eq!(late, Finished::LeaseLost);
    let found = stored(store, 1).await;
    assert_eq!((found.summary.state, found.attempts.len()), (State::InFlight, 1), "only what was interrupted");
    assert_eq!(found.message.progress, Progress { journal: 1, ..Progress::default() });
    done(store, finish(1, "b", delivered(at(12)))).await;
    let again = store.finish(finish(1, "b", end(State::Dead, at(13)))).await.unwrap();
    assert_eq!(again, Finished::LeaseLost, "what has ended is held by nobody");
    assert_eq!(stored(store, 1).await.summary.state, State::Delivered);
}

pub(in crate::store) async fn finishing_writes_progress_journal_and_end(store: &dyn Store) {
    accept(store, leased(1, "orders", lease("a", at(10)))).await;
    accept(store, leased(2, "orders", lease("a", at(10)))).await;
    done(store, finish(1, "a", Then::Queue { due: at(7), route: route("orders") })).await;
    done(store, finish(2, "a", end(State::Dead, at(8)))).await;

    let waiting = stored(store, 1).await;
    let ended = stored(store, 2).await;

    let written = finish(1, "a", delivered(at(0)));
    assert_eq!(waiting.message.progress, written.progress);
    assert_eq!(waiting.attempts, [written.attempt]);
    assert_eq!((waiting.summary.state, waiting.summary.due_at), (State::Queued, Some(at(7))));
    assert_eq!(waiting.summary.reason, "busy");
    assert_eq!((ended.summary.state, ended.summary.due_at, ended.summary.ended_at), (State::Dead, None, Some(at(8))));
    assert_eq!(ended.summary.reason, "it is dead");
}

pub(in crate::store) async fn a_rerouted_message_waits_on_its_new_route(store: &dyn Store) {
    accept(store, leased(1, "orders", lease("a", at(10)))).await;
    done(store, finish(1, "a", Then::Queue { due: at(1), route: route("second-vendor") })).await;

    assert!(claim_ids(store, "orders", 9, at(99), lease("b", at(100))).await.is_empty());
    let claimed = claim(store, "second-vendor", 9, at(1), lease("b", at(100))).await;
    assert_eq!(claimed.messages[0].route, route("second-vendor"));
}

pub(in crate::store) async fn a_lease_is_prolonged_for_its_holder_only(store: &dyn Store) {
    accept(store, leased(1, "orders", lease("a", at(10)))).await;
    accept(store, leased(2, "orders", lease("b", at(10)))).await;
    accept(store, queued(3, "orders", at(99))).await;

    let held = store.extend_lease(vec![id(1), id(2), id(3), id(4)], lease("a", at(50))).await.unwrap();

    assert_eq!(held, [id(1)]);
    assert_eq!(claim_ids(store, "orders", 9, at(20), lease("c", at(60))).await, [id(2)]);
}

pub(in crate::store) async fn what_is_released_keeps_its_turn(store: &dyn Store) {
    accept(store, queued(1, "orders", at(5))).await;
    accept(store, queued(2, "orders", at(6))).await;
    claim(store, "orders", 1, at(7), lease("a", at(60))).await;

    store.release(vec![id(1)], owner("b"), at(7)).await.unwrap();
    assert_eq!(states(store, [1]).await, [State::InFlight], "another host cannot give it back");
    store.release(vec![id(1), id(2)], owner("a"), at(7)).await.unwrap();

    let given_back = stored(store, 1).await;
    let interrupted = AttemptRecord::interrupted(1, "orders", at(7));
    assert_eq!(given_back.attempts, [interrupted], "the attempt may have reached its destination: it is not forgotten");
    assert_eq!(given_back.message.progress.attempts, 0, "but not counted");
    assert_eq!(claim_ids(store, "orders", 9, at(7), lease("b", at(60))).await, [id(1), id(2)]);
}
