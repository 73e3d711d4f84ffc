//! Orders: within one key the messages go one at a time and as they came, and nobody else waits for them.

use std::collections::BTreeMap;

use super::*;
use crate::store::{Blocker, Filter, Retention, Selection, Turn};

/// Message `number` of this `key`, due at once.
fn ordered(number: u64, key: &str) -> Acceptance {
    Acceptance { order: Some(key.to_owned()), ..queued(number, "orders", at(0)) }
}

async fn three_in_order(store: &dyn Store) {
    assert_eq!(store.accept(ordered(1, "alice")).await.unwrap(), Accepted::Stored);
    for number in [2, 3] {
        assert_eq!(store.accept(ordered(number, "alice")).await.unwrap(), Accepted::Behind);
    }
}

async fn claimed(store: &dyn Store) -> Vec<MessageId> {
    claim_ids(store, "orders", 9, at(100), lease("a", at(200))).await
}

async fn turns(store: &dyn Store, numbers: impl IntoIterator<Item = u64>) -> Vec<Option<Turn>> {
    let mut turns = Vec::new();
    for number in numbers {
        turns.push(stored(store, number).await.summary.turn);
    }
    turns
}

async fn die(store: &dyn Store, number: u64, blocks: bool) {
    done(store, Finish { blocks, ..finish(number, "a", end(State::Dead, at(101))) }).await;
}

pub(in crate::store) async fn one_goes_at_a_time_and_as_they_came(store: &dyn Store) {
    three_in_order(store).await;
    for number in 1..=3 {
        assert_eq!(claimed(store).await, [id(number)]);
        assert!(claimed(store).await.is_empty(), "the others wait for it");
        done(store, finish(number, "a", delivered(at(101)))).await;
    }
    assert_eq!(turns(store, 1..=3).await, [None; 3]);
}

pub(in crate::store) async fn a_retry_keeps_those_behind_it_waiting(store: &dyn Store) {
    three_in_order(store).await;
    claimed(store).await;
    done(store, finish(1, "a", Then::Queue { due: at(500), route: route("orders") })).await;

    assert!(claimed(store).await.is_empty());
    let later = claim(store, "orders", 9, at(500), lease("a", at(600))).await;
    assert_eq!(later.messages.iter().map(|message| message.id).collect::<Vec<_>>(), [id(1)]);
}

pub(in crate::store) async fn other_keys_and_routes_go_on(store: &dyn Store) {
    three_in_order(store).await;
    assert_eq!(store.accept(ordered(4, "bob")).await.unwrap(), Accepted::Stored);
    accept(store, queued(5, "orders", at(0))).await;
    let elsewhere = Acceptance { order: Some("alice".to_owned()), ..queued(6, "parcels", at(0)) };
    assert_eq!(store.accept(elsewhere).await.unwrap(), Accepted::Stored);

    assert_eq!(claimed(store).await, [id(1), id(4), id(5)]);
    assert_eq!(claim_ids(store, "parcels", 9, at(100), lease("a", at(200))).await, [id(6)]);
}

pub(in crate::store) async fn one_behind_another_is_not_leased_to_who_accepts_it(store: &dyn Store) {
    let own = |number| Acceptance { order: Some("alice".to_owned()), ..leased(number, "orders", lease("a", at(200))) };
    assert_eq!(store.accept(own(1)).await.unwrap(), Accepted::Stored);
    assert_eq!(store.accept(own(2)).await.unwrap(), Accepted::Behind);

    let second = stored(store, 2).await.summary;
    assert_eq!(
        (second.state, second.turn, second.order_key.as_deref()),
        (State::Queued, Some(Turn::Behind), Some("alice"))
    );
    done(store, finish(1, "a", delivered(at(1)))).await;
    assert_eq!(claimed(store).await, [id(2)]);
}

pub(in crate::store) async fn of_many_accepted_at_once_one_has_the_turn(store: &dyn Store) {
    let accepted = futures_util::future::join_all((1..=40).map(|number| store.accept(ordered(number, "alice")))).await;
    let first = accepted.iter().filter(|accepted| matches!(accepted, Ok(Accepted::Stored))).count();
    assert_eq!((first, accepted.len()), (1, 40));
    let mut seen = Vec::new();
    loop {
        let mut next = claimed(store).await;
        assert!(next.len() <= 1, "{next:?}");
        let Some(next) = next.pop() else { break };
        let finish = Finish { id: next, ..finish(1, "a", delivered(at(101))) };
        done(store, finish).await;
        seen.push(next);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=40).map(id).collect::<Vec<_>>(), "each has its turn");
}

