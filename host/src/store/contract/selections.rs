//! Listing, redriving, discarding and sweeping touch what they are told to, and nothing else.

use std::collections::BTreeMap;

use super::*;
use crate::store::{ArchiveLine, Filter, Retention, Selection};

const ENDS: [(u64, State); 5] =
    [(1, State::Delivered), (2, State::Answered), (3, State::Dead), (4, State::Dropped), (5, State::Discarded)];

/// One message in every state: 1 to 5 ended, 6 queued, 7 in flight.
async fn one_of_each(store: &dyn Store) {
    for (number, state) in ENDS {
        accept(store, ended(number, "orders", state, &format!("it is {state}"), at(number))).await;
    }
    accept(store, queued(6, "orders", at(500))).await;
    accept(store, leased(7, "orders", lease("a", at(600)))).await;
}

async fn numbers(store: &dyn Store, filter: Filter) -> Vec<u64> {
    let found = store.list(filter).await.unwrap();
    found.iter().map(|line| (0..2000).find(|n| id(*n) == line.id).unwrap()).collect()
}

pub(in crate::store) async fn a_list_goes_from_the_newest_page_by_page(store: &dyn Store) {
    for number in [4, 2, 7, 1, 6, 3, 5] {
        accept(store, queued(number, "orders", at(number))).await;
    }
    let page = |before| Filter { limit: 3, before, ..Filter::default() };
    assert_eq!(numbers(store, page(None)).await, [7, 6, 5]);
    assert_eq!(numbers(store, page(Some(id(5)))).await, [4, 3, 2]);
    assert_eq!(numbers(store, page(Some(id(2)))).await, [1]);
    assert!(numbers(store, page(Some(id(1)))).await.is_empty());
}

pub(in crate::store) async fn a_list_is_bounded(store: &dyn Store) {
    for number in 0..1050 {
        accept(store, queued(number, "orders", at(0))).await;
    }
    assert_eq!(store.list(Filter::default()).await.unwrap().len(), 100);
    assert_eq!(store.list(Filter { limit: 5000, ..Filter::default() }).await.unwrap().len(), 1000);
}

pub(in crate::store) async fn a_list_is_filtered(store: &dyn Store) {
    one_of_each(store).await;
    accept(store, ended(8, "parcels", State::Dead, "410 Gone: 100% 'final'", at(8))).await;
    let only = |states: &[State]| Filter { states: states.to_vec(), ..Filter::default() };
    for (number, state) in ENDS.into_iter().filter(|(_, state)| *state != State::Dead) {
        assert_eq!(numbers(store, only(&[state])).await, [number], "{state}");
    }
    assert_eq!(numbers(store, only(&[State::Queued])).await, [6]);
    assert_eq!(numbers(store, only(&[State::InFlight])).await, [7]);
    assert_eq!(numbers(store, only(&[State::Dead, State::Delivered, State::Dead])).await, [8, 3, 1]);
    assert_eq!(numbers(store, Filter { route: Some("parcels".into()), ..Filter::default() }).await, [8]);
    let dead = Filter { route: Some("orders".into()), ..only(&[State::Dead]) };
    assert_eq!(numbers(store, dead).await, [3]);
    for (text, found) in [("100% 'final'", vec![8]), ("it is d", vec![5, 4, 3, 1]), ("%", vec![8]), ("GONE", vec![])] {
        let filter = Filter { reason: Some(text.into()), ..Filter::default() };
        assert_eq!(numbers(store, filter).await, found, "{text}");
    }
}

