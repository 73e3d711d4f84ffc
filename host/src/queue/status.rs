//! How a lane stands, as `/v1/routes` shows it.

use serde::Serialize;

use crate::clock::Timestamp;

/// How a lane stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// Its circuit breaker, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStatus>,
    /// When its rate allows the next attempt, if that is not now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_free_at: Option<Timestamp>,
    /// Retries that its budget has room for now, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries_left: Option<u64>,
    /// Retries made later than they were due for want of budget, since the host started.
    pub withheld: u64,
}

/// A circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreakerStatus {
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Until when it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// While it is closed: attempts in its window.
    pub attempts: u64,
    /// While it is closed: those of them that failed.
    pub failures: u64,
}
