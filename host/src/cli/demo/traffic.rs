//! The traffic: requests to every route at a steady pace, each remembered with what the host said of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Chance, Clock, SystemClock};
use crate::dispatch::HostClient;
use crate::message::{MessageId, State};

use super::vendors::ORDER;

/// Requests under way at once on one route: callers that wait do not pile up.
const UNDER_WAY: usize = 32;

/// A route's share of the traffic.
struct Flow {
    route: &'static str,
    per_second: f64,
    sent: AtomicU64,
}

/// The routes that are sent to, and how many messages a second.
const FLOWS: [(&str, f64); 8] = [
    ("risk", 8.0),
    ("orders", 10.0),
    ("search", 8.0),
    ("crm", 8.0),
    ("ledger", 3.0),
    ("billing", 6.0),
    ("scans", 5.0),
    ("legacy", 2.0),
];

/// The routes that are sent to.
#[cfg(test)]
pub(super) fn routes() -> impl Iterator<Item = &'static str> {
    FLOWS.iter().map(|(route, _)| *route)
}

/// A message that was sent, and what the host said of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    /// To which route.
    pub(super) route: &'static str,
    /// What the host said.
    pub(super) said: Said,
}

/// What the host said of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// 202: it is responsible for it.
    Accepted(MessageId),
    /// The answer itself, and how the message ended.
    Ended(MessageId, State),
    /// It refused it: nothing was accepted.
    Refused(StatusCode),
    /// Nothing that can be understood.
    Nothing(String),
}

/// The traffic.
pub(super) struct Traffic {
    flows: Vec<Arc<Flow>>,
    book: Arc<Mutex<Vec<Sent>>>,
    senders: TaskTracker,
    requests: TaskTracker,
    stop: CancellationToken,
}

