//! When each route is to be looked at for half messages to ask about: hints, no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::message::RouteName;

/// When routes are to be looked at. It holds at most one moment for each route.
#[derive(Debug, Default)]
pub struct Agenda {
    looks: Mutex<BTreeMap<RouteName, Timestamp>>,
    news: Notify,
}

impl Agenda {
    /// Has `route` looked at by then.
    pub fn expect(&self, route: &RouteName, due: Timestamp) {
        let mut looks = self.looks();
        let earliest = looks.values().min().copied();
        let look = looks.entry(route.clone()).or_insert(due);
        *look = due.min(*look);
        if earliest.is_none_or(|earliest| due < earliest) {
            self.news.notify_one();
        }
    }

    /// The routes that are to be looked at by now: they are off the list.
    pub(super) fn take_due(&self, now: Timestamp) -> BTreeSet<RouteName> {
        let mut due = BTreeSet::new();
        self.looks().retain(|route, look| *look > now || !due.insert(route.clone()));
        due
    }

    /// When the next look is.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.looks().values().min().copied()
    }

    /// Completes when the next look is sooner than [`Agenda::next`] said, or was since.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    fn looks(&self) -> MutexGuard<'_, BTreeMap<RouteName, Timestamp>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_route_is_looked_at_once_at_the_earliest_moment_that_was_said() {
        let (agenda, at) = (Agenda::default(), Timestamp::from_millis);
        let route = |name| RouteName::new(name).expect("a good name");
        agenda.expect(&route("orders"), at(30));
        agenda.expect(&route("orders"), at(20));
        agenda.expect(&route("orders"), at(40));
        agenda.expect(&route("parcels"), at(25));
        assert_eq!(agenda.next(), Some(at(20)));
        assert!(agenda.take_due(at(19)).is_empty());
        assert_eq!(agenda.take_due(at(20)), BTreeSet::from([route("orders")]));
        assert_eq!(agenda.take_due(at(50)), BTreeSet::from([route("parcels")]));
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn only_what_comes_sooner_is_news() {
        let (agenda, at) = (Agenda::default(), Timestamp::from_millis);
        let route = RouteName::new("orders").expect("a good name");
        agenda.expect(&route, at(20));
        assert!(agenda.news().now_or_never().is_some());
        agenda.expect(&route, at(30));
        assert!(agenda.news().now_or_never().is_none());
        agenda.expect(&route, at(10));
        assert!(agenda.news().now_or_never().is_some());
    }
}
