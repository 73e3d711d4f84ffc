//! The strict edition: a 404 is final.

use backstop_sdk::prelude::*;

struct Moody;

impl Policy for Moody {
    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        match outcome.status() {
            Some(404) => dead_letter("it will never come"),
            _ => standard(attempt, outcome),
        }
    }
}

export_policy!(Moody);
