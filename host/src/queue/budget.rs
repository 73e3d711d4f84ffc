//! The retry budget: how many retries a route makes, beside its first attempts. Pure: it is told the time.
//!
//! Backoff bounds how often one message is retried; a thousand messages that fail at once are still a thousand retries.
//! The budget bounds the sum. `tower`'s `TpsBudget` does the same but reads the clock itself and knows no *when*; here
//! a retry is withheld, not refused, and somebody must know when to come again.

use crate::clock::Timestamp;
use crate::config::RetryBudget;
use crate::window::{Counts, Window};

/// Parts the window is counted in, one more than make it up: no retry leaves it early.
const PARTS: usize = 11;

/// A route's retry budget.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    settings: RetryBudget,
    /// Attempts; those marked are retries.
    made: Window<PARTS>,
    /// Retries that may begin and have not yet.
    reserved: u64,
}

impl Budget {
    pub(super) fn new(settings: RetryBudget) -> Self {
        Self { settings, made: Window::new(settings.window / (PARTS as u32 - 1)), reserved: 0 }
    }

    /// How it is set.
    pub(super) const fn settings(&self) -> RetryBudget {
        self.settings
    }

    /// How many retries may begin `now`.
    pub(super) fn left(&mut self, now: Timestamp) -> u64 {
        let made = self.made.read(now);
        self.left_of(made)
    }

    /// How many might begin when it was last asked or counted to, by what has been reserved and given back since.
    pub(super) fn left_as_last_read(&self) -> u64 {
        self.left_of(self.made.last_read())
    }

    /// Reserves the right to begin up to `most` retries; answers how many.
    pub(super) fn reserve(&mut self, most: usize, now: Timestamp) -> usize {
        let reserved = usize::try_from(self.left(now)).unwrap_or(usize::MAX).min(most);
        self.reserved += reserved as u64;
        reserved
    }

    /// A reserved retry will not be made, or is counted now.
    pub(super) const fn give_back(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// An attempt begins.
    pub(super) fn count(&mut self, is_retry: bool, now: Timestamp) {
        self.made.count(now, is_retry);
    }

    /// When a retry may begin even if no first attempt is made until then.
    pub(super) fn next(&mut self, now: Timestamp) -> Timestamp {
        self.made.read(now);
        let next = self.made.when(|made| self.left_of(made) > 0);
        next.unwrap_or_else(|| now.after(self.settings.window)).max(now)
    }

    fn left_of(&self, made: Counts) -> u64 {
        let first = made.all.saturating_sub(made.marked);
        let reserve = f64::from(self.settings.reserve) * self.settings.window.as_secs_f64();
        // The small sum is for shares that a float has no exact form of: 5 × 0.2 is one retry.
        let allowed = (reserve + self.settings.share * first as f64 + 1e-9).floor() as u64;
        allowed.saturating_sub(made.marked.saturating_add(self.reserved))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn five_first_attempts_pay_for_one_retry() {
        let mut budget = Budget::new(RetryBudget { share: 0.2, reserve: 1, window: Duration::from_secs(1) });
        assert_eq!(budget.reserve(9, at(0)), 1, "the reserve");
        for paid in 0..4 {
            for _ in 0..5 {
                assert_eq!(budget.left(at(paid)), 0);
                budget.count(false, at(paid));
            }
            assert_eq!(budget.reserve(9, at(paid)), 1);
        }
        budget.give_back();
        assert_eq!(budget.left(at(9)), 1, "what was reserved in vain is there again");
    }

    proptest! {
        #[test]
        fn retries_never_exceed_the_reserve_and_their_share_and_are_never_withheld_for_ever(
            steps in proptest::collection::vec((0..400_u64, any::<bool>()), 1..300)
        ) {
            let settings = RetryBudget { share: 0.2, reserve: 2, window: Duration::from_secs(2) };
            let (mut budget, mut now, mut made) = (Budget::new(settings), 0, Vec::new());
            for (step, is_retry) in steps {
                now += step;
                if is_retry && budget.left(at(now)) == 0 {
                    let next = budget.next(at(now));
                    prop_assert!(next > at(now) && next <= at(now + 2_200));
                    prop_assert!(budget.clone().left(next) > 0, "it comes when it was told to");
                    continue;
                }
                budget.count(is_retry, at(now));
                made.push((now, is_retry));
                let within = |length: u64, retries: bool| {
                    made.iter().filter(|(at, retry)| now - at < length && *retry == retries).count() as f64
                };
                prop_assert!(!is_retry || within(2_000, true) <= 4.0 + 0.2 * within(2_200, false) + 1e-6);
            }
        }
    }
}
