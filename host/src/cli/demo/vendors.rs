//! The misbehaving vendors: small HTTP servers on loopback, each with its own record of what reached it.
//!
//! They are outside of the host in every sense: it reaches them through sockets, and what it says of them is checked
//! against their records at the end.

mod manners;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Stopwatch, SystemClock};
use crate::listener;
use crate::message::MessageId;

use manners::Visit;
pub(super) use manners::{CLIENT_SECRET, Manners};

/// Connections that one vendor takes at once.
const CALLERS: usize = 1000;

/// The longest body a vendor reads.
const MAX_BODY: usize = 64 * 1024;
/// Messages a vendor remembers: more than ten minutes of the demo's traffic.
const MAX_REMEMBERED: usize = 200_000;
/// Notices the pager keeps.
const MAX_NOTICES: usize = 100;

/// Names the order a request is about, so that a vendor can tell a repeat from another order.
pub(super) const ORDER: &str = "demo-order";

/// The vendors, and where they are.
pub(super) struct Vendors {
    vendors: Vec<(Arc<Vendor>, String)>,
    pager: Arc<Pager>,
    pager_url: String,
}

/// One vendor.
struct Vendor {
    name: &'static str,
    manners: Manners,
    since: Stopwatch,
    record: Mutex<Record>,
    stop: CancellationToken,
}

/// What reached a vendor.
#[derive(Default)]
struct Record {
    messages: HashMap<MessageId, Entry>,
    /// Which message an order came as.
    orders: HashMap<String, MessageId>,
    /// Repeats of an order under another message's id, or of a message under another idempotency key.
    strange: Vec<String>,
    /// Requests without an id, or beyond what is remembered.
    unrecorded: u64,
}

/// What reached a vendor of one message.
struct Entry {
    visits: u32,
    accepted: u32,
    key: Vec<u8>,
}

/// What all vendors' records say together.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Messages that a vendor took.
    pub(super) accepted: std::collections::HashSet<MessageId>,
    /// Requests that were not the first of their message at that vendor.
    pub(super) repeats: u64,
    /// Repeats that were not recognisable as such.
    pub(super) strange: Vec<String>,
    /// Requests that carried no message id.
    pub(super) unrecorded: u64,
}

/// A receiver of alarms.
pub(super) struct Pager {
    notices: Mutex<Vec<Value>>,
}

impl Vendors {
    /// Starts all of them on free ports.
    pub(super) async fn start(tasks: &TaskTracker, stop: &CancellationToken) -> anyhow::Result<Self> {
        let since = Stopwatch::start();
        let mut vendors = Vec::new();
        for (name, manners) in Manners::all() {
            let record = Mutex::new(Record::default());
            let vendor = Arc::new(Vendor { name, manners, since, record, stop: stop.clone() });
            let router = Router::new().fallback(receive).with_state(Arc::clone(&vendor));
            let url = serve(name, router, tasks, stop).await?;
            vendors.push((vendor, url));
        }
        let pager = Arc::new(Pager { notices: Mutex::default() });
        let router = Router::new().fallback(page).with_state(Arc::clone(&pager));
        let pager_url = serve("pager", router, tasks, stop).await?;
        Ok(Self { vendors, pager, pager_url })
    }

    /// What `${env:NAME}` stands for in the demo's configuration: `RISK_URL`, `LEDGER_BACKUP_URL`, `PAGER_URL`.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        if name == "PAGER_URL" {
            return Some(self.pager_url.clone());
        }
        let wanted = name.strip_suffix("_URL")?.to_lowercase().replace('_', "-");
        self.vendors.iter().find(|(vendor, _)| vendor.name == wanted).map(|(_, url)| url.clone())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.vendors.len()
    }

    /// What the pager was told so far.
    pub(super) fn notices(&self) -> Vec<Value> {
        self.pager.notices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What all of them recorded.
    pub(super) fn records(&self) -> Records {
        let mut records = Records::default();
        for (vendor, _) in &self.vendors {
            let record = vendor.record();
            for (id, entry) in &record.messages {
                if entry.accepted > 0 {
                    records.accepted.insert(*id);
                }
                records.repeats += u64::from(entry.visits.saturating_sub(1));
            }
            records.strange.extend(record.strange.iter().cloned());
            records.unrecorded += record.unrecorded;
        }
        records
    }
}

