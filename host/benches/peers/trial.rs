//! Holds a peer to the policy before it is measured: every branch must be decided as the policy decides it.

use backstop::message::Outcome;
use backstop_peers::{Decision, Peer, Question};
use bytes::Bytes;
use http::HeaderValue;

use crate::{ours, question};

/// Panics if the peer decides otherwise than the policy.
pub(crate) fn hold(peer: &mut impl Peer) {
    let refused = question::BODY.replace("InternalError", "CardDeclined");
    let fine = question::BODY.replace("\"Error\"", "\"Warning\"");
    let cases = [
        (ours::error_inside(), "retry", Some(30), "the vendor's internal error, which names a delay"),
        (without(ours::error_inside(), "retry-after"), "retry", None, "the vendor's internal error"),
        (saying(refused), "dead-letter", None, "the vendor refuses the request"),
        (saying(fine), "accept", None, "success"),
        (saying("<html>".to_owned()), "accept", None, "success"),
        (in_maintenance(), "retry-destination", Some(600), "vendor in maintenance"),
        (ours::bodyless(), "retry", None, "server failure"),
    ];
    for (outcome, verdict, after, reason) in cases {
        let expected = Decision::new(verdict, after, reason);
        let decided = Question::of(&outcome).and_then(|question| peer.judge(&question));
        match (decided, expected) {
            (Ok(decided), Ok(expected)) if decided == expected => {}
            (decided, expected) => panic!("a contestant decides {decided:?} instead of {expected:?} on {outcome:?}"),
        }
    }
}

fn saying(body: String) -> Outcome {
    changed(ours::error_inside(), |response| response.body = Bytes::from(body))
}

fn without(outcome: Outcome, field: &str) -> Outcome {
    changed(outcome, |response| drop(response.headers.remove(field)))
}

fn in_maintenance() -> Outcome {
    changed(ours::error_inside(), |response| {
        response.headers.insert("x-vendor-state", HeaderValue::from_static("maintenance"));
    })
}

fn changed(mut outcome: Outcome, change: impl FnOnce(&mut backstop::message::Response)) -> Outcome {
    if let Outcome::Response(response) = &mut outcome {
        change(response);
    }
    outcome
}
