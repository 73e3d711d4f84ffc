//! Parked messages: queued on a route that this host does not serve, since it is disabled or not configured any more.

use super::Admin;
use crate::message::State;
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
