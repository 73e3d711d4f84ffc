//! Places: a number of them that can be changed while they are taken.
//!
//! A semaphore whose size follows the configuration. Where it shrinks below what is taken, the difference is owed: so
//! many of the places that come back are given to nobody, and never are more taken than before the change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// A number of places, first come, first served.
#[derive(Debug)]
pub(super) struct Places {
    free: Semaphore,
    size: Mutex<Size>,
}

#[derive(Debug)]
struct Size {
    /// Places there are to be.
    whole: usize,
    /// Places still taken beyond that.
    owed: usize,
}

/// A place taken. It comes back when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// So many places, all free.
    pub(super) fn new(whole: usize) -> Arc<Self> {
        Arc::new(Self { free: Semaphore::new(whole), size: Mutex::new(Size { whole, owed: 0 }) })
    }

    /// A place, if one is free.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Place> {
        self.free.try_acquire().ok()?.forget();
        Some(Place(Arc::clone(self)))
    }

    /// Whether every place is taken.
    pub(super) fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// A place, once it is this caller's turn. `None` never comes: places are not closed.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Place> {
        self.free.acquire().await.ok()?.forget();
        Some(Place(Arc::clone(self)))
    }

    /// Changes how many places there are. Those taken stay with who has them.
    pub(super) fn resize(&self, whole: usize) {
        let mut size = self.size();
        let more = whole.saturating_sub(size.whole);
        let paid = more.min(size.owed);
        size.owed -= paid;
        self.free.add_permits(more - paid);
        let fewer = size.whole.saturating_sub(whole);
        size.owed += fewer - self.free.forget_permits(fewer);
        size.whole = whole;
    }

    fn size(&self) -> MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut size = self.0.size();
        match size.owed.checked_sub(1) {
            Some(left) => size.owed = left,
            None => self.0.free.add_permits(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Take,
        GiveBack,
        Resize(usize),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![Just(Act::Take), Just(Act::GiveBack), (1..8_usize).prop_map(Act::Resize)];
        proptest::collection::vec(act, 0..60)
    }

    proptest! {
        #[test]
        fn a_place_is_given_exactly_when_fewer_are_taken_than_there_are(acts in acts()) {
            let places = Places::new(4);
            let (mut whole, mut taken) = (4, Vec::new());
            for act in acts {
                match act {
                    Act::Take => {
                        let place = places.try_take();
                        prop_assert_eq!(place.is_some(), taken.len() < whole);
                        taken.extend(place);
                    }
                    Act::GiveBack => drop(taken.pop()),
                    Act::Resize(to) => {
                        places.resize(to);
                        whole = to;
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn who_waits_gets_a_place_that_is_added() {
        let places = Places::new(1);
        let first = places.try_take();
        let (second, ()) = tokio::join!(places.take(), async { places.resize(2) });
        assert!(first.is_some() && second.is_some() && places.try_take().is_none());
    }
}
