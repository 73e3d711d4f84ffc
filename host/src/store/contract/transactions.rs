//! Half messages: nobody delivers them, the first word holds, and one host at a time asks about them.

use futures_util::future::join_all;

use super::*;
use crate::store::{Check, CheckNote, KeyState, Preparation, Prepared, Retention, Said, Saying, TransactionFilter};
use crate::transaction::{Transaction, TransactionState};

/// A half message whose sender is to be asked at 60 s.
fn half(number: u64) -> Preparation {
    Preparation { message: message(number, "orders"), order: None, first_check: at(60), key: None }
}

fn with_key(number: u64, fingerprint: u8) -> Preparation {
    let claim = KeyClaim { fingerprint: [fingerprint; 32], ..key_claim("k", number, "a") };
    let message = Message { idempotency_key: Some("k".to_owned()), ..message(number, "orders") };
    Preparation { message, key: Some(claim), ..half(number) }
}

async fn prepare(store: &dyn Store, preparation: Preparation) {
    assert_eq!(store.prepare(preparation).await.unwrap(), Prepared::Stored);
}

fn saying(number: u64, when: Timestamp) -> Saying {
    Saying { id: id(number), at: when, reason: "it was said".to_owned(), checked: false }
}

/// Confirms; answers whether the message is behind another one.
async fn confirm(store: &dyn Store, number: u64, when: Timestamp) -> Said<bool> {
    match store.confirm(saying(number, when), Entry::Queued { due: when }).await.unwrap() {
        Said::Taken(confirmed) => Said::Taken(confirmed.behind),
        Said::Already => Said::Already,
        Said::Contrary => Said::Contrary,
        Said::Unknown => Said::Unknown,
    }
}

async fn cancel(store: &dyn Store, number: u64, when: Timestamp) -> Said<()> {
    store.cancel(saying(number, when)).await.unwrap()
}

async fn transaction(store: &dyn Store, number: u64) -> Transaction {
    store.transaction(id(number)).await.unwrap().unwrap()
}

async fn claim_checks(store: &dyn Store, limit: u32, now: Timestamp, lease: Lease) -> Vec<Check> {
    store.claim_checks(route("orders"), limit, now, lease).await.unwrap().checks
}

async fn claimed(store: &dyn Store, limit: u32, now: Timestamp, lease: Lease) -> Vec<MessageId> {
    claim_checks(store, limit, now, lease).await.iter().map(|check| check.message.id).collect()
}

fn note(number: u64, by: &str, next: Option<Timestamp>) -> CheckNote {
    let reason = "its sender knows nothing".to_owned();
    CheckNote { id: id(number), owner: owner(by), reason, checks: 1, unreached: 0, next }
}

async fn park(store: &dyn Store, number: u64) {
    assert!(claimed(store, 9, at(60), lease("a", at(70))).await.contains(&id(number)));
    assert!(store.note_check(note(number, "a", None)).await.unwrap());
}

pub(in crate::store) async fn what_is_prepared_is_no_message(store: &dyn Store) {
    prepare(store, half(1)).await;

    assert!(claim_ids(store, "orders", 9, at(1000), lease("a", at(2000))).await.is_empty(), "it is not deliverable");
    assert!(store.message(id(1)).await.unwrap().is_none());
    assert!(store.list(Default::default()).await.unwrap().is_empty());
    assert!(store.tally().await.unwrap().is_empty());

    let expected = Transaction {
        id: id(1),
        route: "orders".to_owned(),
        state: TransactionState::Prepared,
        reason: String::new(),
        checks: 0,
        unreached: 0,
        method: "POST".to_owned(),
        path: "/orders/1?dry=1".to_owned(),
        prepared_at: at(0),
        next_check_at: Some(at(60)),
        ended_at: None,
    };
    assert_eq!(transaction(store, 1).await, expected);
    assert_same(&store.half_message(id(1)).await.unwrap().unwrap(), &message(1, "orders"));
    assert!(store.transaction(id(2)).await.unwrap().is_none());
}