/// Serves `router` on a free port until `stop`; answers with its URL. `name` is for the error.
///
/// # Errors
/// When no port can be listened on.
pub(super) async fn serve(
    name: &str,
    router: Router,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<String> {
    let listener =
        TcpListener::bind("127.0.0.1:0").await.with_context(|| format!("failed to start the vendor {name}"))?;
    let url = format!("http://{}", listener.local_addr()?);
    tasks.spawn(listener::serve(listener, CALLERS, router, Arc::new(SystemClock), stop.clone()));
    Ok(url)
}

/// A request reaches a vendor.
async fn receive(State(vendor): State<Arc<Vendor>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let path = parts.uri.path().to_owned();
    if let Some(token) = vendor.manners.token(&path, &parts.headers, vendor.since.elapsed()) {
        return token;
    }
    let id = message_id(&parts.headers);
    let nth = vendor.record().enter(id, &parts.headers);
    let number = text(&parts.headers, ORDER).rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let visit = Visit { number, nth, headers: &parts.headers, body: &body, elapsed: vendor.since.elapsed() };
    let (answer, took) = match vendor.manners.answer(&visit) {
        Some(answer) => answer,
        // A black hole: it took the request, and says nothing for as long as anybody listens.
        None => {
            vendor.stop.cancelled().await;
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    };
    if took && let Some(id) = id {
        vendor.record().accept(id);
    }
    answer
}

async fn page(State(pager): State<Arc<Pager>>, body: Bytes) -> StatusCode {
    if let Ok(notice) = serde_json::from_slice(&body) {
        let mut notices = pager.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < MAX_NOTICES {
            notices.push(notice);
        }
    }
    StatusCode::NO_CONTENT
}

impl Vendor {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Writes a visit down; answers which of its message it is, from 1.
    fn enter(&mut self, id: Option<MessageId>, headers: &HeaderMap) -> u32 {
        let Some(id) = id.filter(|id| self.messages.len() < MAX_REMEMBERED || self.messages.contains_key(id)) else {
            self.unrecorded += 1;
            return 1;
        };
        let order = text(headers, ORDER);
        let came_as = *self.orders.entry(order.to_owned()).or_insert(id);
        let key = headers.get("idempotency-key").map(|key| key.as_bytes().to_vec()).unwrap_or_default();
        let entry = self.messages.entry(id).or_insert_with(|| Entry { visits: 0, accepted: 0, key: key.clone() });
        entry.visits += 1;
        if came_as != id {
            self.strange.push(format!("order {order} came as {came_as}, and again as {id}"));
        } else if entry.key != key {
            self.strange.push(format!("message {id} came again with another idempotency key"));
        }
        entry.visits
    }

    fn accept(&mut self, id: MessageId) {
        if let Some(entry) = self.messages.get_mut(&id) {
            entry.accepted += 1;
        }
    }
}

fn message_id(headers: &HeaderMap) -> Option<MessageId> {
    text(headers, "backstop-message-id").parse().ok()
}

/// The field called `name`; empty when it is absent or no text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use http::HeaderValue;

    fn headers(order: &'static str, key: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (http::HeaderName::from_static(ORDER), HeaderValue::from_static(order)),
            (http::HeaderName::from_static("idempotency-key"), HeaderValue::from_static(key)),
        ])
    }

    #[test]
    fn a_repeat_is_recognised_by_its_id_and_its_key() {
        let (first, second) = (MessageId::new(Timestamp::from_millis(1)), MessageId::new(Timestamp::from_millis(2)));
        let mut record = Record::default();
        assert_eq!(record.enter(Some(first), &headers("risk-1", "a")), 1);
        assert_eq!(record.enter(Some(first), &headers("risk-1", "a")), 2);
        assert!(record.strange.is_empty());
        record.enter(Some(first), &headers("risk-1", "b"));
        record.enter(Some(second), &headers("risk-1", "a"));
        assert_eq!(record.strange.len(), 2);
    }
}