pub(in crate::store) async fn a_dead_letter_blocks_its_order_until_it_is_discarded(store: &dyn Store) {
    three_in_order(store).await;
    claimed(store).await;
    die(store, 1, true).await;
    assert!(claimed(store).await.is_empty());
    assert_eq!(turns(store, 1..=2).await, [Some(Turn::Now), Some(Turn::Behind)]);

    assert_eq!(store.discard(Selection::Ids(vec![id(1)]), at(102)).await.unwrap(), 1);

    assert_eq!(claimed(store).await, [id(2)]);
}

pub(in crate::store) async fn a_dead_letter_that_is_redriven_goes_before_those_it_blocked(store: &dyn Store) {
    three_in_order(store).await;
    claimed(store).await;
    die(store, 1, true).await;

    assert_eq!(store.redrive(Selection::Matching(Filter::default()), at(99)).await.unwrap(), 1);

    assert_eq!(claimed(store).await, [id(1)]);
    done(store, finish(1, "a", delivered(at(103)))).await;
    assert_eq!(claimed(store).await, [id(2)]);
}

pub(in crate::store) async fn a_dead_letter_that_is_skipped_lets_the_next_one_go(store: &dyn Store) {
    three_in_order(store).await;
    claimed(store).await;
    die(store, 1, false).await;
    assert_eq!(claimed(store).await, [id(2)]);

    // Redriven, it takes its place before what came after it, and disturbs nobody who has the turn.
    assert_eq!(store.redrive(Selection::Ids(vec![id(1)]), at(99)).await.unwrap(), 1);
    assert!(claimed(store).await.is_empty());
    done(store, finish(2, "a", delivered(at(103)))).await;
    assert_eq!(claimed(store).await, [id(1)]);
    done(store, finish(1, "a", delivered(at(104)))).await;
    assert_eq!(claimed(store).await, [id(3)]);
}

pub(in crate::store) async fn a_dead_letter_that_is_kept_no_longer_lets_the_next_one_go(store: &dyn Store) {
    three_in_order(store).await;
    claimed(store).await;
    die(store, 1, true).await;
    let retention =
        Retention { finished: Duration::ZERO, dead: BTreeMap::from([(route("orders"), Duration::from_secs(10))]) };

    assert_eq!(store.sweep(retention, at(150), 10).await.unwrap(), 1);

    assert_eq!(claimed(store).await, [id(2)]);
}

pub(in crate::store) async fn a_message_that_leaves_for_another_route_keeps_its_turn(store: &dyn Store) {
    three_in_order(store).await;
    claimed(store).await;
    done(store, finish(1, "a", Then::Queue { due: at(0), route: route("parcels") })).await;
    assert!(claimed(store).await.is_empty(), "it has not ended");

    claim(store, "parcels", 1, at(100), lease("a", at(200))).await;
    done(store, finish(1, "a", delivered(at(103)))).await;

    assert_eq!(claimed(store).await, [id(2)]);
}

pub(in crate::store) async fn an_order_goes_on_when_who_has_the_turn_is_given_up(store: &dyn Store) {
    three_in_order(store).await;
    claimed(store).await;
    done(store, finish(1, "a", Then::Queue { due: at(0), route: route("parcels") })).await;

    assert_eq!(store.discard_queued("parcels".to_owned(), None, at(103)).await.unwrap(), 1);

    assert_eq!(claimed(store).await, [id(2)]);
    assert_eq!(store.discard_queued("orders".to_owned(), None, at(104)).await.unwrap(), 1, "2 is being attempted");
    assert_eq!(stored(store, 3).await.summary.turn, None);
}

pub(in crate::store) async fn a_message_names_the_one_that_it_waits_for(store: &dyn Store) {
    three_in_order(store).await;
    assert_eq!(stored(store, 1).await.blocked_by, None, "it is its turn");
    let queued = Some(Blocker { id: id(1), state: State::Queued });
    assert_eq!((stored(store, 2).await.blocked_by, stored(store, 3).await.blocked_by), (queued, queued));
    claimed(store).await;
    die(store, 1, true).await;
    assert_eq!(stored(store, 3).await.blocked_by, Some(Blocker { id: id(1), state: State::Dead }));
}
