//! The standard rule as a policy: what a route without a policy gets anyway, to be copied and changed.
//!
//! HTTP 2xx is success. HTTP 408, 409, 429, 500, 502, 503, 504 and silence of any kind are transient and tried again.
//! Everything else is persistent and becomes a dead letter. It takes no configuration, and sees no header field and no
//! body.

use backstop_sdk::prelude::*;

/// The rule.
pub struct Standard;

impl Policy for Standard {
    fn interest(&self) -> Interest {
        Interest::none()
    }

    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        standard(attempt, outcome)
    }
}

export_policy!(Standard);

#[cfg(test)]
mod tests {
    use backstop_sdk::test::{attempt, policy, response, silence};

    use super::*;

    fn judge(outcome: impl Into<Outcome>) -> Decision {
        policy(Standard).judge(attempt(1), outcome)
    }

    #[test]
    fn success_is_accepted() {
        assert_eq!(judge(response(202)), accept("success"));
    }

    #[test]
    fn a_transient_failure_is_tried_again() {
        assert_eq!(judge(response(503)), retry("server failure"));
        assert_eq!(judge(silence(Fault::Reset)), retry("no answer"));
    }

    #[test]
    fn a_persistent_failure_becomes_a_dead_letter() {
        assert_eq!(judge(response(400)), dead_letter("refused by the destination"));
        assert_eq!(judge(response(301)), dead_letter("redirects are not followed"));
    }
}
