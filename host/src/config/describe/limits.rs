//! What keeps a lane within its destination's means, shown.

use serde_json::{Map, Value, json};

use super::duration;
use crate::config::limits::{OnFailure, RetryBudget};
use crate::config::resolved::Route;

/// Adds the keys of `route`.
pub(super) fn show(route: &Route, shown: &mut Map<String, Value>) {
    if let Some(rate) = &route.rate {
        shown.insert("rate".into(), json!({ "per_second": rate.per_second, "burst": rate.burst }));
    }
    if let Some(breaker) = &route.breaker {
        let keys = json!({
            "failures": breaker.failures,
            "window": duration(breaker.window),
            "min_attempts": breaker.min_attempts,
            "open_for": duration(breaker.open_for),
            "probes": breaker.probes,
        });
        shown.insert("breaker".into(), keys);
    }
    if let Some(order) = &route.order {
        let on_failure = match order.on_failure {
            OnFailure::Block => "block",
            OnFailure::Skip => "skip",
        };
        shown.insert("order_by".into(), json!({ "key": order.key.to_string(), "on_failure": on_failure }));
    }
}

/// The key of a retry budget, which stands with the envelope.
pub(super) fn budget(budget: &RetryBudget) -> Value {
    json!({ "share": budget.share, "reserve": budget.reserve, "window": duration(budget.window) })
}
