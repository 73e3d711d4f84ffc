//! The standard rule in the host's own types. The rule itself is the SDK's, so that a policy that says `standard()` and
//! a route without a policy can never disagree.

use backstop_sdk::standard::{Class, classify, reason};

use crate::message::{Decision, Outcome, Scope, Verdict};

/// What `outcome` means when no policy says otherwise.
pub(super) fn standard_rule(outcome: &Outcome) -> Decision {
    let status = match outcome {
        Outcome::Response(response) => Some(response.status.as_u16()),
        Outcome::Silence(_) => None,
    };
    let verdict = match classify(status) {
        Class::Success => Verdict::Accept,
        Class::Transient => Verdict::Retry { after: None, scope: Scope::Standard },
        Class::Persistent => Verdict::DeadLetter,
    };
    Decision { verdict, reason: reason(status).to_owned() }
}
