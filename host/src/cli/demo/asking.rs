//! What the running host says of itself, asked through its admin API like anybody else would.

use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use crate::clock::{Clock as _, SystemClock};
use crate::dispatch::HostClient;
use crate::dispatch::client::ClientError;
use crate::message::MessageId;
use crate::store::Summary;

use super::summary::Known;
use super::traffic::{Said, Sent};

/// Messages asked for at once: the most the API lists.
const PAGE: usize = 1000;

/// What `/v1/routes` tells of a route, as far as it matters here.
#[derive(Deserialize)]
pub(super) struct RouteNow {
    /// Its name.
    pub(super) route: String,
    /// Messages that wait or are being attempted.
    pub(super) open: u64,
    /// Until when its destination is held, in milliseconds since the epoch.
    pub(super) held_until: Option<u64>,
}

/// What `/v1/alarms` tells of an alarm, as far as it matters here.
#[derive(Deserialize)]
pub(super) struct AlarmNow {
    /// The route it watches.
    pub(super) route: String,
    /// Whether it has fired and not cleared.
    pub(super) firing: bool,
    /// The share of failed attempts, 0 to 1.
    pub(super) error_rate: f64,
    /// The share at which it fires.
    pub(super) threshold: f64,
}

/// The host now.
pub(super) struct Now {
    /// Its routes.
    pub(super) routes: Vec<RouteNow>,
    /// Its alarms.
    pub(super) alarms: Vec<AlarmNow>,
}

/// Asks how things stand.
pub(super) async fn now(admin: &HostClient) -> anyhow::Result<Now> {
    #[derive(Deserialize)]
    struct Routes {
        routes: Vec<RouteNow>,
    }
    #[derive(Deserialize)]
    struct Alarms {
        alarms: Vec<AlarmNow>,
    }
    let Routes { routes } = admin.get("/v1/routes", &[]).await.context("failed to ask the host for its routes")?;
    let Alarms { alarms } = admin.get("/v1/alarms", &[]).await.context("failed to ask the host for its alarms")?;
    Ok(Now { routes, alarms })
}

/// Asks for the fate of every message in `sent`: page by page, and then one by one for those that no page named.
pub(super) async fn fates(admin: &HostClient, sent: &[Sent]) -> anyhow::Result<Known> {
    #[derive(Deserialize)]
    struct Page {
        messages: Vec<Summary>,
    }
    let mut known = Known::new();
    let limit = PAGE.to_string();
    let mut before: Option<String> = None;
    loop {
        let mut query = vec![("limit", limit.as_str())];
        query.extend(before.as_deref().map(|before| ("before", before)));
        let page: Page = admin.get("/v1/messages", &query).await.context("failed to list the host's messages")?;
        before = page.messages.last().map(|last| last.id.to_string());
        let last = page.messages.len() < PAGE;
        known.extend(page.messages.into_iter().map(|message| (message.id, (message.route, message.state))));
        if last {
            break;
        }
    }
    let ids = sent.iter().filter_map(|sent| match sent.said {
        Said::Accepted(id) | Said::Ended(id, _) => Some(id),
        Said::Refused(_) | Said::Nothing(_) => None,
    });
    let unnamed: Vec<MessageId> = ids.filter(|id| !known.contains_key(id)).collect();
    for id in unnamed {
        match admin.get::<Summary>(&format!("/v1/messages/{id}"), &[]).await {
            Ok(message) => drop(known.insert(id, (message.route, message.state))),
            Err(ClientError::Refused { status: http::StatusCode::NOT_FOUND, .. }) => {}
            Err(error) => return Err(error).with_context(|| format!("failed to ask the host for message {id}")),
        }
    }
    Ok(known)
}

/// How much longer `until` is away.
pub(super) fn left_until(until: u64) -> Option<Duration> {
    let left = Duration::from_millis(until.saturating_sub(SystemClock.now().as_millis()));
    (!left.is_zero()).then_some(left)
}
