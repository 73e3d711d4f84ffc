//! The routes, as this host has them: those it serves, those that are disabled, and those that are not configured any
//! more but have messages in the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::Admin;
use super::transactions::{self, Open};
use crate::config::Route;
use crate::queue::LaneStatus;
use crate::watch::Totals;

/// A route in `/v1/routes`.
#[derive(Serialize)]
struct RouteStatus {
    route: String,
    /// `serving`, or `parked`: its messages wait until it is served.
    state: &'static str,
    /// Why it is parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    mode: Option<&'static str>,
    destination: Option<String>,
    policy: Option<String>,
    /// Messages that have not ended, half messages counted in.
    open: u64,
    /// Half messages; none when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    transactions: Option<Open>,
    held_until: Option<u64>,
    /// How its lane stands; none when it is parked.
    #[serde(flatten)]
    lane: Option<LaneStatus>,
    since_start: Totals,
}

pub(super) async fn list(Shared(admin): Shared<Arc<Admin>>) -> Response {
    let table = admin.routes.table();
    // What is served is shown all the same when the store is away.
    let backlog = admin.store.backlog().await.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "could not count what is parked");
        BTreeMap::new()
    });
    let halves = transactions::open(&admin).await.unwrap_or_default();
    let configured = table.values().map(|route| of_table(&admin, route, &backlog, &halves));
    let gone = backlog.iter().filter(|(name, _)| !table.contains_key(name.as_str()));
    let gone = gone.map(|(name, open)| RouteStatus {
        route: name.clone(),
        state: "parked",
        why: admin.routes.standing(name).parks(),
        mode: None,
        destination: None,
        policy: None,
        open: *open,
        transactions: halves.get(name).copied(),
        held_until: None,
        lane: None,
        since_start: Totals::default(),
    });
    let mut routes: Vec<RouteStatus> = configured.chain(gone).collect();
    routes.sort_by(|a, b| a.route.cmp(&b.route));
    Json(json!({ "routes": routes })).into_response()
}

fn of_table(
    admin: &Admin,
    route: &Route,
    backlog: &BTreeMap<String, u64>,
    halves: &BTreeMap<String, Open>,
) -> RouteStatus {
    let why = admin.routes.standing(route.name.as_str()).parks();
    let destination = route.destination.origin();
    let lane = admin.queue.lane(&route.name);
    let now = admin.clock.now();
    let parked = || backlog.get(route.name.as_str()).copied().unwrap_or(0);
    RouteStatus {
        route: route.name.to_string(),
        state: if why.is_none() { "serving" } else { "parked" },
        why,
        mode: Some(route.mode.as_str()),
        policy: route.policy.as_ref().map(|binding| binding.name.clone()),
        open: lane.as_ref().map_or_else(parked, |lane| lane.open()),
        transactions: halves.get(route.name.as_str()).copied(),
        held_until: admin.holds.held_until(&destination, now).map(|until| until.as_millis()),
        lane: lane.map(|lane| lane.status(now)),
        destination: Some(destination),
        since_start: admin.watch.totals(&route.name),
    }
}
