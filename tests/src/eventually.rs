//! Waiting on conditions.

use std::time::Duration;

use backstop::clock::{Clock, Stopwatch, SystemClock};

/// How long a condition may take to come true. Far longer than any does on an idle machine: a busy one is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `probe` finds something, and returns it.
///
/// # Panics
/// When it finds nothing within a minute: `what` says what was waited for.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe).await
}

/// As [`eventually()`], with another bound.
///
/// # Panics
/// When it finds nothing in that time.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(watch.elapsed() < patience, "waited {patience:?} in vain for {what}");
        SystemClock.sleep(POLL).await;
    }
}
