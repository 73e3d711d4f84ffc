//! What a filter finds, and what it leaves alone.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::message::{
    AttemptRecord, Message, Origin, PolicyRef, Progress, Provenance, Request, RouteName, VerdictKind,
};
use crate::store::Summary;

fn filter(parts: &[(&str, &str)]) -> ArchiveFilter {
    let mut filter = ArchiveFilter::default();
    parts.iter().for_each(|(name, value)| filter.add(name, value).unwrap());
    filter
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A dead letter of the route `orders`, accepted at noon, refused twice.
fn stored() -> Stored {
    let (id, route) = (MessageId::new(at("2026-03-01T12:00:00Z")), RouteName::new("orders").unwrap());
    let attempt = |reason: &str, digest: &str| AttemptRecord {
        provenance: Provenance {
            policy: Some(Arc::new(PolicyRef { name: "p".into(), version: "1".into(), digest: digest.into() })),
            ..Provenance::default()
        },
        ..AttemptRecord::unattempted(&route, VerdictKind::Retry, reason, at("2026-03-01T12:00:01Z"))
    };
    Stored {
        attempts: vec![attempt("the vendor is away: E17", "00ff17"), attempt("refused: E4", "abcdef12")],
        summary: Summary {
            id,
            route: route.to_string(),
            state: State::Dead,
            reason: "refused: E4".into(),
            attempts: 2,
            method: "POST".into(),
            path: String::new(),
            accepted_at: at("2026-03-01T12:00:00Z"),
            due_at: None,
            ended_at: None,
            order_key: None,
            turn: None,
        },
        message: Message {
            id,
            route,
            request: Arc::new(Request {
                method: Method::POST,
                path: String::new(),
                headers: HeaderMap::new(),
                body: Bytes::from_static(
                    br#"{"total": 7, "by": {"card": "visa=gold"}, "lines": [{"sku": "a"}], "no": null}"#,
                ),
            }),
            idempotency_key: None,
            accepted_at: at("2026-03-01T12:00:00Z"),
            progress: Progress::default(),
            origin: Origin::default(),
        },
        blocked_by: None,
    }
}

fn finds(parts: &[(&str, &str)]) -> bool {
    let (filter, stored) = (filter(parts), stored());
    let line = ArchiveLine {
        id: stored.message.id,
        uid: stored.message.uid(),
        route: stored.summary.route.clone(),
        state: stored.summary.state,
        accepted_at: stored.summary.accepted_at,
    };
    filter.may_fit(&line) && filter.fits(&stored)
}

#[test]
fn everything_that_is_said_must_be_so() {
    assert!(finds(&[]));
    for (part, is_so) in [
        (("route", "orders"), true),
        (("route", "order"), false),
        (("state", "dead"), true),
        (("state", "delivered"), false),
        (("from", "2026-03-01T12:00:00Z"), true),
        (("from", "2026-03-01T12:00:00.001Z"), false),
        (("until", "2026-03-01T12:00:00Z"), false),
        (("until", "2026-03-01T13:00:00.001+01:00"), true),
        (("reason", "E4"), true),
        (("reason", "E17"), true),
        (("reason", "E5"), false),
        (("policy", "ABCD"), true),
        (("policy", "bcde"), false),
        (("body", "/total=7"), true),
        (("body", "/total=7.0"), true),
        (("body", "/total=0.7e1"), true),
        (("body", "/total=70"), false),
        (("body", "/total"), true),
        (("body", "/by/card=visa=gold"), true),
        (("body", "/lines/0/sku=a"), true),
        (("body", "/lines/1/sku"), false),
        (("body", "/no"), false),
        (("uid", "01920000-0000-7000-8000-000000000000"), false),
    ] {
        assert_eq!(finds(&[part]), is_so, "{part:?}");
        assert_eq!(finds(&[part, ("body", "/by/card")]), is_so, "{part:?} and more");
        assert!(!finds(&[part, ("body", "/by/cash")]), "{part:?} and what is not so");
    }
    assert!(finds(&[("state", "delivered"), ("state", "dead")]));
    assert!(finds(&[("body", "/total=7"), ("body", "/lines/0/sku=a")]));
}

#[test]
fn long_numbers_that_differ_in_a_digit_are_not_the_same() {
    let test: BodyTest = "/id=1234567890123456789".parse().unwrap();
    assert!(test.holds(br#"{"id": 1234567890123456789}"#));
    assert!(!test.holds(br#"{"id": 1234567890123456788}"#));
}

#[test]
fn a_body_that_is_no_json_holds_nothing() {
    let test: BodyTest = "/a".parse().unwrap();
    for body in ["", "a", "{\"a\": 1", "{\"a\": 1} rest"] {
        assert!(!test.holds(body.as_bytes()), "{body}");
    }
}

#[test]
fn what_cannot_be_read_is_told_with_what_to_write() {
    let refusal = |name: &str, value: &str| filter(&[("route", "a")]).add(name, value).unwrap_err().to_string();
    for (name, value, hint) in [
        ("stat", "dead", "\"stat\" is nothing that messages are found by: write route, state"),
        ("state", "died", "there are queued, in_flight, delivered"),
        ("from", "yesterday", "such as 2026-11-22T07:30:00Z"),
        ("policy", "abc", "4 to 64 hexadecimal digits"),
        ("policy", "standard", "hexadecimal"),
        ("body", "total=7", "each step begins with /"),
        ("route", "b", "given twice"),
        ("reason", "", "it is empty"),
    ] {
        assert!(refusal(name, value).contains(hint), "{}", refusal(name, value));
    }
}

#[test]
fn the_end_of_a_walk_is_after_all_that_may_fit() {
    let until = at("2026-03-01T12:00:00Z");
    let end = filter(&[("until", "2026-03-01T12:00:00Z")]).end().unwrap();
    let moment_before = Timestamp::from_millis(until.as_millis() - 1);
    assert!(MessageId::new(moment_before) < end);
    assert!(MessageId::new(until) > end);
    let far_ahead = MessageId::first_of(Timestamp::from_millis(1 << 48));
    assert!(MessageId::new(until) < far_ahead, "nothing is beyond a moment that no id can hold");
}

proptest! {
    #[test]
    fn a_filter_survives_being_a_query(
        route in proptest::option::of(".{1,8}"),
        states in proptest::collection::vec(proptest::sample::select(State::ALL.to_vec()), 0..3),
        from in proptest::option::of(0_u64..4_000_000_000_000),
        policy in proptest::option::of("[0-9a-f]{4,64}"),
        body in proptest::collection::vec("(/[a-z~&]{0,3}){1,3}(=.{0,5})?", 0..3),
    ) {
        let written = ArchiveFilter {
            route,
            states,
            from: from.map(Timestamp::from_millis),
            policy: policy.map(|digest| digest.parse().unwrap()),
            body: body.iter().filter_map(|test| test.parse().ok()).collect(),
            ..ArchiveFilter::default()
        };
        let mut read = ArchiveFilter::default();
        for (name, value) in written.parts() {
            read.add(name, &value).unwrap();
        }
        prop_assert_eq!(read, written);
    }
}