pub(in crate::store) async fn the_archive_goes_from_the_oldest_and_has_a_line_for_every_message(store: &dyn Store) {
    one_of_each(store).await;
    let published =
        Message { origin: Origin { publish: Some(id(700)), original: Some(id(1)) }, ..message(8, "parcels") };
    let dead = Entry::Ended { state: State::Dead, reason: "misfit".to_owned(), at: at(9) };
    accept(store, acceptance(published, dead)).await;
    let lines = store.archived(None, 100).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.id).collect::<Vec<_>>(), (1..=8).map(id).collect::<Vec<_>>());
    let states: Vec<State> = lines.iter().map(|line| line.state).collect();
    assert_eq!(
        states,
        ENDS.map(|(_, state)| state)
            .into_iter()
            .chain([State::Queued, State::InFlight, State::Dead])
            .collect::<Vec<_>>()
    );
    let last = ArchiveLine { id: id(8), uid: id(700), route: "parcels".into(), state: State::Dead, accepted_at: at(0) };
    assert_eq!(lines.last(), Some(&last));
    assert_eq!(lines[0].uid, id(1), "a message of its own");
    let page = store.archived(Some(id(2)), 3).await.unwrap();
    assert_eq!(page.iter().map(|line| line.id).collect::<Vec<_>>(), [id(3), id(4), id(5)]);
    assert!(store.archived(Some(id(8)), 3).await.unwrap().is_empty());
    let origin = stored(store, 8).await.message.origin;
    assert_eq!(origin, Origin { publish: Some(id(700)), original: Some(id(1)) });
}

pub(in crate::store) async fn a_redriven_message_starts_afresh(store: &dyn Store) {
    accept(store, leased(1, "orders", lease("a", at(10)))).await;
    done(store, finish(1, "a", end(State::Dead, at(1)))).await;

    assert_eq!(store.redrive(Selection::Ids(vec![id(1)]), at(100)).await.unwrap(), 1);

    let found = stored(store, 1).await;
    assert_eq!(found.message.progress, Progress { journal: 1, ..Progress::default() }, "only the journal goes on");
    assert_eq!(found.attempts.len(), 1);
    assert_eq!((found.summary.due_at, found.summary.ended_at), (Some(at(100)), None));
    assert_eq!(claim_ids(store, "orders", 1, at(100), lease("b", at(200))).await, [id(1)]);
}

pub(in crate::store) async fn only_what_ended_undelivered_is_redriven(store: &dyn Store) {
    one_of_each(store).await;
    let all = (0..=9).map(id).collect();
    assert_eq!(store.redrive(Selection::Ids(all), at(100)).await.unwrap(), 3);
    use State::{Delivered, Discarded, InFlight, Queued};
    assert_eq!(states(store, 1..=7).await, [Delivered, Queued, Queued, Queued, Discarded, Queued, InFlight],);
    assert_eq!(stored(store, 6).await.summary.due_at, Some(at(500)), "what was queued keeps its turn");
}

pub(in crate::store) async fn only_dead_letters_are_discarded(store: &dyn Store) {
    one_of_each(store).await;
    let all = (0..=9).map(id).collect();
    assert_eq!(store.discard(Selection::Ids(all), at(100)).await.unwrap(), 1);
    assert_eq!(store.discard(Selection::Matching(Filter::default()), at(101)).await.unwrap(), 0);
    let found = stored(store, 3).await.summary;
    assert_eq!((found.state, found.ended_at), (State::Discarded, Some(at(100))));
    assert_eq!(found.reason, "it is dead", "why it died is still known");
    let expected: Vec<_> = ENDS.iter().map(|(n, state)| if *n == 3 { State::Discarded } else { *state }).collect();
    assert_eq!(states(store, 1..=5).await, expected);
    assert_eq!(states(store, 6..=7).await, [State::Queued, State::InFlight]);
}

pub(in crate::store) async fn what_is_queued_on_a_route_is_given_up(store: &dyn Store) {
    one_of_each(store).await;
    accept(store, queued(8, "parcels", at(500))).await;
    accept(store, leased(9, "orders", lease("a", at(10)))).await;
    done(store, finish(9, "a", Then::Queue { due: at(500), route: route("orders") })).await;
    let discard = async |reason: Option<&str>| {
        store.discard_queued("orders".to_owned(), reason.map(str::to_owned), at(100)).await.unwrap()
    };

    assert_eq!(discard(Some("bus")).await, 1);
    let found = stored(store, 9).await.summary;
    assert_eq!((found.state, found.due_at, found.ended_at), (State::Discarded, None, Some(at(100))));
    assert_eq!(found.reason, "busy", "why its last attempt failed is still known");

    assert_eq!(discard(None).await, 1);
    assert_eq!(stored(store, 6).await.summary.reason, "its route was not served");
    let expected: Vec<_> = ENDS.iter().map(|(_, state)| *state).collect();
    assert_eq!(states(store, 1..=5).await, expected);
    assert_eq!(states(store, 6..=8).await, [State::Discarded, State::InFlight, State::Queued]);
    assert_eq!(discard(None).await, 0);
}

