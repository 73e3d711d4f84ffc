//! Decides by what the broker knows of a message: how often it was delivered before, and why it was dead-lettered.

use backstop_sdk::json_pointer;
use backstop_sdk::prelude::*;

/// Earlier deliveries after which a message is given up.
const ENOUGH: u32 = 2;

struct BrokerWise;

impl Policy for BrokerWise {
    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        let earlier = attribute("header:broker-delivery-count").and_then(|count| count.parse().ok()).unwrap_or(0);
        match outcome.status() {
            Some(503) if earlier >= ENOUGH => dead_letter(format!("given up after {earlier} earlier deliveries")),
            Some(503) => retry_after(millis(1), format!("delivered {earlier} times before")),
            _ => standard(attempt, outcome),
        }
    }
}

impl Admit for BrokerWise {
    fn admit(&self, message: &Message) -> Admission {
        let deaths = message.header("x-death").unwrap_or_default();
        match json_pointer(deaths.as_bytes(), "/0/reason") {
            Ok(Some(Value::String(reason))) if reason == "rejected" => Admission::drop("rejected before"),
            _ => Admission::Accept,
        }
    }
}

export_policy!(BrokerWise);
