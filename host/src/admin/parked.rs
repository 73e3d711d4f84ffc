//! Parked messages: queued on a route that this host does not serve, since it is disabled or not configured any more.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{Admin, store_problem};
use crate::message::State;
use crate::problem::{Kind, Problem};
use crate::routes::Routes;
use crate::store::{Filter, StoreError, Summary};

/// Why a message is parked; none when it is not.
pub(super) fn why(summary: &Summary, routes: &Routes) -> Option<&'static str> {
    (summary.state == State::Queued).then(|| routes.standing(&summary.route).parks())?
}

/// The parked messages that fit `filter`, whose states are not looked at, newest first.
///
/// # Errors
/// [`StoreError`]
pub(super) async fn list(admin: &Admin, filter: Filter) -> Result<Vec<Summary>, StoreError> {
    let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let mut found: Vec<Summary> = Vec::new();
    for (route, _) in admin.store.backlog().await? {
        let is_asked_for = filter.route.as_ref().is_none_or(|asked| *asked == route);
        if is_asked_for && admin.routes.standing(&route).parks().is_some() {
            let on_route = Filter { route: Some(route), states: vec![State::Queued], ..filter.clone() };
            found.extend(admin.store.list(on_route).await?);
            // One page is held, however many routes there are.
            found.sort_by_key(|summary| std::cmp::Reverse(summary.id));
            found.truncate(limit);
        }
    }
    Ok(found)
}

/// Which parked messages.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnRoute {
    /// On this route.
    route: String,
    /// Whose reason contains this text.
    reason: Option<String>,
}

/// Gives up messages of a route that is not served: gone for good, or meant to begin anew.
pub(super) async fn discard(
    Shared(admin): Shared<Arc<Admin>>,
    which: Result<Json<OnRoute>, JsonRejection>,
) -> Response {
    const PATH: &str = "/v1/parked/discard";
    let OnRoute { route, reason } = match which {
        Ok(Json(which)) => which,
        Err(rejection) => return Problem::new(Kind::BadRequest, rejection.body_text()).answer(PATH),
    };
    if admin.routes.standing(&route).parks().is_none() {
        let detail =
            format!("{route:?} is served, and its messages are on their way: disable it first (`enabled: false`)");
        return Problem::new(Kind::RouteServed, detail).answer(PATH);
    }
    match admin.queue.discard_queued(route, reason).await {
        Ok(discarded) => Json(json!({ "discarded": discarded })).into_response(),
        Err(error) => store_problem(&error, PATH),
    }
}
