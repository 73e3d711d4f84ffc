//! `POST /events`: takes in what a producer publishes (CloudEvents 1.0), and makes of each event a message on every
//! route that takes it.
//!
//! What becomes of each event is decided before anything is stored: of a batch with an event that nobody takes, or that
//! is none, nothing is. An event that cannot be judged by a route's expression, or whose data does not fit its schema, is
//! that route's dead letter without an attempt: it is neither lost nor delivered.

mod plan;
mod taking;

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;

use super::onward::Onward;
use super::{Ingress, request};
use crate::event;
use crate::problem::{Kind, Problem};

use plan::{Planned, bad_event, plan};

/// The longest body of a publish, in bytes: 16 MiB. A route's own `body_limit` bounds the data of each event.
const LONGEST: usize = 16 << 20;
/// Routes that take events, and bytes of a publish, up to which it is read on the thread that serves the caller: some
/// hundred microseconds' work. More goes to a thread of its own.
const ASKED_AT_ONCE: usize = 16;
const READ_AT_ONCE: usize = 16 << 10;

/// `POST /events`.
pub(super) async fn publish(Shared(ingress): Shared<Arc<Ingress>>, request: axum::extract::Request) -> Response {
    ingress.publish(request).await.unwrap_or_else(|problem| problem.answer("/events"))
}

impl Ingress {
    async fn publish(self: &Arc<Self>, request: axum::extract::Request) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let place = self.enter(&parts)?;
        let body = request::body(body, LONGEST, &*self.clock).await?;
        let planned = self.plan(parts.headers, body).await?;
        let ingress = Arc::clone(self);
        let work = Onward::new(&self.chains, async move {
            let answer = ingress.take_events(planned).await;
            drop(place);
            answer
        });
        work.await.unwrap_or_else(|_| {
            tracing::error!("the host failed in taking events in");
            Err(Problem::new(Kind::Internal, "the host failed; its log says more"))
        })
    }

    /// Which routes take each event, and what becomes of it there.
    async fn plan(&self, headers: HeaderMap, body: Bytes) -> Result<Vec<Planned>, Problem> {
        let table = self.routes.table();
        let asking = table.values().filter(|route| route.events.is_some()).count();
        let length = body.len();
        let work = move || plan(event::read(&headers, &body).map_err(bad_event)?, &table);
        if asking <= ASKED_AT_ONCE && length <= READ_AT_ONCE {
            return work();
        }
        let planned = tokio::task::spawn_blocking(work).await;
        planned.unwrap_or_else(|_| Err(Problem::new(Kind::Internal, "the host failed; its log says more")))
    }
}
