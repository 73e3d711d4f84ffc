//! The share of failures over a sliding window, and whether that is an alarm. Pure: it is told the time.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::window::{Counts, Window};

/// Parts the window is counted in. An attempt therefore leaves the window up to a sixtieth of it late, and a meter takes
/// the same memory whatever the traffic.
pub const BUCKETS: usize = 60;

/// What the window holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Reading {
    /// Attempts in the window.
    pub requests: u64,
    /// The share of them that failed, 0 to 1; 0 when there are none.
    pub error_rate: f64,
}

/// An alarm began or ended.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Change {
    /// The share reached the threshold, with enough attempts to mean something.
    Fired(Reading),
    /// The share fell below half of the threshold, or the window emptied.
    Cleared(Reading),
}

/// Counts attempts over a sliding window and says when their failures become, or cease to be, an alarm.
#[derive(Clone, Debug)]
pub struct Meter {
    threshold: f64,
    min_requests: u64,
    window: Window<BUCKETS>,
    firing: bool,
}

impl Meter {
    /// A meter that fires at or above `error_rate` (0 to 1) with at least `min_requests` attempts in `window`.
    pub fn new(error_rate: f64, window: Duration, min_requests: u32) -> Self {
        Self {
            threshold: error_rate,
            min_requests: min_requests.max(1).into(),
            window: Window::new(window / BUCKETS as u32),
            firing: false,
        }
    }

    /// Counts an attempt that ended at `now`.
    pub fn record(&mut self, now: Timestamp, failed: bool) {
        self.window.count(now, failed);
    }

    /// What has changed by `now`. Each change is said once.
    pub fn evaluate(&mut self, now: Timestamp) -> Option<Change> {
        let held = self.window.read(now);
        let reading = self.reading();
        let over = held.marked > 0 && held.all >= self.min_requests && reading.error_rate >= self.threshold;
        let calm = held.all == 0 || reading.error_rate < self.threshold / 2.0;
        match self.firing {
            false if over => {
                self.firing = true;
                Some(Change::Fired(reading))
            }
            true if calm => {
                self.firing = false;
                Some(Change::Cleared(reading))
            }
            _ => None,
        }
    }

    /// What the window held when it was last recorded to or evaluated.
    pub fn reading(&self) -> Reading {
        let Counts { all: requests, marked: failures } = self.window.last_read();
        let error_rate = if requests == 0 { 0.0 } else { failures as f64 / requests as f64 };
        Reading { requests, error_rate }
    }

    /// Whether the alarm has fired and not cleared.
    pub const fn is_firing(&self) -> bool {
        self.firing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(600);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    /// Fires at 20 % of at least 10 attempts within 600 ms.
    fn meter() -> Meter {
        Meter::new(0.2, WINDOW, 10)
    }

    fn record(meter: &mut Meter, now: u64, failures: usize, successes: usize) {
        (0..failures).for_each(|_| meter.record(at(now), true));
        (0..successes).for_each(|_| meter.record(at(now), false));
    }

    #[test]
    fn it_fires_at_the_threshold_and_says_so_once() {
        let mut meter = meter();
        record(&mut meter, 0, 1, 8);
        assert_eq!(meter.evaluate(at(0)), None, "11 % of 9");
        record(&mut meter, 1, 1, 0);
        let Some(Change::Fired(reading)) = meter.evaluate(at(1)) else { panic!("20 % of 10") };
        assert_eq!(reading, Reading { requests: 10, error_rate: 0.2 });
        record(&mut meter, 2, 5, 0);
        assert_eq!(meter.evaluate(at(2)), None);
        assert!(meter.is_firing());
    }

    #[test]
    fn too_few_attempts_mean_nothing() {
        let mut meter = meter();
        record(&mut meter, 0, 9, 0);
        assert_eq!(meter.evaluate(at(0)), None);
    }

    #[test]
    fn it_clears_below_half_of_the_threshold_and_not_before() {
        let mut meter = meter();
        record(&mut meter, 0, 2, 8);
        assert!(matches!(meter.evaluate(at(0)), Some(Change::Fired(_))));
        record(&mut meter, 1, 0, 10);
        assert_eq!(meter.evaluate(at(1)), None, "10 % is half, not below it");
        record(&mut meter, 2, 0, 1);
        assert!(matches!(meter.evaluate(at(2)), Some(Change::Cleared(_))));
        assert_eq!(meter.evaluate(at(2)), None);
    }

    #[test]
    fn it_clears_when_the_window_has_emptied() {
        let mut meter = meter();
        record(&mut meter, 5, 10, 0);
        assert!(matches!(meter.evaluate(at(5)), Some(Change::Fired(_))));
        assert_eq!(meter.evaluate(at(599)), None, "all of them are still in the window");
        assert_eq!(meter.evaluate(at(611)), Some(Change::Cleared(Reading { requests: 0, error_rate: 0.0 })));
    }

    #[test]
    fn it_can_fire_again() {
        let mut meter = meter();
        for start in [0, 10_000, 20_000] {
            record(&mut meter, start, 10, 0);
            assert!(matches!(meter.evaluate(at(start)), Some(Change::Fired(_))));
            assert!(matches!(meter.evaluate(at(start + 5_000)), Some(Change::Cleared(_))));
        }
    }

    #[test]
    fn a_clock_set_back_a_little_loses_nothing_and_by_hours_starts_anew() {
        let mut meter = meter();
        record(&mut meter, 500_000, 5, 0);
        record(&mut meter, 499_900, 5, 0);
        assert_eq!(meter.reading().requests, 10);
        record(&mut meter, 0, 1, 0);
        assert_eq!(meter.reading().requests, 1);
    }

    #[test]
    fn windows_and_rates_beyond_reason_do_no_harm() {
        for (rate, window) in [(0.0, Duration::ZERO), (1.0, Duration::MAX), (f64::NAN, Duration::from_nanos(1))] {
            let mut meter = Meter::new(rate, window, 0);
            for now in [0, 1, u64::MAX, 0] {
                meter.record(Timestamp::from_millis(now), now == 1);
                meter.evaluate(Timestamp::from_millis(now));
            }
        }
    }

    proptest! {
        /// Against a meter that remembers every attempt.
        #[test]
        fn it_counts_as_one_that_remembers_everything(
            steps in proptest::collection::vec((0u64..400, any::<bool>()), 1..300),
        ) {
            let mut meter = meter();
            let width = 10;
            let mut all = Vec::new();
            let mut now = 1_000_000;
            let mut firing = false;
            for (step, failed) in steps {
                now += step / 4;
                all.push((now, failed));
                meter.record(Timestamp::from_millis(now), failed);
                let change = meter.evaluate(Timestamp::from_millis(now));

                let inside: Vec<bool> = all
                    .iter()
                    .filter(|(moment, _)| now / width - moment / width < BUCKETS as u64)
                    .map(|(_, failed)| *failed)
                    .collect();
                let failures = inside.iter().filter(|failed| **failed).count();
                let rate = failures as f64 / inside.len() as f64;
                prop_assert_eq!(meter.reading(), Reading { requests: inside.len() as u64, error_rate: rate });
                match change {
                    Some(Change::Fired(_)) => {
                        prop_assert!(!firing && inside.len() >= 10 && rate >= 0.2);
                        firing = true;
                    }
                    Some(Change::Cleared(_)) => {
                        prop_assert!(firing && rate < 0.1);
                        firing = false;
                    }
                    None if firing => prop_assert!(rate >= 0.1),
                    None => prop_assert!(inside.len() < 10 || rate < 0.2),
                }
            }
        }
    }
}