pub(in crate::store) async fn a_preparation_is_repeated_under_its_key(store: &dyn Store) {
    prepare(store, with_key(1, 7)).await;
    let repeat = store.prepare(with_key(2, 7)).await.unwrap();
    let other = store.prepare(with_key(3, 8)).await.unwrap();
    assert_eq!(repeat, Prepared::Key(KeyState::Stored(id(1))));
    assert_eq!(other, Prepared::Key(KeyState::OtherPayload));
    assert!(store.transaction(id(2)).await.unwrap().is_none(), "the repeat is not stored");
    assert!(store.transaction(id(3)).await.unwrap().is_none());
    assert_eq!(store.half_message(id(1)).await.unwrap().unwrap().idempotency_key.as_deref(), Some("k"));

    let at_once = join_all((10..40).map(|number| {
        let claim = KeyClaim { key: "other".to_owned(), ..key_claim("k", number, "a") };
        store.prepare(Preparation { key: Some(claim), ..half(number) })
    }));
    let stored = at_once.await.into_iter().filter(|prepared| matches!(prepared, Ok(Prepared::Stored))).count();
    assert_eq!(stored, 1, "of many that come at once one is stored");
}

pub(in crate::store) async fn what_is_confirmed_is_delivered_whole(store: &dyn Store) {
    prepare(store, with_key(1, 7)).await;

    assert_eq!(confirm(store, 1, at(5)).await, Said::Taken(false));

    let known = Message { accepted_at: at(5), ..with_key(1, 7).message };
    let found = stored(store, 1).await;
    assert_same(&found.message, &known);
    assert_eq!((found.summary.state, found.summary.due_at), (State::Queued, Some(at(5))));
    let delivered = claim(store, "orders", 9, at(5), lease("a", at(60))).await;
    assert_same(&delivered.messages[0], &known);
    let ended = transaction(store, 1).await;
    assert_eq!((ended.state, ended.ended_at), (TransactionState::Confirmed, Some(at(5))));
    assert_eq!((ended.reason.as_str(), ended.next_check_at), ("it was said", None));
    assert!(store.half_message(id(1)).await.unwrap().is_none(), "it is in one place");
}

pub(in crate::store) async fn what_is_confirmed_may_be_leased_at_once(store: &dyn Store) {
    prepare(store, half(1)).await;
    let said = store.confirm(saying(1, at(5)), Entry::Leased(lease("a", at(20)))).await.unwrap();
    let Said::Taken(confirmed) = said else { panic!("{said:?}") };
    assert_same(&confirmed.message, &Message { accepted_at: at(5), ..message(1, "orders") });
    assert!(claim_ids(store, "orders", 9, at(6), lease("b", at(60))).await.is_empty());
    done(store, finish(1, "a", delivered(at(7)))).await;
    assert_eq!(stored(store, 1).await.summary.state, State::Delivered);
}

pub(in crate::store) async fn what_is_confirmed_joins_its_order_then(store: &dyn Store) {
    let ordered = |number| Preparation { order: Some("alice".to_owned()), ..half(number) };
    for number in 1..=3 {
        prepare(store, ordered(number)).await;
    }
    // The second is confirmed first: what is not confirmed keeps nobody waiting.
    assert_eq!(confirm(store, 2, at(1)).await, Said::Taken(false));
    assert_eq!(confirm(store, 1, at(2)).await, Said::Taken(true));
    assert_eq!(claim_ids(store, "orders", 9, at(3), lease("a", at(60))).await, [id(2)]);
    done(store, finish(2, "a", delivered(at(4)))).await;
    assert_eq!(claim_ids(store, "orders", 9, at(5), lease("a", at(60))).await, [id(1)]);
}

