//! Time, for measuring: the only place of this crate that reads a clock or sleeps.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(now);

#[expect(clippy::disallowed_methods, reason = "a benchmark measures the machine's own time, and reads it here only")]
fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds since the program began; never 0, which stands for "has not happened".
pub(crate) fn nanos() -> u64 {
    let start = *START;
    u64::try_from(now().duration_since(start).as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Blocks the thread.
#[expect(clippy::disallowed_methods, reason = "the bench waits for processes, not for its own tasks")]
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Seconds between two readings of [`nanos`].
pub(crate) fn seconds(from: u64, to: u64) -> f64 {
    Duration::from_nanos(to.saturating_sub(from)).as_secs_f64()
}

/// Asks `ready` every few milliseconds; false when `within` has passed.
pub(crate) fn wait_until(within: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let start = nanos();
    while !ready() {
        if seconds(start, nanos()) > within.as_secs_f64() {
            return false;
        }
        pause(Duration::from_millis(2));
    }
    true
}

/// Waits without blocking the thread.
#[expect(clippy::disallowed_methods, reason = "a sender paces itself on the machine's own time")]
pub(crate) async fn wait(length: Duration) {
    tokio::time::sleep(length).await;
}
