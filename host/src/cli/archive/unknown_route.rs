//! A route that nobody knows: where a filter that names one finds nothing, it may be a slip of the pen.

use serde::Deserialize;
use serde_json::Value;

use crate::config::nearest;
use crate::dispatch::HostClient;

#[derive(Deserialize)]
struct Routes {
    routes: Vec<Known>,
}

#[derive(Deserialize)]
struct Known {
    route: String,
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Value>,
    next: Option<Value>,
}

/// Says on stderr that `route` is neither configured nor in the archive, and which one may be meant. Says nothing where
/// the host does not know, or cannot be asked: the search itself has gone well.
pub(super) async fn tell(client: &HostClient, route: &str) {
    let Ok(Routes { routes }) = client.get("/v1/routes", &[]).await else { return };
    if routes.iter().any(|known| known.route == route) {
        return;
    }
    let found = client.get("/v1/archive", &[("route", route)]).await;
    if found.is_ok_and(|Page { messages, next }| messages.is_empty() && next.is_none()) {
        match nearest(route, routes.iter().map(|known| known.route.as_str())) {
            Some(meant) => {
                eprintln!("no route {route:?} is configured, nor has the archive one: did you mean `{meant}`?");
            }
            None => eprintln!("no route {route:?} is configured, nor has the archive one"),
        }
    }
}
