//! Gives every second 404 up, by a count of its own: what it answers depends on what it was asked before.

use std::sync::atomic::{AtomicU32, Ordering};

use backstop_sdk::prelude::*;

static SEEN: AtomicU32 = AtomicU32::new(0);

struct Forgetful;

impl Policy for Forgetful {
    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        match outcome.status() {
            Some(404) if SEEN.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) => retry("it may still come"),
            _ => standard(attempt, outcome),
        }
    }
}

export_policy!(Forgetful);
