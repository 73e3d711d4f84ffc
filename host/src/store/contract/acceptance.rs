//! What is accepted is found again, as it came.

use std::time::Duration;

use super::*;
use crate::store::Hold;

pub(in crate::store) async fn a_message_comes_back_as_it_went(store: &dyn Store) {
    let mut sent = message(1, "orders");
    sent.idempotency_key = Some("order-1".to_owned());
    sent.progress = finish(1, "a", delivered(at(0))).progress;
    let mut acceptance = acceptance(sent.clone(), Entry::Queued { due: at(5) });
    acceptance.attempts = vec![attempt(0, "let in"), attempt(1, "busy")];
    accept(store, acceptance.clone()).await;

    let found = stored(store, 1).await;

    assert_same(&found.message, &sent);
    assert_eq!(found.attempts, acceptance.attempts);
    let summary = found.summary;
    assert_eq!((summary.state, summary.due_at, summary.ended_at), (State::Queued, Some(at(5)), None));
    assert_eq!((summary.reason.as_str(), summary.attempts), ("busy", 1));
    assert_eq!((summary.method.as_str(), summary.path.as_str()), ("POST", "/orders/1?dry=1"));
    let claimed = claim(store, "orders", 1, at(5), lease("a", at(10))).await;
    assert_same(&claimed.messages[0], &sent);
}

pub(in crate::store) async fn header_values_need_not_be_text_and_names_may_repeat(store: &dyn Store) {
    let mut headers = HeaderMap::new();
    headers.append("x-name", HeaderValue::from_bytes(b"Andr\xe9").unwrap());
    headers.append("accept", HeaderValue::from_static("text/html"));
    headers.append("x-name", HeaderValue::from_bytes(&[0xff, 0xfe, b' ', b'!']).unwrap());
    headers.append("x-empty", HeaderValue::from_static(""));
    let mut sent = message(1, "orders");
    sent.request = Arc::new(Request { headers: headers.clone(), ..(*sent.request).clone() });
    accept(store, acceptance(sent, Entry::Queued { due: at(0) })).await;

    let found = stored(store, 1).await.message.request.headers.clone();

    assert_eq!(found, headers);
    let names: Vec<_> = found.get_all("x-name").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(names, [&b"Andr\xe9"[..], &[0xff, 0xfe, b' ', b'!']]);
}

pub(in crate::store) async fn a_large_body_comes_back_whole(store: &dyn Store) {
    let body: Bytes = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut sent = message(1, "orders");
    sent.request = Arc::new(Request { body: body.clone(), ..(*sent.request).clone() });
    accept(store, leased_message(sent)).await;
    done(store, finish(1, "a", Then::Queue { due: at(1), route: route("orders") })).await;

    let claimed = claim(store, "orders", 1, at(1), lease("a", at(10))).await;

    assert!(claimed.messages[0].request.body == body, "the body differs");
}

fn leased_message(message: Message) -> Acceptance {
    acceptance(message, Entry::Leased(lease("a", at(10))))
}

pub(in crate::store) async fn a_message_may_be_stored_ended(store: &dyn Store) {
    accept(store, ended(1, "orders", State::Answered, "the vendor is away", at(3))).await;

    let summary = stored(store, 1).await.summary;

    assert_eq!((summary.state, summary.due_at, summary.ended_at), (State::Answered, None, Some(at(3))));
    assert_eq!(summary.reason, "the vendor is away");
    assert!(claim_ids(store, "orders", 9, at(99), lease("a", at(100))).await.is_empty());
}

pub(in crate::store) async fn an_unknown_message_is_none(store: &dyn Store) {
    assert!(store.message(id(1)).await.unwrap().is_none());
}

pub(in crate::store) async fn one_id_is_never_stored_twice(store: &dyn Store) {
    accept(store, queued(1, "orders", at(0))).await;
    assert!(store.accept(queued(1, "parcels", at(0))).await.is_err());
    assert_eq!(stored(store, 1).await.summary.route, "orders");
    assert_eq!(store.tally().await.unwrap().values().sum::<u64>(), 1);
}

pub(in crate::store) async fn holds_stand_until_they_run_out(store: &dyn Store) {
    let hold = |host: &str, until| Hold { destination: format!("https://{host}"), until };
    let with = |number, held| Acceptance { hold: Some(held), ..leased(number, "orders", lease("a", at(10))) };
    accept(store, with(1, hold("one", at(30)))).await;
    accept(store, with(2, hold("two", at(20)))).await;
    // A later word that ends earlier does not cut an earlier one short.
    let mut finished = finish(1, "a", delivered(at(1)));
    finished.hold = Some(hold("one", at(25)));
    done(store, finished).await;

    assert_eq!(store.holds(at(0)).await.unwrap(), [hold("one", at(30)), hold("two", at(20))]);
    assert_eq!(store.holds(at(20)).await.unwrap(), [hold("one", at(30))]);
    assert_eq!(store.holds(at(30)).await.unwrap(), []);
}

pub(in crate::store) async fn a_hold_is_written_down_without_a_message(store: &dyn Store) {
    let hold = |host: &str, until| Hold { destination: format!("https://{host}"), until };
    store.hold(hold("one", at(20))).await.unwrap();
    store.hold(hold("two", at(10))).await.unwrap();
    store.hold(hold("one", at(30))).await.unwrap();
    store.hold(hold("one", at(25))).await.unwrap();
    assert_eq!(store.holds(at(0)).await.unwrap(), [hold("one", at(30)), hold("two", at(10))]);
    assert_eq!(store.holds(at(10)).await.unwrap(), [hold("one", at(30))]);
}

pub(in crate::store) async fn the_tally_counts_by_route_and_state(store: &dyn Store) {
    for number in 0..5 {
        accept(store, queued(number, if number < 3 { "orders" } else { "parcels" }, at(0))).await;
    }
    accept(store, ended(9, "orders", State::Dead, "no", at(0))).await;
    claim(store, "parcels", 1, at(0), lease("a", at(10))).await;

    let tally = store.tally().await.unwrap();

    let of = |route: &str, state| tally.get(&(route.to_owned(), state)).copied();
    assert_eq!(of("orders", State::Queued), Some(3));
    assert_eq!(of("orders", State::Dead), Some(1));
    assert_eq!(of("parcels", State::Queued), Some(1));
    assert_eq!(of("parcels", State::InFlight), Some(1));
    assert_eq!(tally.len(), 4);
}

pub(in crate::store) async fn the_journal_grows_in_order(store: &dyn Store) {
    accept(store, leased(1, "orders", lease("a", at(10)))).await;
    for number in 1..=12 {
        let mut finish = finish(1, "a", Then::Queue { due: at(0), route: route("orders") });
        finish.attempt = attempt(number, "busy");
        finish.progress.previous_delay = Some(Duration::from_secs(number.into()));
        done(store, finish).await;
        claim(store, "orders", 1, at(0), lease("a", at(10))).await;
    }
    let numbers: Vec<_> = stored(store, 1).await.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
}
