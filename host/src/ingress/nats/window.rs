//! How many messages are asked for: never so many that more than `prefetch` could be outstanding.
//!
//! Pure accounting; the subscription does the asking.

/// What has been asked for and has not come yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    prefetch: usize,
    requested: usize,
}

impl Window {
    pub(super) fn new(prefetch: u16) -> Self {
        Self { prefetch: prefetch.into(), requested: 0 }
    }

    /// How many to ask for now, while `working` are being worked on; none: nothing.
    ///
    /// What is free is asked for once it is a quarter of all, or when nothing is asked for: then few requests are open
    /// at once, and none of the free places waits for long.
    pub(super) fn wanted(&self, working: usize) -> Option<usize> {
        let free = self.prefetch.saturating_sub(self.requested).saturating_sub(working);
        let enough = if self.requested == 0 { 1 } else { self.prefetch.div_ceil(4) };
        (free >= enough).then_some(free)
    }

    /// So many were asked for.
    pub(super) fn asked(&mut self, batch: usize) {
        self.requested = self.requested.saturating_add(batch);
    }

    /// One has come.
    pub(super) fn came(&mut self) {
        self.requested = self.requested.saturating_sub(1);
    }

    /// A request ended with so many of its messages not delivered.
    pub(super) fn ended(&mut self, undelivered: usize) {
        self.requested = self.requested.saturating_sub(undelivered);
    }

    /// Whether the server is expected to say something.
    pub(super) fn expects(&self) -> bool {
        self.requested > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask,
        Come,
        Finish,
        End(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![Just(Step::Ask), Just(Step::Come), Just(Step::Finish), (0_usize..50).prop_map(Step::End)]
    }

    proptest! {
        #[test]
        fn never_more_than_prefetch_are_outstanding_and_an_idle_window_asks(
            prefetch in 1_u16..=1000, steps in prop::collection::vec(step(), 0..200)
        ) {
            let mut window = Window::new(prefetch);
            let mut working = 0_usize;
            for step in steps {
                match step {
                    Step::Ask => if let Some(batch) = window.wanted(working) { window.asked(batch) },
                    Step::Come => if window.expects() { window.came(); working += 1 },
                    Step::Finish => working = working.saturating_sub(1),
                    Step::End(undelivered) => window.ended(undelivered),
                }
                prop_assert!(window.requested + working <= usize::from(prefetch));
                if !window.expects() && working < usize::from(prefetch) {
                    prop_assert!(window.wanted(working).is_some());
                }
            }
        }
    }
}
