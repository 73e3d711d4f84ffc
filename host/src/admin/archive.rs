//! The archive, for people: what a filter finds, a page at a time, and publishing one of it again.
//!
//! A page is bounded in what it holds and in what is looked at for it, so it may be empty although more follows: `next`
//! says from where to go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, RawQuery, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, find, head_json, message_json, request_json, store_problem};
use crate::archive::ArchiveFilter;
use crate::clock::Timestamp;
use crate::ingress::{COME_AGAIN, COME_LATER};
use crate::message::MessageId;
use crate::problem::{Kind, Problem};
use crate::queue::{Republished, Run};
use crate::store::{ArchiveLine, StoreError, Stored};

const ARCHIVE: &str = "/v1/archive";

/// Messages on a page when the caller does not say, and at most.
const PAGE: (usize, usize) = (100, 500);
/// Bytes of bodies on a page; the message that goes beyond is its last.
const BYTES: usize = 1 << 20;
/// Lines that are read at once.
const LINES: u32 = 1000;
/// Lines that are looked at for a page, messages that are read for it, and bytes of their bodies, at most.
const LOOKED_AT: usize = 20_000;
const READ: usize = 1000;
const READ_BYTES: usize = 64 << 20;
/// A body that is longer is not looked into on a thread that serves others.
const QUICK: usize = 64 << 10;

/// The archive's paths.
pub(super) fn paths() -> Router<Arc<Admin>> {
    Router::new().route(ARCHIVE, get(page)).route("/v1/archive/{id}/republish", post(republish))
}

/// What a page is asked for by: the parts of a filter, and `after=ID&limit=N&whole=true`.
struct Asked {
    filter: ArchiveFilter,
    /// After this message.
    after: Option<MessageId>,
    /// Messages at most.
    limit: usize,
    /// Whether requests and journals are wanted as well.
    whole: bool,
}

impl Asked {
    fn read(query: &str) -> Result<Self, String> {
        let mut asked = Self { filter: ArchiveFilter::default(), after: None, limit: PAGE.0, whole: false };
        let mut own = BTreeSet::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if matches!(&*name, "after" | "limit" | "whole") && !own.insert(name.clone()) {
                return Err(format!("{name} is given twice"));
            }
            match &*name {
                "after" => asked.after = Some(value.parse().map_err(|_| format!("after={value}: no message's id"))?),
                "limit" => match value.parse() {
                    Ok(limit) if (1..=PAGE.1).contains(&limit) => asked.limit = limit,
                    _ => return Err(format!("limit={value}: write a number from 1 to {}", PAGE.1)),
                },
                "whole" => {
                    asked.whole = value.parse().map_err(|_| format!("whole={value}: write true or false"))?;
                }
                _ => asked.filter.add(&name, &value).map_err(|bad| bad.to_string())?,
            }
        }
        Ok(asked)
    }
}

/// What a page holds, and from where to go on; none: that was all.
struct Page {
    messages: Vec<Value>,
    next: Option<MessageId>,
}

async fn page(Shared(admin): Shared<Arc<Admin>>, RawQuery(query): RawQuery) -> Response {
    let mut asked = match Asked::read(query.as_deref().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(detail) => return Problem::new(Kind::BadRequest, detail).answer(ARCHIVE),
    };
    // What comes in meanwhile would be found for ever, where what is found is published again.
    let until = *asked.filter.until.get_or_insert(after_now(admin.clock.now()));
    match gather(&admin, asked).await {
        Ok(Page { messages, next }) => {
            Json(json!({ "messages": messages, "until": until, "next": next })).into_response()
        }
        Err(error) => store_problem(&error, ARCHIVE),
    }
}

/// The moment after `now`: what was accepted in the same millisecond is found.
fn after_now(now: Timestamp) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_add(1))
}

/// Walks from the oldest on, until the page is full, enough was looked at, or nothing is left.
async fn gather(admin: &Admin, asked: Asked) -> Result<Page, StoreError> {
    let Asked { filter, after, limit, whole } = asked;
    let end = filter.end();
    let filter = Arc::new(filter);
    let (mut messages, mut next) = (Vec::new(), after);
    let (mut looked_at, mut read, mut read_bytes, mut bytes) = (0, 0, 0, 0);
    loop {
        let lines = admin.store.archived(next, LINES).await?;
        let is_last = lines.len() < LINES as usize;
        for line in lines {
            if end.is_some_and(|end| line.id >= end) {
                return Ok(Page { messages, next: None });
            }
            let is_enough = looked_at >= LOOKED_AT || read >= READ || read_bytes >= READ_BYTES;
            if messages.len() >= limit || bytes >= BYTES || is_enough {
                return Ok(Page { messages, next });
            }
            next = Some(line.id);
            looked_at += 1;
            if !filter.may_fit(&line) {
                continue;
            }
            read += 1;
            // Swept meanwhile: then it is not kept any more.
            let Some(stored) = admin.store.message(line.id).await? else { continue };
            read_bytes += stored.message.request.body.len();
            if let Some(stored) = sift(&filter, stored).await? {
                bytes += stored.message.request.body.len();
                messages.push(shown(admin, &line, &stored, whole));
            }
        }
        if is_last {
            return Ok(Page { messages, next: None });
        }
    }
}

