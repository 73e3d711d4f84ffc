//! Alarms: a route's share of failed attempts over a window, and what is said when it passes a threshold.
//!
//! The [`Meter`] decides, purely; [`Alarms`] carries out: one log line when an alarm fires and one when it clears, and
//! a notice to whom the route names. Nothing here holds up an attempt: recording one takes a lock for the time of a few
//! additions.

mod meter;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::config::{Alarm, Route};
use crate::dispatch::Notifier;
use crate::dispatch::notify::Notice;
use crate::message::RouteName;

pub use meter::{BUCKETS, Change, Meter, Reading};

#[cfg(test)]
mod tests;

/// How often alarms are looked at without traffic, so that they clear when the failures have left the window.
const TICK: Duration = Duration::from_secs(1);

/// An alarm as the admin API shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlarmStatus {
    /// The route it watches.
    pub route: RouteName,
    /// Whether it has fired and not cleared.
    pub firing: bool,
    /// When it last fired or cleared; none when it never has.
    #[serde(serialize_with = "readable")]
    pub since: Option<Timestamp>,
    /// The share of failed attempts in the window, 0 to 1.
    pub error_rate: f64,
    /// The share at or above which it fires; it clears below half of it.
    pub threshold: f64,
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// Attempts in the window.
    pub requests: u64,
}

/// A moment as people and their programs read it: RFC 3339.
fn readable<S: Serializer>(moment: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match moment {
        Some(moment) => serializer.collect_str(moment),
        None => serializer.serialize_none(),
    }
}

/// The alarms of all routes that have one.
#[derive(Debug)]
pub struct Alarms {
    by_route: ArcSwap<BTreeMap<RouteName, Watched>>,
    notifier: Notifier,
}

/// One route's alarm.
#[derive(Clone, Debug)]
struct Watched {
    route: Arc<Route>,
    rule: Alarm,
    /// Shared with the alarm that takes this one's place in a reload, if that measures the same.
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    meter: Meter,
    since: Option<Timestamp>,
}

impl Alarms {
    /// The alarms that `routes` name; routes without one cost nothing.
    pub fn new<'a>(routes: impl IntoIterator<Item = &'a Arc<Route>>, notifier: Notifier) -> Self {
        let watched = routes.into_iter().filter_map(Watched::new);
        let by_route = watched.map(|watched| (watched.route.name.clone(), watched)).collect();
        Self { by_route: ArcSwap::from_pointee(by_route), notifier }
    }

    /// The alarms that these routes name take the place of those there are. One that measures what it measured before
    /// goes on, ringing or not. One that rings and does not go on is said to be over, so that nobody waits for that.
    pub fn set_routes<'a>(&self, routes: impl IntoIterator<Item = &'a Arc<Route>>) {
        let before = self.by_route.load_full();
        let mut next = BTreeMap::new();
        for mut watched in routes.into_iter().filter_map(Watched::new) {
            if let Some(known) = before.get(&watched.route.name).filter(|known| known.measures_as(&watched)) {
                watched.state = Arc::clone(&known.state);
            }
            next.insert(watched.route.name.clone(), watched);
        }
        let over = |(name, known): &(&RouteName, &Watched)| {
            next.get(*name).is_none_or(|watched: &Watched| !Arc::ptr_eq(&watched.state, &known.state))
        };
        let over: Vec<Watched> = before.iter().filter(over).map(|(_, known)| known.clone()).collect();
        self.by_route.store(Arc::new(next));
        for watched in over {
            let status = watched.status(&watched.state());
            if status.firing {
                let status = AlarmStatus { firing: false, ..status };
                self.tell(
                    &watched,
                    &Change::Cleared(Reading { requests: status.requests, error_rate: status.error_rate }),
                    &status,
                );
            }
        }
    }

    /// Counts an attempt on `route` that ended at `now`, and says so if that makes its alarm fire or clear.
    pub fn record(&self, route: &RouteName, now: Timestamp, failed: bool) {
        if let Some(watched) = self.by_route.load().get(route) {
            let mut state = watched.state();
            state.meter.record(now, failed);
            self.look_at(watched, state, now);
        }
    }

    /// Looks at every alarm, so that those clear whose failures have left the window.
    pub fn tick(&self, now: Timestamp) {
        for watched in self.by_route.load().values() {
            self.look_at(watched, watched.state(), now);
        }
    }

    /// Ticks every second until `stop` is cancelled.
    pub async fn run(&self, clock: &dyn Clock, stop: CancellationToken) {
        while stop.run_until_cancelled(clock.sleep(TICK)).await.is_some() {
            self.tick(clock.now());
        }
    }

    /// All alarms as they were when last recorded to or ticked, by route.
    pub fn current(&self) -> Vec<AlarmStatus> {
        self.by_route.load().values().map(|watched| watched.status(&watched.state())).collect()
    }

    fn look_at(&self, watched: &Watched, mut state: MutexGuard<'_, State>, now: Timestamp) {
        let Some(change) = state.meter.evaluate(now) else { return };
        state.since = Some(now);
        let status = watched.status(&state);
        // What follows may write to a slow log: other attempts need not wait for that.
        drop(state);
        self.tell(watched, &change, &status);
    }

    /// Says it in the log, and to whom the route names.
    fn tell(&self, watched: &Watched, change: &Change, status: &AlarmStatus) {
        watched.say(change, status);
        if let Some(url) = &watched.rule.notify {
            self.notifier.notify(Notice {
                about: format!("alarm of route {}", status.route),
                url: url.clone(),
                allow: watched.route.destination.allow.clone(),
                body: body(change, status),
            });
        }
    }
}

impl Watched {
    /// A route's alarm, if it has one, with nothing measured.
    fn new(route: &Arc<Route>) -> Option<Self> {
        let rule = route.alarm.clone()?;
        let meter = Meter::new(rule.error_rate, rule.window, rule.min_requests);
        let state = Arc::new(Mutex::new(State { meter, since: None }));
        Some(Self { route: Arc::clone(route), rule, state })
    }

    /// Whether the other one fires and clears as this one does, whoever is told.
    fn measures_as(&self, other: &Self) -> bool {
        Alarm { notify: None, ..self.rule.clone() } == Alarm { notify: None, ..other.rule.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self, state: &State) -> AlarmStatus {
        let Reading { requests, error_rate } = state.meter.reading();
        AlarmStatus {
            route: self.route.name.clone(),
            firing: state.meter.is_firing(),
            since: state.since,
            error_rate,
            threshold: self.rule.error_rate,
            window_ms: u64::try_from(self.rule.window.as_millis()).unwrap_or(u64::MAX),
            requests,
        }
    }

    fn say(&self, change: &Change, status: &AlarmStatus) {
        let AlarmStatus { route, error_rate, threshold, window_ms, requests, .. } = status;
        match change {
            Change::Fired(_) => tracing::error!(
                target: "backstop::alarm", %route, error_rate, threshold, window_ms, requests,
                "alarm: {:.1} % of the attempts on route {route} failed", error_rate * 100.0,
            ),
            Change::Cleared(_) => tracing::info!(
                target: "backstop::alarm", %route, error_rate, threshold, window_ms, requests,
                "alarm cleared: {:.1} % of the attempts on route {route} failed", error_rate * 100.0,
            ),
        }
    }
}

/// What a notice says: the status, and in one word what happened.
fn body(change: &Change, status: &AlarmStatus) -> serde_json::Value {
    let event = match change {
        Change::Fired(_) => "alarm.fired",
        Change::Cleared(_) => "alarm.cleared",
    };
    let mut body = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("event".to_owned(), event.into());
    }
    body
}
