//! An agenda: when each route is to be looked at next, soonest first. The queue has one for its lanes, the check-back
//! one for its half messages.
//!
//! It is what keeps a wake-up from asking every route of a thousand. It holds hints, no truth: a route looked at in vain
//! costs one look, and a route that was forgotten is found by the next scan.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::message::RouteName;

/// When routes are to be looked at: at most one moment for each.
#[derive(Default, Debug)]
pub struct Agenda {
    entries: Mutex<Entries>,
    news: Notify,
}

#[derive(Default, Debug)]
struct Entries {
    soonest: BTreeSet<(Timestamp, RouteName)>,
    by_route: HashMap<RouteName, Timestamp>,
}

impl Agenda {
    /// Has `route` looked at no later than `when`.
    pub fn put(&self, route: &RouteName, when: Timestamp) {
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
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Takes out every route that is to be looked at by `now`, the one that has waited longest first.
    pub(crate) fn take_due(&self, now: Timestamp) -> Vec<RouteName> {
        let mut entries = self.entries();
        let mut due = Vec::new();
        while entries.soonest.first().is_some_and(|(when, _)| *when <= now) {
            let Some((_, route)) = entries.soonest.pop_first() else { break };
            entries.by_route.remove(&route);
            due.push(route);
        }
        due
    }

    /// When the next route is to be looked at.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.entries().soonest.first().map(|(when, _)| *when)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

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

    #[test]
    fn a_route_is_looked_at_once_at_the_earliest_moment_that_was_said() {
        let (agenda, at) = (Agenda::default(), Timestamp::from_millis);
        let route = |name| RouteName::new(name).expect("a good name");
        agenda.put(&route("orders"), at(30));
        agenda.put(&route("orders"), at(20));
        agenda.put(&route("orders"), at(40));
        agenda.put(&route("parcels"), at(25));
        assert_eq!(agenda.next(), Some(at(20)));
        assert!(agenda.take_due(at(19)).is_empty());
        assert_eq!(agenda.take_due(at(20)), [route("orders")]);
        assert_eq!(agenda.take_due(at(50)), [route("parcels")]);
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn only_what_comes_sooner_is_news() {
        let (agenda, at) = (Agenda::default(), Timestamp::from_millis);
        let route = RouteName::new("orders").expect("a good name");
        agenda.put(&route, at(20));
        assert!(agenda.news().now_or_never().is_some());
        agenda.put(&route, at(30));
        assert!(agenda.news().now_or_never().is_none());
        agenda.put(&route, at(10));
        assert!(agenda.news().now_or_never().is_some());
    }
}
