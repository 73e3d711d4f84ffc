//! The lanes of all routes, which a reload of the configuration exchanges while attempts go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;

use super::agenda::Agenda;
use super::lane::{Lane, Standing};
use crate::config::Route;
use crate::message::RouteName;

/// Every lane, by route.
pub type ByRoute = BTreeMap<RouteName, Arc<Lane>>;

/// The lanes.
#[derive(Debug)]
pub struct Lanes {
    now: ArcSwap<ByRoute>,
    /// When each is to be looked at.
    pub(super) agenda: Arc<Agenda>,
    /// What lanes had taken on whose routes are gone, for as long as attempts on them are under way: a route that
    /// comes back meanwhile goes on with it.
    parted: Mutex<BTreeMap<RouteName, Weak<Standing>>>,
    /// Requests that the ingress serves at once.
    places: usize,
}

impl Lanes {
    /// No lanes, of an ingress that serves so many requests at once.
    fn none(places: usize) -> Self {
        Self { now: ArcSwap::default(), agenda: Arc::default(), parted: Mutex::default(), places }
    }

    /// The lane of `route`.
    pub(super) fn get(&self, route: &RouteName) -> Option<Arc<Lane>> {
        self.now.load().get(route).map(Arc::clone)
    }

    /// Every lane, as they are now.
    pub(super) fn all(&self) -> Arc<ByRoute> {
        self.now.load_full()
    }

    /// Lanes for exactly these routes. The lane of a route that has not changed stays what it is; a changed one goes
    /// on with what the lane before it had taken on; a new one has what `open` says of the store. Answers the routes
    /// whose lanes are new, which are to be looked at.
    pub(super) fn set<'a>(
        &self,
        routes: impl IntoIterator<Item = &'a Arc<Route>>,
        open: &BTreeMap<String, u64>,
    ) -> Vec<RouteName> {
        // Held until all is done: two reloads at once are one after the other.
        let mut parted = self.parted.lock().unwrap_or_else(PoisonError::into_inner);
        parted.retain(|_, standing| standing.strong_count() > 0);
        let before = self.now.load_full();
        let mut lanes = ByRoute::new();
        let mut new = Vec::new();
        for route in routes {
            let known = before.get(&route.name);
            if let Some(lane) = known.filter(|lane| Arc::ptr_eq(&lane.route, route) || lane.route == *route) {
                lanes.insert(route.name.clone(), Arc::clone(lane));
                continue;
            }
            let callers = self.callers(route);
            let standing = match known {
                Some(lane) => {
                    lane.retire();
                    Some(Arc::clone(lane.standing()))
                }
                None => parted.remove(&route.name).and_then(|standing| standing.upgrade()).inspect(|standing| {
                    standing.recount(open.get(route.name.as_str()).copied().unwrap_or(0));
                }),
            };
            let standing = match standing {
                Some(standing) => {
                    standing.set(route, callers);
                    standing
                }
                None => {
                    Standing::new(route, open.get(route.name.as_str()).copied().unwrap_or(0), callers, &self.agenda)
                }
            };
            lanes.insert(route.name.clone(), Arc::new(Lane::new(Arc::clone(route), standing)));
            new.push(route.name.clone());
        }
        for (name, lane) in before.iter().filter(|(name, _)| !lanes.contains_key(*name)) {
            lane.retire();
            parted.insert(name.clone(), Arc::downgrade(lane.standing()));
        }
        self.now.store(Arc::new(lanes));
        new
    }

    /// Callers that wait may take half of the places that the ingress has on one route, so that a destination that
    /// hangs leaves room for the others.
    fn callers(&self, route: &Route) -> usize {
        route.concurrency.saturating_mul(4).max(256).min(self.places.div_ceil(2))
    }
}

/// A lane for each of `routes`, with what waits in the store, of an ingress that has so many `places`.
pub fn lanes<'a>(
    routes: impl IntoIterator<Item = &'a Arc<Route>>,
    open: &BTreeMap<String, u64>,
    places: usize,
) -> Lanes {
    let lanes = Lanes::none(places);
    lanes.set(routes, open);
    lanes
}
