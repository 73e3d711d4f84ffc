//! Time and chance, as arguments: the only place that reads a clock, sleeps, or draws a random number.
//!
//! Everything else is given a [`Clock`], so that a test can run a day of retries in milliseconds and a decision can
//! be replayed. Clippy refuses the ambient functions outside this file.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since the Unix epoch. It is what the store keeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `millis` after the Unix epoch, held within what the store can keep (a signed 64-bit integer).
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > i64::MAX as u64 { i64::MAX as u64 } else { millis })
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment and `delay`, rounded **up** to a whole millisecond: a retry never fires early.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        let whole = u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Self::from_millis(self.0.saturating_add(whole))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(moment) => write!(f, "{moment:.3}"),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = BadTimestamp;

    /// RFC 3339, rounded down to a millisecond; or milliseconds since the Unix epoch.
    fn from_str(text: &str) -> Result<Self, BadTimestamp> {
        if let Ok(millis) = text.parse() {
            return Ok(Self::from_millis(millis));
        }
        let moment = text.parse::<jiff::Timestamp>().map_err(|_| BadTimestamp)?;
        u64::try_from(moment.as_millisecond()).map(Self::from_millis).map_err(|_| BadTimestamp)
    }
}

/// A text that is no moment since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no moment: write it as RFC 3339 has it, such as 2026-11-22T07:30:00Z")]
pub struct BadTimestamp;

/// A number drawn uniformly from `[0, 1)`, given to the pure functions that need one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Chance(f64);

impl Chance {
    /// The chance `value`, held within `[0, 1)`.
    pub fn new(value: f64) -> Self {
        Self(if value.is_finite() { value.clamp(0.0, 1.0 - f64::EPSILON) } else { 0.0 })
    }

    /// A duration drawn uniformly from `[from, to)`; `from` when the range is empty.
    pub fn between(self, from: Duration, to: Duration) -> Duration {
        from.saturating_add(to.saturating_sub(from).mul_f64(self.0))
    }
}

/// A seam: where the host gets its time and its chance.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Returns once `moment` has been reached on this clock, and not before.
    async fn sleep_until(&self, moment: Timestamp);

    /// Returns after `length`.
    async fn sleep(&self, length: Duration) {
        self.sleep_until(self.now().after(length)).await;
    }

    /// The next random number.
    fn chance(&self) -> Chance;
}

/// The machine's own clock and random numbers.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemClock;

#[async_trait]
#[expect(clippy::disallowed_methods, reason = "this is the one place where the ambient clock and chance are read")]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, moment: Timestamp) {
        // The timer runs on the monotonic clock, so it is asked again until the wall clock agrees. A step is short
        // enough that a wall clock set forward is noticed.
        loop {
            let left = moment.since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }

    /// On the monotonic clock: setting the wall clock back does not stretch a pause.
    async fn sleep(&self, length: Duration) {
        tokio::time::sleep(length).await;
    }

    fn chance(&self) -> Chance {
        Chance::new(fastrand::f64())
    }
}

/// The clock of a running host: the wall clock, but never back.
///
/// A wall clock set forward is followed. One set back is not, for as long as the host runs: it goes on at the pace of
/// the monotonic clock, so that a retry meant to come in a second comes in a second, however wrong the clock was when it
/// was meant. What was scheduled by a clock that ran ahead waits for the true one only once the host is started anew.
#[derive(Debug)]
pub struct SteadyClock {
    started: Stopwatch,
    /// The wall clock at the start, in nanoseconds since the epoch, by the furthest it has since been ahead.
    begun: AtomicU64,
}

impl SteadyClock {
    /// A clock that shows what the machine's shows now.
    pub fn start() -> Self {
        let clock = Self { started: Stopwatch::start(), begun: AtomicU64::new(0) };
        // Two clocks are read, one after the other: the best of a few readings leaves nothing to catch up on.
        for _ in 0..16 {
            clock.now();
        }
        clock
    }

    /// The time, when the wall clock shows `wall` and so much has passed since the start (read in this order).
    fn read(&self, wall: Duration, since_start: Duration) -> Timestamp {
        let nanos = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let (begun, passed) = (nanos(wall.saturating_sub(since_start)), nanos(since_start));
        let mut furthest = self.begun.load(Ordering::Relaxed);
        if begun > furthest {
            furthest = self.begun.fetch_max(begun, Ordering::Relaxed).max(begun);
        }
        Timestamp::from_millis(furthest.saturating_add(passed) / 1_000_000)
    }
}