/// The message again, if it fits.
///
/// # Errors
/// When it could not be looked into.
async fn sift(filter: &Arc<ArchiveFilter>, stored: Stored) -> Result<Option<Stored>, StoreError> {
    if filter.body.is_empty() || stored.message.request.body.len() <= QUICK {
        return Ok(filter.fits(&stored).then_some(stored));
    }
    let filter = Arc::clone(filter);
    let looking = tokio::task::spawn_blocking(move || filter.fits(&stored).then_some(stored));
    looking.await.map_err(|broken| StoreError::Unavailable(Box::new(broken)))
}

fn shown(admin: &Admin, line: &ArchiveLine, stored: &Stored, whole: bool) -> Value {
    let shown_as = if whole { message_json } else { head_json };
    let mut shown = shown_as(stored, &admin.routes);
    shown["message_uid"] = json!(line.uid);
    if whole {
        shown["request"] = request_json(&stored.message.request);
    }
    shown
}

/// What comes with a message to be published again: `{}`, or the run that it belongs to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Republish {
    #[serde(default)]
    run: Option<String>,
}

async fn republish(
    Shared(admin): Shared<Arc<Admin>>,
    Path(id): Path<String>,
    sent: Result<Json<Republish>, JsonRejection>,
) -> Response {
    let instance = format!("{ARCHIVE}/{id}/republish");
    let run = match sent {
        Ok(Json(Republish { run })) => run.map(|run| run.parse::<Run>()).transpose().map_err(|bad| bad.to_string()),
        Err(rejection) => Err(format!("{}; send {{}} or {{\"run\": \"NAME\"}}", rejection.body_text())),
    };
    let run = match run {
        Ok(run) => run,
        Err(detail) => return Problem::new(Kind::BadRequest, detail).answer(&instance),
    };
    let republished = match find(&*admin.store, &id).await {
        Ok(Some(original)) => admin.queue.republish(original, run).await,
        Ok(None) => return Problem::unknown_message().answer(&instance),
        Err(error) => return store_problem(&error, &instance),
    };
    let accepted = |again: MessageId, repeated: bool| {
        let url = format!("/v1/messages/{again}");
        let body = json!({ "id": again, "original": id, "repeated": repeated, "url": url });
        (StatusCode::ACCEPTED, Json(body)).into_response()
    };
    let problem = match republished {
        Ok(Republished::Accepted(again)) => return accepted(again, false),
        Ok(Republished::Before(again)) => return accepted(again, true),
        Ok(Republished::NotEnded(state)) => {
            Problem::new(Kind::NotRepublished, format!("it is {state}, and has not ended"))
        }
        Ok(Republished::HoldsUp) => {
            let detail = "those behind it in its order wait for it, and so would a new message: redrive it instead";
            Problem::new(Kind::NotRepublished, detail)
        }
        Ok(Republished::Misfit(misfit)) => Problem::new(Kind::NotRepublished, misfit),
        Ok(Republished::Underway) => {
            let detail = "it is being published again in this run just now";
            Problem::new(Kind::StoreUnavailable, detail).retry_after(COME_AGAIN)
        }
        Ok(Republished::Saturated) => {
            Problem::new(Kind::Saturated, "max_queued messages wait on its route").retry_after(COME_AGAIN)
        }
        Ok(Republished::Closed(route)) if admin.routes.is_configured(route.as_str()) => {
            Problem::new(Kind::RouteDisabled, format!("route {route} takes nothing in until it is enabled again"))
                .retry_after(COME_LATER)
        }
        Ok(Republished::Closed(route)) => {
            Problem::new(Kind::UnknownRoute, format!("no route is called {route} any more: configure it first"))
        }
        Err(error) => return store_problem(&error, &instance),
    };
    problem.answer(&instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_is_asked_for_is_read_or_refused() {
        let asked =
            Asked::read("route=a%2Bb&limit=7&whole=true&body=%2Fa%3D1&body=/b").unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((asked.limit, asked.whole, asked.filter.body.len()), (7, true, 2));
        assert_eq!(asked.filter.route.as_deref(), Some("a+b"));
        for (query, hint) in [
            ("limit=0", "from 1 to 500"),
            ("limit=501", "from 1 to 500"),
            ("whole=yes", "true or false"),
            ("after=x", "no message's id"),
            ("limit=5&limit=6", "given twice"),
            ("before=x", "nothing that messages are found by"),
        ] {
            let refused = Asked::read(query).err().unwrap_or_default();
            assert!(refused.contains(hint), "{query}: {refused}");
        }
    }
}
