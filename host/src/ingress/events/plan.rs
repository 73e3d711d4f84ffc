//! Which routes take an event, and what becomes of it there: decided by their expressions and schemas alone.

use std::sync::Arc;

use crate::config::{Events, Route, Taken};
use crate::event::{BadEvent, Event};
use crate::problem::{Kind, Problem};
use crate::routes::Table;

/// An event, and the routes that take it.
pub(super) struct Planned {
    pub(super) event: Event,
    pub(super) routes: Vec<(Arc<Route>, Fate)>,
}

/// What is to become of an event on a route.
pub(super) enum Fate {
    /// It is delivered.
    Deliver,
    /// It never will be, for this reason.
    Dead(String),
}

/// Which routes take each event, and what becomes of it there.
///
/// # Errors
/// When nobody takes one of them, or its data is longer than a route allows.
pub(super) fn plan(events: Vec<Event>, table: &Table) -> Result<Vec<Planned>, Problem> {
    let taking: Vec<(&Arc<Route>, &Events)> =
        table.values().filter_map(|route| Some((route, route.events.as_ref()?))).collect();
    events.into_iter().map(|event| plan_one(event, &taking)).collect()
}

fn plan_one(event: Event, taking: &[(&Arc<Route>, &Events)]) -> Result<Planned, Problem> {
    let mut routes = Vec::new();
    for (route, events) in taking {
        match events.taken.matches(&event) {
            Ok(true) => routes.push((*route, fate(&event, events))),
            Ok(false) => {}
            Err(error) => routes.push((*route, Fate::Dead(error.to_string()))),
        }
    }
    if routes.is_empty() {
        let otherwise = taking.iter().filter(|(_, events)| events.taken == Taken::Otherwise);
        routes.extend(otherwise.map(|(route, events)| (*route, fate(&event, events))));
    }
    if routes.is_empty() {
        let (id, source) = (event.id(), event.source());
        let detail =
            format!("no route takes the event {id:?} of {source:?}: no `match` is true of it, and none is `otherwise`");
        return Err(Problem::new(Kind::NoRoute, detail));
    }
    for (route, _) in &routes {
        if event.data().is_some_and(|data| data.len() > route.body_limit) {
            let detail = format!("route {} takes data of at most {} bytes", route.name, route.body_limit);
            return Err(Problem::new(Kind::BodyTooLong, detail));
        }
    }
    let routes = routes.into_iter().map(|(route, fate)| (Arc::clone(route), fate)).collect();
    Ok(Planned { event, routes })
}

fn fate(event: &Event, events: &Events) -> Fate {
    events.misfit(event).map_or(Fate::Deliver, Fate::Dead)
}

pub(super) fn bad_event(bad: BadEvent) -> Problem {
    Problem::new(Kind::BadRequest, format!("not an event: {bad}"))
}
