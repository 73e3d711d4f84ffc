//! A stand-in for whatever the host calls: a small HTTP server on loopback that answers as it is told, and remembers
//! what reached it.
//!
//! What the host says of a message is checked against these records. A stand-in knows nothing of the host.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Stopwatch;
use crate::message::MessageId;

use super::super::vendors;

/// Requests remembered; a play makes some hundreds.
const REMEMBERED: usize = 10_000;
/// The longest body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// A stand-in, for as long as the play lasts. Cheap to clone.
#[derive(Clone)]
pub(super) struct StandIn {
    kept: Arc<Kept>,
    url: String,
}

struct Kept {
    since: Stopwatch,
    stop: CancellationToken,
    manner: Mutex<Manner>,
    visits: Mutex<Vec<Visit>>,
}

/// How requests are answered.
type Manner = Arc<dyn Fn(&Visit) -> Reply + Send + Sync>;

/// A request that came.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// Its method.
    pub(super) method: Method,
    /// Its path and query.
    pub(super) path: String,
    /// Its header fields.
    headers: HeaderMap,
    /// Its body.
    pub(super) body: Bytes,
    /// When it came, counted from the stand-in's start.
    pub(super) at: Duration,
}

/// An answer to be given.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// A status, header fields and a body.
    Answer(StatusCode, Vec<(&'static str, String)>, String),
    /// None, for as long as anybody waits for it.
    Silence,
}

impl Reply {
    /// This status, and nothing else.
    pub(super) const fn status(status: StatusCode) -> Self {
        Self::Answer(status, Vec::new(), String::new())
    }

    /// 200 with this text.
    pub(super) fn text(body: impl Into<String>) -> Self {
        Self::Answer(StatusCode::OK, Vec::new(), body.into())
    }

    /// This status with JSON.
    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        Self::Answer(status, vec![(header::CONTENT_TYPE.as_str(), "application/json".to_owned())], body.to_string())
    }

    /// The same, with one more field.
    pub(super) fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        match self {
            Self::Answer(status, mut fields, body) => {
                fields.push((name, value.into()));
                Self::Answer(status, fields, body)
            }
            Self::Silence => Self::Silence,
        }
    }
}

impl Visit {
    /// The field called `name`; empty when it is absent or no text.
    pub(super) fn field(&self, name: &str) -> &str {
        vendors::text(&self.headers, name)
    }

    /// The message it is about, by the host's own field.
    pub(super) fn message(&self) -> Option<MessageId> {
        self.field("backstop-message-id").parse().ok()
    }

    /// Which attempt it is, by the host's own field; 0 when it does not say.
    pub(super) fn attempt(&self) -> u32 {
        self.field("backstop-attempt").parse().unwrap_or(0)
    }
}

impl StandIn {
    /// Starts one on a free port; it answers everything with 200.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub(super) async fn start(name: &str, tasks: &TaskTracker, stop: &CancellationToken) -> anyhow::Result<Self> {
        let kept = Arc::new(Kept {
            since: Stopwatch::start(),
            stop: stop.clone(),
            manner: Mutex::new(Arc::new(|_| Reply::status(StatusCode::OK))),
            visits: Mutex::default(),
        });
        let router = Router::new().fallback(receive).with_state(Arc::clone(&kept));
        let url = vendors::serve(name, router, tasks, stop).await?;
        Ok(Self { kept, url })
    }

    /// Where it is, without a slash at the end.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Answers by `manner` from now on.
    pub(super) fn answers(&self, manner: impl Fn(&Visit) -> Reply + Send + Sync + 'static) {
        *self.kept.manner.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(manner);
    }

    /// Answers the first attempt of a message with the first of `replies`, the second with the second, and whatever comes
    /// after the last with that one.
    pub(super) fn answers_in_turn(&self, replies: Vec<Reply>) {
        self.answers(move |visit| {
            let nth = usize::try_from(visit.attempt().max(1) - 1).unwrap_or(usize::MAX);
            replies.get(nth).or(replies.last()).cloned().unwrap_or(Reply::Silence)
        });
    }

    /// All that came so far, in order.
    pub(super) fn visits(&self) -> Vec<Visit> {
        self.kept.visits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came of one message.
    pub(super) fn visits_of(&self, id: MessageId) -> Vec<Visit> {
        self.visits().into_iter().filter(|visit| visit.message() == Some(id)).collect()
    }

    /// What came on this path, whatever its query.
    pub(super) fn visits_at(&self, path: &str) -> Vec<Visit> {
        let is_there = |visit: &Visit| visit.path.split('?').next() == Some(path);
        self.visits().into_iter().filter(is_there).collect()
    }
}

impl Kept {
    fn remember(&self, visit: Visit) {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        if visits.len() < REMEMBERED {
            visits.push(visit);
        }
    }
}

/// The pauses between visits, in order.
pub(super) fn pauses(visits: &[Visit]) -> Vec<Duration> {
    visits.iter().zip(visits.iter().skip(1)).map(|(one, next)| next.at.saturating_sub(one.at)).collect()
}

async fn receive(State(kept): State<Arc<Kept>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let visit = Visit { method: parts.method, path, headers: parts.headers, body, at: kept.since.elapsed() };
    let manner = Arc::clone(&kept.manner.lock().unwrap_or_else(PoisonError::into_inner));
    let reply = manner(&visit);
    kept.remember(visit);
    match reply {
        Reply::Answer(status, fields, body) => (status, HeaderMap::from_iter(fields_of(fields)), body).into_response(),
        Reply::Silence => {
            kept.stop.cancelled().await;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

fn fields_of(fields: Vec<(&'static str, String)>) -> impl Iterator<Item = (http::HeaderName, http::HeaderValue)> {
    fields.into_iter().filter_map(|(name, value)| Some((http::HeaderName::from_static(name), value.parse().ok()?)))
}
