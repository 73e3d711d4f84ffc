//! Idempotency keys: the first one wins, and the others are told what the first was told.

use futures_util::future::join_all;
use http::StatusCode;

use super::*;
use crate::message::Answer;
use crate::store::{KeyState, Retention};

fn answer() -> Answer {
    let mut headers = HeaderMap::new();
    headers.append("x-vendor", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    Answer { status: StatusCode::CREATED, headers, body: Bytes::from_static(b"{\"ok\":true}") }
}

fn with_key(number: u64, claim: KeyClaim) -> Acceptance {
    Acceptance { key: Some(claim), ..queued(number, "orders", at(0)) }
}

fn other_payload(claim: KeyClaim) -> KeyClaim {
    KeyClaim { fingerprint: [8; 32], ..claim }
}

async fn open(store: &dyn Store, claim: KeyClaim, now: Timestamp) -> KeyState {
    store.open_key(claim, now).await.unwrap()
}

pub(in crate::store) async fn a_key_is_taken_with_its_message(store: &dyn Store) {
    accept(store, with_key(1, key_claim("k", 1, "a"))).await;

    let repeat = store.accept(with_key(2, key_claim("k", 2, "a"))).await.unwrap();
    let other = store.accept(with_key(3, other_payload(key_claim("k", 3, "a")))).await.unwrap();

    assert_eq!(repeat, Accepted::Key(KeyState::Stored(id(1))));
    assert_eq!(other, Accepted::Key(KeyState::OtherPayload));
    assert!(store.message(id(2)).await.unwrap().is_none(), "the repeat is not stored");
    assert!(store.message(id(3)).await.unwrap().is_none());
    assert_eq!(open(store, key_claim("k", 4, "a"), at(1)).await, KeyState::Stored(id(1)));
}

pub(in crate::store) async fn keys_of_different_routes_are_different_keys(store: &dyn Store) {
    accept(store, with_key(1, key_claim("k", 1, "a"))).await;
    let elsewhere = KeyClaim { route: route("parcels"), ..key_claim("k", 2, "a") };
    assert_eq!(open(store, elsewhere, at(1)).await, KeyState::Fresh);
}

pub(in crate::store) async fn of_many_that_come_at_once_one_is_fresh(store: &dyn Store) {
    let opened = join_all((0..50).map(|n| open(store, key_claim("k", n, "a"), at(0)))).await;
    assert_eq!(opened.iter().filter(|state| **state == KeyState::Fresh).count(), 1);
    assert_eq!(opened.iter().filter(|state| **state == KeyState::InFlight).count(), 49);
}

pub(in crate::store) async fn an_opened_key_is_in_flight_until_it_is_answered(store: &dyn Store) {
    assert_eq!(open(store, key_claim("k", 1, "a"), at(0)).await, KeyState::Fresh);
    assert_eq!(open(store, key_claim("k", 2, "a"), at(0)).await, KeyState::InFlight);
    assert_eq!(open(store, other_payload(key_claim("k", 3, "a")), at(0)).await, KeyState::OtherPayload);
    let stored_meanwhile = store.accept(with_key(2, key_claim("k", 2, "a"))).await.unwrap();
    assert_eq!(stored_meanwhile, Accepted::Key(KeyState::InFlight), "it was opened for another message");

    store.close_key(key_claim("k", 1, "a"), Some(answer())).await.unwrap();

    assert_eq!(open(store, key_claim("k", 2, "a"), at(0)).await, KeyState::Answered(answer()));
    assert_eq!(open(store, other_payload(key_claim("k", 3, "a")), at(0)).await, KeyState::OtherPayload);
}

pub(in crate::store) async fn a_key_given_back_is_free(store: &dyn Store) {
    open(store, key_claim("k", 1, "a"), at(0)).await;
    store.close_key(key_claim("k", 1, "a"), None).await.unwrap();
    assert_eq!(open(store, other_payload(key_claim("k", 2, "a")), at(0)).await, KeyState::Fresh);
}

pub(in crate::store) async fn a_key_that_another_message_opened_since_is_not_closed(store: &dyn Store) {
    let first = key_claim("k", 1, "a");
    open(store, first.clone(), at(0)).await;
    let second = KeyClaim { message: id(2), keep_until: at(120), ..first.clone() };
    assert_eq!(open(store, second.clone(), at(60)).await, KeyState::Fresh, "the first one's time is over");

    store.close_key(first.clone(), None).await.unwrap();
    assert_eq!(open(store, key_claim("k", 3, "a"), at(60)).await, KeyState::InFlight);
    store.close_key(first.clone(), Some(answer())).await.unwrap();
    assert_eq!(open(store, key_claim("k", 3, "a"), at(60)).await, KeyState::InFlight);

    accept(store, with_key(2, second)).await;
    store.close_key(first, Some(answer())).await.unwrap();
    assert_eq!(open(store, key_claim("k", 3, "a"), at(60)).await, KeyState::Stored(id(2)));
}

pub(in crate::store) async fn only_an_opened_key_is_given_back(store: &dyn Store) {
    accept(store, with_key(1, key_claim("k", 1, "a"))).await;
    store.close_key(key_claim("k", 1, "a"), None).await.unwrap();
    assert_eq!(open(store, key_claim("k", 2, "a"), at(0)).await, KeyState::Stored(id(1)));
}

pub(in crate::store) async fn a_message_is_stored_under_the_key_opened_for_it(store: &dyn Store) {
    open(store, key_claim("k", 1, "a"), at(0)).await;
    accept(store, with_key(1, key_claim("k", 1, "a"))).await;
    assert_eq!(open(store, key_claim("k", 2, "a"), at(0)).await, KeyState::Stored(id(1)));
}

pub(in crate::store) async fn a_message_stored_for_analysis_leaves_its_key_to_the_answer(store: &dyn Store) {
    open(store, key_claim("k", 1, "a"), at(0)).await;
    let mut kept = ended(1, "orders", State::Answered, "fallback", at(0));
    kept.key = Some(key_claim("k", 1, "a"));
    accept(store, kept).await;
    store.close_key(key_claim("k", 1, "a"), Some(answer())).await.unwrap();
    assert_eq!(open(store, key_claim("k", 2, "a"), at(0)).await, KeyState::Answered(answer()));
}

pub(in crate::store) async fn a_key_past_its_time_is_free(store: &dyn Store) {
    accept(store, with_key(1, key_claim("k", 1, "a"))).await;
    assert_eq!(open(store, key_claim("k", 2, "a"), at(59)).await, KeyState::Stored(id(1)));
    let later = KeyClaim { keep_until: at(120), ..other_payload(key_claim("k", 2, "a")) };
    assert_eq!(open(store, later, at(60)).await, KeyState::Fresh);
    assert_eq!(open(store, key_claim("k", 3, "a"), at(60)).await, KeyState::OtherPayload, "the new claim counts");
}

pub(in crate::store) async fn a_failed_acceptance_takes_no_key(store: &dyn Store) {
    accept(store, queued(1, "orders", at(0))).await;
    assert!(store.accept(with_key(1, key_claim("k", 1, "a"))).await.is_err(), "the id is taken");
    assert_eq!(open(store, key_claim("k", 2, "a"), at(0)).await, KeyState::Fresh);
}

pub(in crate::store) async fn keys_past_their_time_are_swept(store: &dyn Store) {
    for number in 0..5 {
        open(store, key_claim(&format!("k{number}"), number, "a"), at(0)).await;
    }
    let retention = Retention { finished: Duration::from_secs(3600), dead: Default::default() };
    assert_eq!(store.sweep(retention.clone(), at(59), 3).await.unwrap(), 0);
    assert_eq!(store.sweep(retention.clone(), at(60), 3).await.unwrap(), 3);
    assert_eq!(store.sweep(retention, at(60), 3).await.unwrap(), 2);
}