pub(in crate::store) async fn what_is_cancelled_is_forgotten(store: &dyn Store) {
    prepare(store, half(1)).await;
    assert_eq!(cancel(store, 1, at(5)).await, Said::Taken(()));
    assert!(store.half_message(id(1)).await.unwrap().is_none());
    assert!(store.message(id(1)).await.unwrap().is_none());
    assert!(claim_ids(store, "orders", 9, at(1000), lease("a", at(2000))).await.is_empty());
    assert_eq!(transaction(store, 1).await.state, TransactionState::Cancelled);
}

pub(in crate::store) async fn the_first_word_holds(store: &dyn Store) {
    for number in [1, 2] {
        prepare(store, half(number)).await;
    }
    assert_eq!(confirm(store, 1, at(5)).await, Said::Taken(false));
    assert_eq!(cancel(store, 2, at(5)).await, Said::Taken(()));
    let (confirmed, cancelled) = (transaction(store, 1).await, transaction(store, 2).await);

    assert_eq!(confirm(store, 1, at(6)).await, Said::Already);
    assert_eq!(cancel(store, 2, at(6)).await, Said::Already);
    assert_eq!(cancel(store, 1, at(6)).await, Said::Contrary);
    assert_eq!(confirm(store, 2, at(6)).await, Said::Contrary);
    assert_eq!((confirm(store, 3, at(6)).await, cancel(store, 3, at(6)).await), (Said::Unknown, Said::Unknown));

    assert_eq!((transaction(store, 1).await, transaction(store, 2).await), (confirmed, cancelled), "nothing changed");
    assert_eq!(claim_ids(store, "orders", 9, at(9), lease("a", at(60))).await, [id(1)], "once");
}

pub(in crate::store) async fn of_many_words_at_once_one_is_the_first(store: &dyn Store) {
    for number in 1..=20 {
        prepare(store, half(number)).await;
    }
    let words = join_all((0..80).map(|n| async move {
        let number = n % 20 + 1;
        if n % 3 == 0 {
            cancel(store, number, at(5)).await == Said::Taken(())
        } else {
            confirm(store, number, at(5)).await == Said::Taken(false)
        }
    }));
    assert_eq!(words.await.into_iter().filter(|was_first| *was_first).count(), 20);
    for number in 1..=20 {
        let is_confirmed = transaction(store, number).await.state == TransactionState::Confirmed;
        assert_eq!(store.message(id(number)).await.unwrap().is_some(), is_confirmed, "{number}");
    }
}

pub(in crate::store) async fn one_at_a_time_asks(store: &dyn Store) {
    for number in [1, 2, 3] {
        prepare(store, Preparation { first_check: at(60 + number), ..half(number) }).await;
    }
    prepare(store, Preparation { message: message(9, "parcels"), ..half(9) }).await;
    let early = store.claim_checks(route("orders"), 9, at(60), lease("a", at(90))).await.unwrap();
    assert!(early.checks.is_empty(), "not before its time");
    assert_eq!(early.next_due, Some(at(61)));

    let first = store.claim_checks(route("orders"), 1, at(62), lease("a", at(90))).await.unwrap();
    assert_eq!(first.checks.len(), 1, "no more than asked for");
    let check = &first.checks[0];
    assert_eq!((check.message.id, check.checks, check.unreached), (id(1), 0, 0), "the longest due first");
    assert_eq!(check.message.request.headers, message(1, "orders").request.headers);
    assert!(check.message.request.body.is_empty(), "its body is not needed");
    assert_eq!(first.next_due, Some(at(62)));
    assert_eq!(claimed(store, 9, at(70), lease("b", at(95))).await, [id(2), id(3)]);
    assert!(claimed(store, 9, at(89), lease("c", at(99))).await.is_empty(), "they are being asked about");

    assert_eq!(claimed(store, 9, at(90), lease("c", at(99))).await, [id(1)], "its lease ran out");
    assert!(!store.note_check(note(1, "a", Some(at(120)))).await.unwrap(), "whoever lost it changes nothing");
    assert_eq!(transaction(store, 1).await.checks, 0);
    assert!(store.note_check(note(1, "c", Some(at(120)))).await.unwrap());
    assert!(!store.note_check(note(1, "c", Some(at(120)))).await.unwrap(), "it was let go");
}

