//! The agenda: when each lane is to be looked at next, soonest first.
//!
//! It is what keeps a wake-up from asking every lane of a thousand. It holds hints, no truth: a lane looked at in vain
//! costs one look, and a lane that was forgotten is found by the next scan.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::message::RouteName;

/// At most one entry for each lane.
#[derive(Default, Debug)]
pub(super) struct Agenda {
    entries: Mutex<Entries>,
    news: Notify,
}

#[derive(Default, Debug)]
struct Entries {
    soonest: BTreeSet<(Timestamp, RouteName)>,
    by_route: HashMap<RouteName, Timestamp>,
}

impl Agenda {
    /// Has the lane of `route` looked at no later than `when`.
    pub(super) fn put(&self, route: &RouteName, when: Timestamp) {
        let mut entries = self.entries();
        match entries.by_route.get(route).copied() {
            Some(known) if known <= when => return,
            Some(known) => {
                entries.soonest.remove(&(known, route.clone()));
            }
            None => {}
        }
        entries.by_route.insert(route.clone(), when);
        entries.soonest.insert((when, route.clone()));
        let is_next = entries.soonest.first().is_some_and(|(_, first)| first == route);
        drop(entries);
        if is_next {
            self.news.notify_one();
        }
    }

    /// Completes when [`Agenda::next`] may have come nearer since it was last asked.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Takes out every lane that is to be looked at by `now`, the one that has waited longest first.
    pub(super) fn take_due(&self, now: Timestamp) -> Vec<RouteName> {
        let mut entries = self.entries();
        let mut due = Vec::new();
        while entries.soonest.first().is_some_and(|(when, _)| *when <= now) {
            let Some((_, route)) = entries.soonest.pop_first() else { break };
            entries.by_route.remove(&route);
            due.push(route);
        }
        due
    }

    /// When the next lane is to be looked at.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.entries().soonest.first().map(|(when, _)| *when)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_stands_there_once_at_its_soonest() {
        let at = Timestamp::from_millis;
        let (a, b) = (RouteName::new("a").unwrap(), RouteName::new("b").unwrap());
        let agenda = Agenda::default();
        agenda.put(&a, at(30));
        agenda.put(&b, at(20));
        agenda.put(&a, at(10));
        agenda.put(&a, at(40));
        assert_eq!(agenda.next(), Some(at(10)));
        assert_eq!(agenda.take_due(at(9)), []);
        assert_eq!(agenda.take_due(at(20)), [a, b]);
        assert_eq!(agenda.next(), None, "what was taken out is gone");
    }
}
