//! The route table: what the ingress, the attempts and the admin API look routes up in, while the host serves.
//!
//! Reading it takes no lock, and sees one table as a whole: a reload puts another in its place in one step. It decides
//! nothing about messages; what became of the messages of a route that is not served any more is the queue's to say
//! (they stay where they are, until the route is back).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Route;
use crate::message::RouteName;

/// Routes by name, those that are disabled included.
pub type Table = BTreeMap<RouteName, Arc<Route>>;

/// The routes of the running host.
pub struct Routes(ArcSwap<Table>);

/// How a route stands with this host.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It takes messages in and delivers them.
    Served(Arc<Route>),
    /// It is configured with `enabled: false`: its messages are parked.
    Disabled,
    /// The configuration does not name it: its messages, if there are any, are parked.
    Unknown,
}

impl Standing {
    /// Why messages of a route that stands like this are parked; none when they are not.
    pub const fn parks(&self) -> Option<&'static str> {
        match self {
            Self::Served(_) => None,
            Self::Disabled => Some("its route is disabled (`enabled: false`)"),
            Self::Unknown => Some("its route is not configured"),
        }
    }
}

impl Routes {
    /// These routes.
    pub fn new(table: Table) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    /// How the route by this name stands.
    pub fn standing(&self, name: &str) -> Standing {
        match self.0.load().get(name) {
            Some(route) if route.enabled => Standing::Served(Arc::clone(route)),
            Some(_) => Standing::Disabled,
            None => Standing::Unknown,
        }
    }

    /// The route by this name, if it is served.
    pub fn served(&self, name: &str) -> Option<Arc<Route>> {
        match self.standing(name) {
            Standing::Served(route) => Some(route),
            Standing::Disabled | Standing::Unknown => None,
        }
    }

    /// Whether the configuration names it, served or disabled.
    pub fn is_configured(&self, name: &str) -> bool {
        self.0.load().contains_key(name)
    }

    /// All of them, as they stand now.
    pub fn table(&self) -> Arc<Table> {
        self.0.load_full()
    }

    /// Puts another table in the place of this one.
    pub fn swap(&self, table: Arc<Table>) {
        self.0.store(table);
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.load().keys()).finish()
    }
}

/// The routes of a table that are served.
pub fn served(table: &Table) -> impl Iterator<Item = &Arc<Route>> {
    table.values().filter(|route| route.enabled)
}

/// What tells one table from the next: names, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Routes that are new.
    pub added: Vec<RouteName>,
    /// Routes of which something is different.
    pub changed: Vec<RouteName>,
    /// Routes that are gone.
    pub removed: Vec<RouteName>,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// The table that follows `old`: that of `new`, in which a route that did not change is the very one of before, so that
/// whoever holds on to it need not let go; and what changed.
pub fn follow(old: &Table, new: &Table) -> (Table, Changes) {
    let mut changes = Changes::default();
    let one = |(name, route): (&RouteName, &Arc<Route>)| {
        let next = match old.get(name) {
            Some(before) if before == route => before,
            Some(_) => {
                changes.changed.push(name.clone());
                route
            }
            None => {
                changes.added.push(name.clone());
                route
            }
        };
        (name.clone(), Arc::clone(next))
    };
    let table = new.iter().map(one).collect();
    changes.removed = old.keys().filter(|name| !new.contains_key(*name)).cloned().collect();
    (table, changes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dispatch::vendor::route_to;

    fn route(name: &str, concurrency: usize, enabled: bool) -> (RouteName, Arc<Route>) {
        let name = RouteName::new(name).expect("a good name");
        let route = Route { name: name.clone(), concurrency, enabled, ..route_to("http://vendor.test/") };
        (name, Arc::new(route))
    }

    #[test]
    fn a_route_is_served_disabled_or_unknown() {
        let routes = Routes::new(Table::from([route("on", 1, true), route("off", 1, false)]));
        assert!(matches!(routes.standing("on"), Standing::Served(_)) && routes.standing("on").parks().is_none());
        assert!(matches!(routes.standing("off"), Standing::Disabled) && routes.is_configured("off"));
        assert!(matches!(routes.standing("gone"), Standing::Unknown) && !routes.is_configured("gone"));
        assert!(routes.served("off").is_none());

        let (table, _) = follow(&routes.table(), &Table::from([route("off", 1, true)]));
        routes.swap(Arc::new(table));
        assert!(routes.served("off").is_some() && !routes.is_configured("on"));
    }

    proptest! {
        /// Whatever two tables hold, every name is in exactly one of: added, changed, removed, the same `Arc` as before.
        #[test]
        fn what_did_not_change_is_the_very_same_route(
            old in proptest::collection::btree_map("[a-d]", 1_usize..3, 0..4),
            new in proptest::collection::btree_map("[a-d]", 1_usize..3, 0..4),
        ) {
            let table = |of: &BTreeMap<String, usize>| -> Table {
                of.iter().map(|(name, concurrency)| route(name, *concurrency, true)).collect()
            };
            let (before, wanted) = (table(&old), table(&new));
            let (after, changes) = follow(&before, &wanted);
            prop_assert_eq!(&after, &wanted);
            for name in before.keys().chain(wanted.keys()) {
                let kept = before.get(name).zip(after.get(name)).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
                let listed = [&changes.added, &changes.changed, &changes.removed];
                let times = listed.iter().filter(|names| names.contains(name)).count();
                prop_assert_eq!(times, usize::from(!kept));
            }
            prop_assert_eq!(changes.is_empty(), old == new);
        }
    }
}
