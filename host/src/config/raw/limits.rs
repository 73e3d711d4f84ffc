//! What keeps a lane within its destination's means, as the file says it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::limits::{OrderKey, PerSecond};
use crate::config::reader::Field;
use crate::config::units::{Count, Share, Written};

/// Attempts that may begin in a time.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Rate", extend("required" = ["per_second"]))]
pub(in crate::config) struct RawRate {
    /// Attempts a second, 0.001 to 1000000.
    pub(in crate::config) per_second: Field<Written<PerSecond>>,
    /// Attempts that may begin at once after a pause, 1 to 1000000. Default a tenth of per_second, and at least 1.
    pub(in crate::config) burst: Field<Count>,
}

/// The circuit breaker.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Breaker")]
pub(in crate::config) struct RawBreaker {
    /// The share of attempts, those to be retried and those without an answer, at which it opens. Default 50%.
    pub(in crate::config) failures: Field<Written<Share>>,
    /// The window, 1s to 1h. Default 10s.
    pub(in crate::config) window: Field<Written<Duration>>,
    /// Attempts in the window below which it does not open, 1 to 1000000. Default 10.
    pub(in crate::config) min_attempts: Field<Count>,
    /// How long no attempt is made, 100ms to 24h. Default 30s.
    pub(in crate::config) open_for: Field<Written<Duration>>,
    /// Attempts that are then made at once, and must succeed in a row, before it closes, 1 to 1000. Default 1.
    pub(in crate::config) probes: Field<Count>,
}

/// The retry budget.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "RetryBudget")]
pub(in crate::config) struct RawRetryBudget {
    /// Retries there may be for each first attempt in the window. Default 20%.
    pub(in crate::config) share: Field<Written<Share>>,
    /// Retries a second that are made whatever the traffic, 1 to 1000000. Default 10.
    pub(in crate::config) reserve: Field<Count>,
    /// The window, 1s to 10m. Default 10s.
    pub(in crate::config) window: Field<Written<Duration>>,
}

/// Which messages are delivered one after the other.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "OrderBy", extend("required" = ["key"]))]
pub(in crate::config) struct RawOrderBy {
    /// Where the key is.
    pub(in crate::config) key: Field<Written<OrderKey>>,
    /// What becomes of the messages behind one that ends as a dead letter: they wait for a person to redrive or
    /// discard it, or go on. Default block.
    pub(in crate::config) on_failure: Field<RawOnFailure>,
}

/// What becomes of the messages behind one that ends as a dead letter.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OnFailure", inline)]
pub(in crate::config) enum RawOnFailure {
    Block,
    Skip,
}