#[async_trait]
impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let wall = since_epoch();
        self.read(wall, self.started.elapsed())
    }

    async fn sleep_until(&self, moment: Timestamp) {
        // A step is short enough that a wall clock set forward is noticed.
        loop {
            let left = moment.since(self.now());
            if left.is_zero() {
                return;
            }
            SystemClock.sleep(left.min(Duration::from_secs(1))).await;
        }
    }

    async fn sleep(&self, length: Duration) {
        SystemClock.sleep(length).await;
    }

    fn chance(&self) -> Chance {
        SystemClock.chance()
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place where the ambient clock is read")]
fn since_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// How long something took, for latencies: monotonic, so it cannot run backwards.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "latencies are measured on the monotonic clock, here only")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that a test drives: time stands still until everything waits, and then jumps to the next moment anybody
/// waits for. A day of retries takes milliseconds.
#[cfg(test)]
pub(crate) mod driven {
    use std::sync::{Mutex, PoisonError};

    use tokio::sync::oneshot;

    use super::{Chance, Clock, Duration, Timestamp, async_trait};

    /// When the clock starts.
    pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    /// The clock. For one-threaded runtimes, and tasks that wait only for it and for one another.
    pub(crate) struct DrivenClock(Mutex<Driven>);

    struct Driven {
        now: Timestamp,
        sleepers: Vec<(Timestamp, oneshot::Sender<()>)>,
        chance: f64,
    }

    impl DrivenClock {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(Driven { now: START, sleepers: Vec::new(), chance: 0.5 }))
        }

        /// Lets time pass until `done` holds.
        ///
        /// Panics when nobody waits for anything any more, or after 10,000 jumps.
        pub(crate) async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
            for _ in 0..10_000 {
                // Every task that can go on does, before time does.
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
                if done() {
                    return;
                }
                let mut driven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                driven.sleepers.retain(|(_, sleeper)| !sleeper.is_closed());
                let Some(next) = driven.sleepers.iter().map(|(moment, _)| *moment).min() else {
                    panic!("nobody waits for anything any more, and still not: {what}");
                };
                driven.now = driven.now.max(next);
                let now = driven.now;
                let (due, later) = driven.sleepers.drain(..).partition(|(moment, _)| *moment <= now);
                driven.sleepers = later;
                for (_, sleeper) in due {
                    let _ = sleeper.send(());
                }
            }
            panic!("a long time has passed, and still not: {what}");
        }

        /// Lets `length` pass.
        pub(crate) async fn pass(&self, length: Duration) {
            let until = self.now().after(length);
            let reached = self.sleep_until(until);
            tokio::pin!(reached);
            let mut over = false;
            while !over {
                tokio::select! {
                    biased;
                    () = &mut reached => over = true,
                    () = self.until("time passes", || self.now() >= until) => {}
                }
            }
        }
    }

    #[async_trait]
    impl Clock for DrivenClock {
        fn now(&self) -> Timestamp {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).now
        }

        async fn sleep_until(&self, moment: Timestamp) {
            let woken = {
                let mut driven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if driven.now >= moment {
                    return;
                }
                let (sleeper, woken) = oneshot::channel();
                driven.sleepers.push((moment, sleeper));
                woken
            };
            let _ = woken.await;
        }

        fn chance(&self) -> Chance {
            Chance::new(self.0.lock().unwrap_or_else(PoisonError::into_inner).chance)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_wall_clock_set_forward_is_followed_and_one_set_back_is_not() {
        let clock = SteadyClock { started: Stopwatch::start(), begun: AtomicU64::new(0) };
        let shown = [(1000, 0), (1001, 1), (4602, 2), (1003, 3), (1004, 4), (9000, 5)]
            .map(|(wall, passed)| clock.read(secs(wall), secs(passed)).as_millis() / 1000);
        assert_eq!(shown, [1000, 1001, 4602, 4603, 4604, 9000]);
    }

    proptest! {
        #[test]
        fn a_steady_clock_takes_no_longer_than_the_monotonic_one_and_never_goes_back(
            readings in prop::collection::vec((0_u64..1 << 40, 0_u64..1 << 30), 1..20)
        ) {
            let clock = SteadyClock { started: Stopwatch::start(), begun: AtomicU64::new(0) };
            let (mut passed, mut before) = (Duration::ZERO, clock.read(Duration::ZERO, Duration::ZERO));
            for (wall, step) in readings {
                passed += Duration::from_millis(step);
                let now = clock.read(Duration::from_millis(wall), passed);
                prop_assert!(now >= before.after(Duration::from_millis(step)), "{before:?} and {step} ms, and still {now:?}");
                before = now;
            }
        }
    }
}
