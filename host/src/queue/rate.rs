//! A rate, kept by the generic cell rate algorithm. Pure: it is told the time.
//!
//! A rate of `r` a second with a burst of `b` lets at most `b + r·t` attempts begin in any time `t`. What is claimed is
//! reserved first and counted when it begins, so that what is claimed never has to be put back, and what was reserved
//! in vain is free again.

use crate::clock::Timestamp;
use crate::config::Rate;

/// How attempts that have begun weigh on those to come. Times are in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rate: Rate,
    /// The time from one attempt to the next, rounded up.
    interval: u128,
    /// When, at an even pace, the attempt after all that have begun is due.
    even: u128,
    /// Attempts that may begin and have not yet.
    reserved: u128,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, interval: (1e9 / rate.per_second).ceil() as u128, even: 0, reserved: 0 }
    }

    /// What it keeps to.
    pub(super) const fn rate(&self) -> Rate {
        self.rate
    }

    /// Reserves the right to begin up to `most` attempts; answers how many.
    pub(super) fn reserve(&mut self, most: usize, now: Timestamp) -> usize {
        let ahead = self.even(now) - nanos(now);
        let free = (self.tolerance().saturating_sub(ahead) / self.interval.max(1)).saturating_sub(self.reserved);
        let reserved = usize::try_from(free).unwrap_or(usize::MAX).min(most);
        self.reserved += reserved as u128;
        reserved
    }

    /// A reserved attempt begins.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.even = self.even(now) + self.interval;
        self.give_back();
    }

    /// A reserved attempt is not made.
    pub(super) const fn give_back(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// When one more attempt may be reserved, if all that are reserved begin now.
    pub(super) fn next(&self, now: Timestamp) -> Timestamp {
        let after = self.even(now) + (self.reserved + 1) * self.interval;
        let millis = after.saturating_sub(self.tolerance()).div_ceil(1_000_000);
        now.max(Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    /// When the next attempt is due at an even pace, from `now` on. It is never further ahead than the burst reaches,
    /// unless the clock was set back: then the burst is used up, and no more.
    fn even(&self, now: Timestamp) -> u128 {
        self.even.clamp(nanos(now), nanos(now) + self.tolerance())
    }

    fn tolerance(&self) -> u128 {
        self.interval * u128::from(self.rate.burst)
    }
}

fn nanos(moment: Timestamp) -> u128 {
    u128::from(moment.as_millis()) * 1_000_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1_700_000_000_000;

    #[derive(Clone, Debug)]
    enum Act {
        Pass(u64),
        Reserve(usize),
        Begin,
        GiveBack,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            (0..300_u64).prop_map(Act::Pass),
            (1..8_usize).prop_map(Act::Reserve),
            Just(Act::Begin),
            Just(Act::Begin),
            Just(Act::GiveBack),
        ];
        proptest::collection::vec(act, 0..200)
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate_in_any_window(
            acts in acts(), per_second in 0.5..200.0_f64, burst in 1..20_u32
        ) {
            let mut pace = Pace::new(Rate { per_second, burst });
            let (mut now, mut reserved, mut begun) = (START, 0, Vec::new());
            for act in acts {
                let moment = Timestamp::from_millis(now);
                match act {
                    Act::Pass(length) => now += length,
                    Act::Reserve(most) => reserved += pace.reserve(most, moment),
                    Act::Begin if reserved > 0 => {
                        reserved -= 1;
                        pace.begin(moment);
                        begun.push(now);
                    }
                    Act::GiveBack if reserved > 0 => {
                        reserved -= 1;
                        pace.give_back();
                    }
                    Act::Begin | Act::GiveBack => {}
                }
            }
            for (first, from) in begun.iter().enumerate() {
                for (last, to) in begun.iter().enumerate().skip(first) {
                    let most = f64::from(burst) + per_second * (to - from) as f64 / 1000.0;
                    prop_assert!((last - first + 1) as f64 <= most + 1e-6, "{begun:?}");
                }
            }
        }

        #[test]
        fn whoever_comes_when_told_to_may_begin_and_no_sooner(
            per_second in 0.01..2000.0_f64, burst in 1..20_u32, count in 1..60
        ) {
            let mut pace = Pace::new(Rate { per_second, burst });
            let mut now = Timestamp::from_millis(START);
            for _ in 0..count {
                let next = pace.next(now);
                if next > now {
                    let before = Timestamp::from_millis(next.as_millis() - 1);
                    prop_assert_eq!(pace.reserve(1, before.max(now)), 0);
                }
                prop_assert_eq!(pace.reserve(1, next), 1);
                pace.begin(next);
                now = next;
            }
            let seconds = (now.as_millis() - START) as f64 / 1000.0;
            // Each may have waited for the end of its millisecond.
            prop_assert!(seconds <= f64::from(count) * (1.0 / per_second + 0.001), "{count} took {seconds} s");
        }
    }

    #[test]
    fn a_clock_set_back_costs_no_more_than_the_burst() {
        let mut pace = Pace::new(Rate { per_second: 10.0, burst: 5 });
        let (later, earlier) = (Timestamp::from_millis(START + 3_600_000), Timestamp::from_millis(START));
        assert_eq!(pace.reserve(1, later), 1);
        pace.begin(later);
        let next = pace.next(earlier).since(earlier).as_millis();
        assert!(next <= 100, "an hour back, and the next may begin in {next} ms");
    }
}
