//! What every store must do, whatever it is made of: one rule a function, written against the trait. A store's own
//! tests run each rule on a store that is empty.

pub(in crate::store) mod acceptance;
pub(in crate::store) mod feeds;
pub(in crate::store) mod keys;
pub(in crate::store) mod leases;
pub(in crate::store) mod model;
pub(in crate::store) mod orders;
pub(in crate::store) mod selections;
pub(in crate::store) mod transactions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use super::{
    Acceptance, Accepted, Claimed, Entry, Finish, Finished, KeyClaim, LaneClaim, Lease, Owner, Store, Stored, Then,
};
use crate::clock::Timestamp;
use crate::message::{
    AttemptRecord, Message, MessageId, Origin, OutcomeSummary, Progress, Provenance, Request, RouteName, State,
    VerdictKind,
};

/// `seconds` after the moment at which these stories begin.
pub(in crate::store) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000).after(Duration::from_secs(seconds))
}

/// The `number`th id: they sort as their numbers do.
pub(in crate::store) fn id(number: u64) -> MessageId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    MessageId::from_bytes(bytes)
}

pub(in crate::store) fn route(name: &str) -> RouteName {
    RouteName::new(name).unwrap()
}

pub(in crate::store) fn owner(name: &str) -> Owner {
    Owner(name.to_owned())
}

pub(in crate::store) fn lease(name: &str, until: Timestamp) -> Lease {
    Lease { owner: owner(name), until }
}

pub(in crate::store) fn message(number: u64, on: &str) -> Message {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    Message {
        id: id(number),
        route: route(on),
        request: Arc::new(Request {
            method: Method::POST,
            path: format!("/orders/{number}?dry=1"),
            headers,
            body: Bytes::from(format!("{{\"order\":{number}}}")),
        }),
        idempotency_key: None,
        accepted_at: at(0),
        progress: Progress::default(),
        origin: Origin::default(),
    }
}

pub(in crate::store) fn acceptance(message: Message, entry: Entry) -> Acceptance {
    Acceptance { message, entry, attempts: Vec::new(), key: None, hold: None, order: None }
}

pub(in crate::store) fn queued(number: u64, on: &str, due: Timestamp) -> Acceptance {
    acceptance(message(number, on), Entry::Queued { due })
}

pub(in crate::store) fn leased(number: u64, on: &str, lease: Lease) -> Acceptance {
    acceptance(message(number, on), Entry::Leased(lease))
}

fn ended(number: u64, on: &str, state: State, reason: &str, when: Timestamp) -> Acceptance {
    acceptance(message(number, on), Entry::Ended { state, reason: reason.to_owned(), at: when })
}

fn attempt(number: u32, reason: &str) -> AttemptRecord {
    AttemptRecord {
        number,
        route: "orders".to_owned(),
        started_at: at(0),
        latency_ms: 12,
        outcome: OutcomeSummary { status: Some(503), excerpt: "later, please".to_owned(), ..Default::default() },
        verdict: VerdictKind::Retry,
        reason: reason.to_owned(),
        delay_ms: Some(1000),
        transition: "retry".to_owned(),
        clamped: vec!["delay 1ms raised to min_delay".to_owned()],
        withheld: None,
        provenance: Provenance { fuel: 42, ..Default::default() },
    }
}

/// What `by` writes of the message's only attempt.
pub(in crate::store) fn finish(number: u64, by: &str, then: Then) -> Finish {
    Finish {
        is_awaited: false,
        id: id(number),
        owner: owner(by),
        attempt: attempt(1, "busy"),
        then,
        progress: Progress {
            attempts: 1,
            journal: 1,
            started_at: Some(at(0)),
            previous_delay: Some(Duration::from_nanos(1_234_567_891)),
            reauthenticated: true,
            hops: 2,
        },
        hold: None,
        blocks: false,
    }
}

pub(in crate::store) fn delivered(when: Timestamp) -> Then {
    end(State::Delivered, when)
}

fn end(state: State, when: Timestamp) -> Then {
    Then::End { state, reason: format!("it is {state}"), at: when }
}

fn key_claim(key: &str, number: u64, by: &str) -> KeyClaim {
    KeyClaim {
        route: route("orders"),
        key: key.to_owned(),
        fingerprint: [7; 32],
        message: id(number),
        owner: owner(by),
        opened_until: at(40),
        keep_until: at(60),
    }
}

pub(in crate::store) async fn accept(store: &dyn Store, acceptance: Acceptance) {
    assert_eq!(store.accept(acceptance).await.unwrap(), Accepted::Stored);
}

pub(in crate::store) async fn claim(
    store: &dyn Store,
    on: &str,
    limit: usize,
    now: Timestamp,
    lease: Lease,
) -> Claimed {
    store.claim_due(vec![LaneClaim { route: route(on), limit, retries: limit }], now, lease).await.unwrap()
}

pub(in crate::store) async fn claim_ids(
    store: &dyn Store,
    on: &str,
    limit: usize,
    now: Timestamp,
    lease: Lease,
) -> Vec<MessageId> {
    claim(store, on, limit, now, lease).await.messages.into_iter().map(|message| message.id).collect()
}

pub(in crate::store) async fn stored(store: &dyn Store, number: u64) -> Stored {
    store.message(id(number)).await.unwrap().unwrap()
}

async fn states(store: &dyn Store, numbers: impl IntoIterator<Item = u64>) -> Vec<State> {
    let mut states = Vec::new();
    for number in numbers {
        states.push(stored(store, number).await.summary.state);
    }
    states
}

async fn done(store: &dyn Store, finish: Finish) {
    assert_eq!(store.finish(finish).await.unwrap(), Finished::Done);
}

fn assert_same(left: &Message, right: &Message) {
    let parts = |m: &Message| {
        (m.id, m.route.clone(), Arc::clone(&m.request), m.idempotency_key.clone(), m.accepted_at, m.progress)
    };
    assert_eq!(parts(left), parts(right));
}
