//! The standard rule: what an outcome means when no policy says otherwise.

use crate::message::{Decision, Outcome, Scope, Verdict};

/// Statuses that may be different next time.
const TRANSIENT: [u16; 7] = [408, 409, 429, 500, 502, 503, 504];

/// Success is accepted; 408, 409, 429, 500, 502, 503, 504 and silence are retried by the route's backoff; anything else
/// is a dead letter.
pub(super) fn standard_rule(outcome: &Outcome) -> Decision {
    let retry = Verdict::Retry { after: None, scope: Scope::Standard };
    let (verdict, reason) = match outcome {
        Outcome::Silence(silence) => (retry, format!("no answer: {}", silence.fault)),
        Outcome::Response(response) => match response.status.as_u16() {
            status @ 200..=299 => (Verdict::Accept, status.to_string()),
            status if TRANSIENT.contains(&status) => (retry, format!("{status} is transient")),
            status => (Verdict::DeadLetter, format!("{status} is persistent")),
        },
    };
    Decision { verdict, reason }
}