pub(in crate::store) async fn a_selection_by_filter_touches_only_what_fits(store: &dyn Store) {
    for number in 0..8 {
        let (on, reason) = (if number % 2 == 0 { "orders" } else { "parcels" }, format!("reason {}", number / 4));
        accept(store, ended(number, on, State::Dead, &reason, at(0))).await;
    }
    accept(store, ended(8, "orders", State::Answered, "reason 1", at(0))).await;
    let filter = Filter {
        route: Some("orders".into()),
        reason: Some("reason 1".into()),
        states: vec![State::Dead, State::Delivered],
        ..Filter::default()
    };
    assert_eq!(store.redrive(Selection::Matching(filter), at(9)).await.unwrap(), 2);
    let queued = Filter { states: vec![State::Queued], ..Filter::default() };
    assert_eq!(numbers(store, queued).await, [6, 4]);
}

pub(in crate::store) async fn a_selection_by_filter_is_limited_only_if_it_says_so(store: &dyn Store) {
    for number in 0..1203 {
        let state = if number % 3 == 0 { State::Answered } else { State::Dead };
        accept(store, ended(number, "orders", state, "no", at(0))).await;
    }
    let first = Filter { limit: 2, before: Some(id(1200)), ..Filter::default() };
    assert_eq!(store.redrive(Selection::Matching(first), at(9)).await.unwrap(), 2);
    assert_eq!(states(store, [1198, 1199, 1200]).await, [State::Queued, State::Queued, State::Answered]);
    let many = Filter { limit: 1100, ..Filter::default() };
    assert_eq!(store.redrive(Selection::Matching(many), at(9)).await.unwrap(), 1100);
    assert_eq!(store.redrive(Selection::Matching(Filter::default()), at(9)).await.unwrap(), 101);
    assert_eq!(store.tally().await.unwrap(), BTreeMap::from([(("orders".to_owned(), State::Queued), 1203)]));
}

pub(in crate::store) async fn many_named_messages_are_all_redriven(store: &dyn Store) {
    for number in 0..1100 {
        accept(store, ended(number, "orders", State::Dead, "no", at(0))).await;
    }
    let ids = (0..1100).map(id).collect();
    assert_eq!(store.redrive(Selection::Ids(ids), at(9)).await.unwrap(), 1100);
}

pub(in crate::store) async fn what_has_ended_is_swept_when_its_time_is_over(store: &dyn Store) {
    one_of_each(store).await;
    accept(store, ended(8, "parcels", State::Dead, "no", at(0))).await;
    accept(store, ended(9, "refunds", State::Dead, "no", at(0))).await;
    let retention = Retention {
        finished: Duration::from_secs(10),
        dead: BTreeMap::from([(route("orders"), Duration::from_secs(20)), (route("parcels"), Duration::from_secs(90))]),
    };
    let left = async |now| {
        while store.sweep(retention.clone(), now, 1).await.unwrap() == 1 {}
        let mut left = numbers(store, Filter::default()).await;
        left.reverse();
        left
    };
    assert_eq!(left(at(11)).await, [1, 2, 3, 4, 5, 6, 7, 8, 9], "1 has been kept for exactly its time");
    assert_eq!(left(at(13)).await, [2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(left(at(23)).await, [3, 6, 7, 8, 9]);
    assert_eq!(left(at(1_000_000)).await, [6, 7, 9], "what has not ended stays, and routes not named keep theirs");
    assert!(store.message(id(3)).await.unwrap().is_none());
}

pub(in crate::store) async fn a_swept_message_takes_its_journal_along(store: &dyn Store) {
    accept(store, leased(1, "orders", lease("a", at(10)))).await;
    done(store, finish(1, "a", delivered(at(1)))).await;
    let retention = Retention { finished: Duration::from_secs(10), dead: BTreeMap::new() };
    assert_eq!(store.sweep(retention, at(100), 10).await.unwrap(), 1);

    accept(store, leased(2, "orders", lease("a", at(200)))).await;
    assert!(stored(store, 2).await.attempts.is_empty(), "the next message inherits nothing");
}
