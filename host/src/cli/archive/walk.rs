//! A walk through the archive of a running host, page by page, each asked for when the one before is used up.

use std::collections::VecDeque;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::{Which, unknown_route};
use crate::archive::ArchiveFilter;
use crate::clock::Timestamp;
use crate::dispatch::HostClient;
use crate::message::MessageId;

/// The longest page that is read: it may hold one body of the greatest length that a route can allow, 256 MiB, of which
/// each byte takes up to six in JSON.
const LONGEST_PAGE: usize = (6 * 256 + 64) << 20;

/// What the walk finds, oldest first.
pub(super) struct Walk {
    client: HostClient,
    filter: ArchiveFilter,
    whole: bool,
    page: VecDeque<Value>,
    next: Next,
    last: Option<MessageId>,
}

/// From where the next page is asked for.
enum Next {
    After(Option<MessageId>),
    End,
}

#[derive(Deserialize)]
struct Page {
    messages: VecDeque<Value>,
    until: Timestamp,
    next: Option<MessageId>,
}

impl Walk {
    /// A walk along what is asked for; `whole` with requests and journals. Its first page is here: what came in since is
    /// not found. Where there is nothing, a route that nobody knows is told of.
    pub(super) async fn begin(which: &Which, whole: bool) -> anyhow::Result<Self> {
        let mut walk = Self {
            client: which.admin.client().await?.reading_up_to(LONGEST_PAGE),
            filter: which.filter(),
            whole,
            page: VecDeque::new(),
            next: Next::After(which.after),
            last: None,
        };
        walk.turn(which.after).await?;
        if let Some(route) = &which.route
            && walk.page.is_empty()
            && matches!(walk.next, Next::End)
        {
            unknown_route::tell(&walk.client, route).await;
        }
        Ok(walk)
    }

    /// The next message that fits; none at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(message) = self.page.pop_front() {
                let id = message.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
                self.last = Some(id.context("the host listed a message without an id: is it of the same version?")?);
                return Ok(Some(message));
            }
            let Next::After(after) = self.next else { return Ok(None) };
            self.turn(after).await?;
        }
    }

    /// Turns to the page after this message.
    async fn turn(&mut self, after: Option<MessageId>) -> anyhow::Result<()> {
        let page = self.ask(after).await.with_context(|| match self.last {
            Some(last) => format!("the archive was read up to {last}: go on with --after {last}"),
            None => "the archive could not be read".to_owned(),
        })?;
        // The first page says what is meant by now; the others keep to it.
        self.filter.until = Some(page.until);
        self.page = page.messages;
        self.next = page.next.map_or(Next::End, |next| Next::After(Some(next)));
        Ok(())
    }

    /// What it looks for.
    pub(super) fn filter(&self) -> &ArchiveFilter {
        &self.filter
    }

    /// The last message that was found.
    pub(super) fn last(&self) -> Option<MessageId> {
        self.last
    }

    /// The host that is asked.
    pub(super) fn client(&self) -> &HostClient {
        &self.client
    }

    async fn ask(&self, after: Option<MessageId>) -> anyhow::Result<Page> {
        let mut parts = self.filter.parts();
        parts.extend(after.map(|after| ("after", after.to_string())));
        parts.push(("whole", self.whole.to_string()));
        let query: Vec<(&str, &str)> = parts.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Ok(self.client.get("/v1/archive", &query).await?)
    }
}
