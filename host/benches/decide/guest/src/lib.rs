//! The policy that the benchmark asks: for a vendor that answers 200 with an error code inside, may say `retry-after`,
//! and marks answers from its maintenance page with a field of its own.

use backstop_sdk::prelude::*;

/// For one vendor's dialect.
pub struct ErrorInside;

impl Policy for ErrorInside {
    fn interest(&self) -> Interest {
        Interest::none().header("retry-after").header("x-vendor-state").body(4096)
    }

    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        if !outcome.is_success() {
            return standard(attempt, outcome);
        }
        if outcome.header("x-vendor-state") == Some("maintenance") {
            return retry_after(minutes(10), "vendor in maintenance").for_destination();
        }
        match outcome.json_text("/Response/Error/Code").as_deref() {
            None => accept("success"),
            Some("InternalError" | "RequestLimitExceeded") => {
                match outcome.header("retry-after").and_then(|after| after.parse().ok()) {
                    Some(after) => retry_after(seconds(after), "the vendor's internal error, which names a delay"),
                    None => retry("the vendor's internal error"),
                }
            }
            Some(_) => dead_letter("the vendor refuses the request"),
        }
    }
}

export_policy!(ErrorInside);