pub(in crate::store) async fn a_check_that_settles_nothing_is_made_again(store: &dyn Store) {
    prepare(store, half(1)).await;
    assert_eq!(claimed(store, 9, at(60), lease("a", at(90))).await, [id(1)]);
    assert!(store.note_check(CheckNote { unreached: 2, ..note(1, "a", Some(at(120))) }).await.unwrap());

    let noted = transaction(store, 1).await;
    assert_eq!((noted.state, noted.next_check_at), (TransactionState::Prepared, Some(at(120))));
    assert_eq!((noted.checks, noted.unreached, noted.reason.as_str()), (1, 2, "its sender knows nothing"));
    assert!(claimed(store, 9, at(119), lease("b", at(150))).await.is_empty());
    let again = &claim_checks(store, 9, at(120), lease("b", at(150))).await[0];
    assert_eq!((again.message.id, again.checks, again.unreached), (id(1), 1, 2));
}

pub(in crate::store) async fn an_answer_after_a_word_changes_nothing(store: &dyn Store) {
    for number in [1, 2] {
        prepare(store, half(number)).await;
    }
    assert_eq!(claimed(store, 9, at(60), lease("a", at(90))).await, [id(1), id(2)]);
    confirm(store, 1, at(61)).await;
    cancel(store, 2, at(61)).await;
    let ended = [transaction(store, 1).await, transaction(store, 2).await];

    for number in [1, 2] {
        assert!(!store.note_check(note(number, "a", Some(at(120)))).await.unwrap());
        assert!(!store.note_check(note(number, "a", None)).await.unwrap());
    }
    assert_eq!(ended, [transaction(store, 1).await, transaction(store, 2).await]);
    assert!(claimed(store, 9, at(500), lease("a", at(900))).await.is_empty(), "nobody is asked any more");
}

pub(in crate::store) async fn an_answer_that_settles_is_counted(store: &dyn Store) {
    prepare(store, half(1)).await;
    assert_eq!(claimed(store, 9, at(60), lease("a", at(90))).await, [id(1)]);
    let saying = Saying { checked: true, ..saying(1, at(61)) };
    assert_eq!(store.cancel(saying).await.unwrap(), Said::Taken(()));
    assert_eq!(transaction(store, 1).await.checks, 1);
}

pub(in crate::store) async fn what_is_parked_waits_for_a_person_or_its_senders_word(store: &dyn Store) {
    for number in [1, 2, 3] {
        prepare(store, half(number)).await;
    }
    assert_eq!(claimed(store, 9, at(60), lease("a", at(70))).await.len(), 3);
    for number in [1, 2, 3] {
        assert!(store.note_check(note(number, "a", None)).await.unwrap());
    }
    let parked = transaction(store, 1).await;
    assert_eq!((parked.state, parked.next_check_at, parked.checks), (TransactionState::Parked, None, 1));
    assert!(claimed(store, 9, at(9999), lease("a", at(10_000))).await.is_empty(), "nobody is asked");
    assert!(store.half_message(id(1)).await.unwrap().is_some(), "and nothing is lost");

    assert_eq!(confirm(store, 1, at(100)).await, Said::Taken(false));
    assert_eq!(cancel(store, 2, at(100)).await, Said::Taken(()));
    assert_eq!(store.resume(id(3), at(100)).await.unwrap(), Said::Taken(()));

    let resumed = transaction(store, 3).await;
    assert_eq!((resumed.state, resumed.next_check_at), (TransactionState::Prepared, Some(at(100))));
    assert_eq!((resumed.checks, resumed.unreached), (0, 0), "counted afresh");
    assert_eq!(claimed(store, 9, at(100), lease("a", at(110))).await, [id(3)]);
    assert_eq!(store.resume(id(3), at(101)).await.unwrap(), Said::Already);
    assert_eq!(store.resume(id(1), at(101)).await.unwrap(), Said::Contrary);
    assert_eq!(store.resume(id(8), at(101)).await.unwrap(), Said::Unknown);
}

