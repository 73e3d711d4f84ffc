//! Counting over a sliding window. Pure: it is told the time.

use std::time::Duration;

use crate::clock::Timestamp;

/// How many things happened, and how many of them were marked.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// All of them.
    pub all: u64,
    /// Those marked: failed, or retried.
    pub marked: u64,
}

/// Counts over a window that is kept in `PARTS` parts, so that it takes the same memory whatever the traffic. What
/// happened leaves the window a part at a time.
#[derive(Clone, Debug)]
pub struct Window<const PARTS: usize> {
    /// Milliseconds to a part, at least 1.
    width: u64,
    parts: [Counts; PARTS],
    /// The number of the newest part: its moment divided by `width`.
    newest: u64,
    /// The sum of all parts.
    total: Counts,
}

impl<const PARTS: usize> Window<PARTS> {
    /// An empty window, each part of which is `width` long, rounded up to a millisecond.
    pub fn new(width: Duration) -> Self {
        let width = u64::try_from(width.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
        Self { width, parts: [Counts::default(); PARTS], newest: 0, total: Counts::default() }
    }

    /// Counts something that happens `now`, and answers what the window then holds.
    pub fn count(&mut self, now: Timestamp, marked: bool) -> Counts {
        self.slide_to(now);
        // Something a little out of order counts as now; `slide_to` has seen to larger steps.
        let slot = self.slot(self.newest);
        if let Some(part) = self.parts.get_mut(slot) {
            for counts in [part, &mut self.total] {
                counts.all += 1;
                counts.marked += u64::from(marked);
            }
        }
        self.total
    }

    /// What the window holds `now`.
    pub fn read(&mut self, now: Timestamp) -> Counts {
        self.slide_to(now);
        self.total
    }

    /// What it held when it was last counted to or read.
    pub const fn last_read(&self) -> Counts {
        self.total
    }

    /// The first moment, from when it was last read, at which what it holds will be as `wanted`, if nothing happens
    /// until then. None when it is not even when the window is empty.
    pub fn when(&self, wanted: impl Fn(Counts) -> bool) -> Option<Timestamp> {
        let mut left = self.total;
        for step in 0..=PARTS as u64 {
            if wanted(left) {
                return Some(Timestamp::from_millis((self.newest + step).saturating_mul(self.width)));
            }
            // The part that the next newest one takes the place of.
            if let Some(part) = self.parts.get(self.slot(self.newest + step + 1)) {
                left.all = left.all.saturating_sub(part.all);
                left.marked = left.marked.saturating_sub(part.marked);
            }
        }
        None
    }

    /// Moves the window on to `now`. A clock set back by more than the window empties it: what it holds would otherwise
    /// stay until the clock has caught up.
    fn slide_to(&mut self, now: Timestamp) {
        let number = now.as_millis() / self.width;
        let ahead = number.saturating_sub(self.newest);
        if ahead >= PARTS as u64 || self.newest.saturating_sub(number) >= PARTS as u64 {
            self.parts = [Counts::default(); PARTS];
            self.total = Counts::default();
            self.newest = number;
            return;
        }
        for _ in 0..ahead {
            self.newest += 1;
            let slot = self.slot(self.newest);
            if let Some(part) = self.parts.get_mut(slot) {
                self.total.all -= part.all;
                self.total.marked -= part.marked;
                *part = Counts::default();
            }
        }
    }

    /// Where the part of that number is kept.
    fn slot(&self, number: u64) -> usize {
        usize::try_from(number % PARTS.max(1) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_happened_in_the_window_and_nothing_older_than_a_part_more(
            steps in proptest::collection::vec((0..40_u64, any::<bool>()), 1..100)
        ) {
            let (mut window, mut happened, mut now) = (Window::<11>::new(Duration::from_millis(10)), Vec::new(), 5_000);
            for (step, marked) in steps {
                now += step;
                happened.push((now, marked));
                let held = window.count(Timestamp::from_millis(now), marked);
                let within = |length: u64, only_marked: bool| {
                    let recent = happened.iter().filter(|(at, marked)| now - at < length && (*marked || !only_marked));
                    recent.count() as u64
                };
                prop_assert!((within(100, false)..=within(110, false)).contains(&held.all));
                prop_assert!((within(100, true)..=within(110, true)).contains(&held.marked));
                let empty = window.when(|counts| counts.all == 0).unwrap();
                let at = |millis| Timestamp::from_millis(millis);
                prop_assert!(window.clone().read(at(empty.as_millis() - 1)).all > 0);
                prop_assert_eq!(window.clone().read(empty).all, 0);
            }
        }
    }
}
