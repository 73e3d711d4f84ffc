//! The host of a play, as its callers and its operator have it: through sockets, and with what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use url::Url;

use crate::clock::{Clock as _, Stopwatch, SystemClock};
use crate::dispatch::HostClient;
use crate::dispatch::client::ClientError;
use crate::engine::Engine;
use crate::message::{AttemptRecord, MessageId, State};
use crate::store::Summary;
use crate::watch::Event;

use super::super::vendors;

/// How long anything is waited for. Plays are over in less; where this is not enough, a check fails and says so.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(40);

/// A running host.
pub(super) struct Host {
    callers: HostClient,
    admin: HostClient,
    feed: Receiver<Arc<Event>>,
    /// Attempts that the feed told of, in order.
    heard: Vec<(MessageId, AttemptRecord)>,
}

/// How a caller was answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// A message as the host's admin API shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    pub(super) summary: Summary,
    /// The attempts made at it.
    #[serde(default)]
    pub(super) journal: Vec<AttemptRecord>,
}

impl Host {
    /// The host that `engine` runs, from now on.
    ///
    /// # Errors
    /// When no client can be set up.
    pub(super) fn of(engine: &Engine) -> anyhow::Result<Self> {
        let client = |address| anyhow::Ok(HostClient::new(Url::parse(&format!("http://{address}"))?, None)?);
        let (callers, admin) = (client(engine.listen)?, client(engine.admin)?);
        Ok(Self { callers, admin, feed: engine.watch.subscribe(), heard: Vec::new() })
    }

    /// Its admin API.
    pub(super) const fn admin(&self) -> &HostClient {
        &self.admin
    }

    /// A caller's request, and whatever is answered.
    ///
    /// # Errors
    /// When nothing is.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        fields: &[(&'static str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(HeaderName::from_static(name), HeaderValue::try_from(*value)?);
        }
        let answer = self.callers.send(method, path, headers, body.into()).await;
        let (parts, body) = answer.with_context(|| format!("no answer to a request to {path}"))?.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// A caller POSTs JSON.
    ///
    /// # Errors
    /// When nothing is answered.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.call(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// What the admin API says at `path`.
    ///
    /// # Errors
    /// When it says nothing, or no.
    pub(super) async fn ask(&self, path: &str) -> anyhow::Result<Value> {
        self.admin.get(path, &[]).await.with_context(|| format!("failed to ask the host for {path}"))
    }

    /// A person tells the admin API something.
    ///
    /// # Errors
    /// When it says nothing, or no.
    pub(super) async fn tell(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.admin.post(path, body).await.with_context(|| format!("failed to tell the host {path}"))
    }

    /// What the host knows of a message; none when it knows none by that id.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(super) async fn message(&self, id: MessageId) -> anyhow::Result<Option<Shown>> {
        match self.admin.get(&format!("/v1/messages/{id}"), &[]).await {
            Ok(shown) => Ok(Some(shown)),
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to ask the host for message {id}")),
        }
    }

    /// The message once it is in `state`; as it is when patience is at an end.
    ///
    /// # Errors
    /// When it cannot be asked for, or is not there.
    pub(super) async fn until(&self, id: MessageId, state: State) -> anyhow::Result<Shown> {
        let there = async || Ok(self.message(id).await?.filter(|message| message.summary.state == state));
        let shown = match until(there).await? {
            Some(shown) => Some(shown),
            None => self.message(id).await?,
        };
        shown.with_context(|| format!("the host knows nothing of message {id}"))
    }

    /// The messages in `state`, newest first.
    ///
    /// # Errors
    /// When they cannot be asked for.
    pub(super) async fn listed(&self, state: State) -> anyhow::Result<Vec<Summary>> {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<Summary>,
        }
        let query = [("state", state.as_str()), ("limit", "1000")];
        let page: Page = self.admin.get("/v1/messages", &query).await.context("failed to list the host's messages")?;
        Ok(page.messages)
    }

    /// What the host told of a message while it happened, up to its end: what goes well while its caller waits is not
    /// stored.
    pub(super) async fn heard(&mut self, id: MessageId) -> Vec<AttemptRecord> {
        let is_over = |heard: &[AttemptRecord]| heard.last().is_some_and(|last| last.transition != "retry");
        self.heard_of(|known, _| known == id, is_over).await
    }

    /// What the host told of attempts on `route`, once there are so many.
    pub(super) async fn heard_on(&mut self, route: &str, attempts: usize) -> Vec<AttemptRecord> {
        self.heard_of(|_, record| record.route == route, |heard| heard.len() >= attempts).await
    }

    /// What the host told of attempts that are `meant`, once it is `enough` or patience is at an end.
    async fn heard_of(
        &mut self,
        meant: impl Fn(MessageId, &AttemptRecord) -> bool,
        enough: impl Fn(&[AttemptRecord]) -> bool,
    ) -> Vec<AttemptRecord> {
        let since = Stopwatch::start();
        loop {
            self.listen();
            let heard = self.heard.iter().filter(|(id, record)| meant(*id, record));
            let heard: Vec<_> = heard.map(|(_, record)| record.clone()).collect();
            if enough(&heard) || since.elapsed() >= PATIENCE {
                return heard;
            }
            SystemClock.sleep(LOOK).await;
        }
    }

    /// Takes in what the feed has told since.
    fn listen(&mut self) {
        loop {
            match self.feed.try_recv() {
                Ok(event) => {
                    if let Event::Attempt { message, record } = &*event {
                        self.heard.push((*message, record.clone()));
                    }
                }
                // What was missed is missed by a check.
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

impl Answer {
    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The field called `name`; empty when it is absent.
    pub(super) fn field(&self, name: &str) -> &str {
        vendors::text(&self.headers, name)
    }

    /// Status and body, as a caller would show them.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.status.as_u16(), self.text())
    }

    /// The message it is about.
    ///
    /// # Errors
    /// When it names none.
    pub(super) fn id(&self) -> anyhow::Result<MessageId> {
        let id = self.field("backstop-message-id").parse();
        id.with_context(|| format!("an answer that names no message: {}", self.shown()))
    }
}

/// Looks again and again until there is something, or patience is at an end.
///
/// # Errors
/// Whatever looking fails with.
pub(super) async fn until<T>(mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<Option<T>> {
    let since = Stopwatch::start();
    loop {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        if since.elapsed() >= PATIENCE {
            return Ok(None);
        }
        SystemClock.sleep(LOOK).await;
    }
}