pub(in crate::store) async fn a_list_of_them_goes_from_the_newest(store: &dyn Store) {
    for number in 1..=6 {
        prepare(store, half(number)).await;
    }
    prepare(store, Preparation { message: message(7, "parcels"), ..half(7) }).await;
    confirm(store, 2, at(1)).await;
    cancel(store, 3, at(1)).await;
    park(store, 4).await;
    let list = async |filter: TransactionFilter| -> Vec<u64> {
        let found = store.transactions(filter).await.unwrap();
        (1..=7).rev().filter(|number| found.iter().any(|one| one.id == id(*number))).collect()
    };
    let all = store.transactions(TransactionFilter::default()).await.unwrap();
    assert_eq!(all.iter().map(|one| one.id).collect::<Vec<_>>(), (1..=7).rev().map(id).collect::<Vec<_>>());
    let in_states = |states: &[TransactionState]| TransactionFilter { states: states.into(), ..Default::default() };
    assert_eq!(list(in_states(&[TransactionState::Parked])).await, [4]);
    assert_eq!(list(in_states(&[TransactionState::Confirmed, TransactionState::Cancelled])).await, [3, 2]);
    assert_eq!(list(in_states(&[TransactionState::Prepared])).await, [7, 6, 5, 1]);
    let on_route = TransactionFilter { route: Some("parcels".to_owned()), ..Default::default() };
    assert_eq!(list(on_route).await, [7]);
    let page = TransactionFilter { before: Some(id(6)), limit: 2, ..Default::default() };
    assert_eq!(list(page.clone()).await, [5, 4]);
    assert_eq!(list(TransactionFilter { states: vec![TransactionState::Prepared], ..page }).await, [5, 1]);

    let open = store.open_transactions().await.unwrap();
    let count = |route: &str, state| open.get(&(route.to_owned(), state)).copied().unwrap_or(0);
    assert_eq!((count("orders", TransactionState::Prepared), count("orders", TransactionState::Parked)), (3, 1));
    assert_eq!((count("parcels", TransactionState::Prepared), open.len()), (1, 3));
}

pub(in crate::store) async fn what_is_open_counts_as_not_ended(store: &dyn Store) {
    for number in 1..=4 {
        prepare(store, half(number)).await;
    }
    confirm(store, 1, at(1)).await;
    cancel(store, 2, at(1)).await;
    park(store, 3).await;
    assert_eq!(store.backlog().await.unwrap().get("orders"), Some(&3), "a message, a parked and a prepared one");
}

pub(in crate::store) async fn what_has_ended_is_swept_after_its_key(store: &dyn Store) {
    // Its key is kept until 60 s.
    prepare(store, with_key(1, 7)).await;
    for number in 2..=5 {
        prepare(store, half(number)).await;
    }
    for number in 1..=3 {
        cancel(store, number, at(5)).await;
    }
    park(store, 4).await;
    let sweep = async |now, limit| {
        let retention = Retention { finished: Duration::from_secs(10), dead: Default::default() };
        store.sweep(retention, now, limit).await.unwrap()
    };
    assert_eq!(sweep(at(15), 9).await, 0, "not yet");
    assert_eq!(sweep(at(16), 1).await, 1, "no more than asked for");
    assert_eq!(sweep(at(16), 9).await, 1);
    assert!(store.transaction(id(3)).await.unwrap().is_none());
    assert_eq!(store.prepare(with_key(6, 7)).await.unwrap(), Prepared::Key(KeyState::Stored(id(1))));
    assert!(store.transaction(id(1)).await.unwrap().is_some(), "whoever repeats it is told what became of it");
    assert_eq!(sweep(at(60), 9).await, 2, "it, and its key");
    assert_eq!(sweep(at(1_000_000), 9).await, 0, "what is open stays");
    for number in [4, 5] {
        assert!(store.half_message(id(number)).await.unwrap().is_some());
    }
}