impl Traffic {
    /// Starts sending. The same `seed` gives the same pauses between requests.
    pub(super) fn start(client: &Arc<HostClient>, seed: u64) -> Self {
        let traffic = Self {
            flows: FLOWS
                .iter()
                .map(|&(route, per_second)| Arc::new(Flow { route, per_second, sent: AtomicU64::new(0) }))
                .collect(),
            book: Arc::default(),
            senders: TaskTracker::new(),
            requests: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        for (index, flow) in (0..).zip(&traffic.flows) {
            let sender = Sender {
                flow: Arc::clone(flow),
                client: Arc::clone(client),
                book: Arc::clone(&traffic.book),
                requests: traffic.requests.clone(),
            };
            let random = fastrand::Rng::with_seed(seed.wrapping_add(index));
            let stop = traffic.stop.clone();
            traffic.senders.spawn(async move {
                stop.run_until_cancelled(sender.run(random)).await;
            });
        }
        traffic
    }

    /// Begins no further request.
    pub(super) fn stop(&self) {
        self.stop.cancel();
        self.senders.close();
        self.requests.close();
    }

    /// Whether every request was answered. True at the earliest after [`Traffic::stop`].
    pub(super) fn is_answered(&self) -> bool {
        self.stop.is_cancelled() && self.senders.is_empty() && self.requests.is_empty()
    }

    /// Messages sent, by route.
    pub(super) fn sent(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.flows.iter().map(|flow| (flow.route, flow.sent.load(Ordering::Relaxed)))
    }

    /// Waits for the answers that are still to come, `at_most` so long, and hands over what was sent and what the
    /// host said of it. What is then unanswered is told as such.
    pub(super) async fn finish(self, at_most: Duration) -> Vec<Sent> {
        self.stop();
        let answered = async {
            self.senders.wait().await;
            self.requests.wait().await;
        };
        tokio::select! {
            () = answered => {}
            () = SystemClock.sleep(at_most) => {}
        }
        let mut sent = std::mem::take(&mut *self.book.lock().unwrap_or_else(PoisonError::into_inner));
        for flow in &self.flows {
            let begun = flow.sent.load(Ordering::Relaxed);
            let told = sent.iter().filter(|sent| sent.route == flow.route).count() as u64;
            let unanswered = Sent { route: flow.route, said: Said::Nothing("no answer yet".to_owned()) };
            sent.extend((told..begun).map(|_| unanswered.clone()));
        }
        sent
    }
}

/// Sends to one route.
struct Sender {
    flow: Arc<Flow>,
    client: Arc<HostClient>,
    book: Arc<Mutex<Vec<Sent>>>,
    requests: TaskTracker,
}

impl Sender {
    async fn run(self, mut random: fastrand::Rng) {
        let places = Arc::new(Semaphore::new(UNDER_WAY));
        let mean = Duration::from_secs_f64(1.0 / self.flow.per_second);
        for number in 1.. {
            let gap = Chance::new(random.f64()).between(mean / 2, mean + mean / 2);
            SystemClock.sleep(gap).await;
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            self.flow.sent.fetch_add(1, Ordering::Relaxed);
            let (client, book, route) = (Arc::clone(&self.client), Arc::clone(&self.book), self.flow.route);
            self.requests.spawn(async move {
                let said = send(&client, route, number).await;
                book.lock().unwrap_or_else(PoisonError::into_inner).push(Sent { route, said });
                drop(place);
            });
        }
    }
}

async fn send(client: &HostClient, route: &'static str, number: u64) -> Said {
    let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    if let Ok(order) = HeaderValue::try_from(format!("{route}-{number}")) {
        headers.insert(HeaderName::from_static(ORDER), order);
    }
    let (path, body) = request(route, number);
    match client.send(Method::POST, &format!("/r/{route}{path}"), headers, Bytes::from(body)).await {
        Ok(answer) => said(answer.status(), answer.headers()),
        Err(error) => Said::Nothing(error.to_string()),
    }
}

/// What the host's answer says of the message.
fn said(status: StatusCode, headers: &HeaderMap) -> Said {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let state = State::ALL.into_iter().find(|state| state.as_str() == text("backstop-state"));
    match (text("backstop-message-id").parse(), state) {
        (Ok(id), Some(state)) => Said::Ended(id, state),
        (Ok(id), None) if status == StatusCode::ACCEPTED => Said::Accepted(id),
        _ if status.is_client_error() || status.is_server_error() => Said::Refused(status),
        _ => Said::Nothing(format!("an answer {status} that names no message")),
    }
}

/// The path below the route, and the body.
fn request(route: &str, number: u64) -> (&'static str, String) {
    match route {
        "risk" => ("/v1/check", json!({ "order": number, "amount": 1999 }).to_string()),
        "orders" => ("/v1/orders", json!({ "order": number, "items": ["tea", "cups"] }).to_string()),
        "search" => ("/v1/index", json!({ "document": number }).to_string()),
        "crm" => ("/v1/contacts", json!({ "contact": number }).to_string()),
        "ledger" => ("/v1/entries", json!({ "entry": number, "amount": 1999 }).to_string()),
        "billing" => ("/v1/invoices", json!({ "invoice": number }).to_string()),
        // One in six was cut off on its way, one in ten names no scan.
        "scans" if number % 6 == 2 => ("/v1/results", format!("{{\"scan_id\": \"00000000-0000-4000-8000-{number:06}")),
        "scans" if number % 10 == 4 => ("/v1/results", json!({ "engine": "fast" }).to_string()),
        "scans" => ("/v1/results", json!({ "scan_id": format!("00000000-0000-4000-8000-{number:012}") }).to_string()),
        _ => ("/submit", json!({ "form": number }).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn fields(fields: &[(&'static str, String)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_the_host_says_is_told_apart() {
        let id = MessageId::new(Timestamp::from_millis(1));
        let with_id = ("backstop-message-id", id.to_string());
        let ended = fields(&[with_id.clone(), ("backstop-state", "answered".to_owned())]);
        assert_eq!(said(StatusCode::OK, &ended), Said::Ended(id, State::Answered));
        assert_eq!(said(StatusCode::ACCEPTED, &fields(std::slice::from_ref(&with_id))), Said::Accepted(id));
        assert_eq!(
            said(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new()),
            Said::Refused(StatusCode::SERVICE_UNAVAILABLE)
        );
        assert!(matches!(said(StatusCode::OK, &fields(&[with_id])), Said::Nothing(_)));
    }
}
