//! The patient edition: a 404 may go away.

use backstop_sdk::prelude::*;

struct Moody;

impl Policy for Moody {
    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        match outcome.status() {
            Some(404) => retry("it may still come"),
            _ => standard(attempt, outcome),
        }
    }
}

export_policy!(Moody);
