//! A load of messages on an asynchronous route, and the audit of what became of each.
//!
//! A message is known by its number, which is its body. The number decides what its vendor does with it, so that the
//! audit knows how it must have ended: see [`Load::answer`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstop::clock::{Clock, SystemClock};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::eventually::eventually_within;
use crate::host::{Answer, Host};
use crate::vendor::{Received, Reply, Vendor, ok, status};

/// How long one request of the load may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// How long a caller that was refused, or found nobody, waits before its next request.
const PAUSE: Duration = Duration::from_millis(10);
/// How long after the load the last message may end.
const ENDED_WITHIN: Duration = Duration::from_secs(120);
/// Questions about messages that are asked at once.
const ASKED_AT_ONCE: usize = 16;

/// Messages that were sent, and what their senders were told.
#[derive(Debug)]
pub struct Load {
    path: String,
    next: AtomicU32,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// Every message answered 202: its number and its id.
    accepted: BTreeMap<u32, String>,
    /// Numbers sent with a key whose senders heard nothing yet, and ask again.
    unanswered: Vec<u32>,
    /// Answers other than 202, by status.
    refused: BTreeMap<u16, Vec<Answer>>,
}

/// What became of a load's messages, each of which has ended as it was to.
#[derive(Debug)]
pub struct Audit {
    /// Attempts that were written down as interrupted.
    pub interrupted: usize,
    /// Requests that reached the vendor.
    pub deliveries: usize,
    /// The journal of every message, by id.
    pub journals: BTreeMap<String, Vec<Value>>,
}

impl Load {
    /// A load for this path.
    pub fn on(path: &str) -> Self {
        Self { path: path.to_owned(), next: AtomicU32::new(0), books: Mutex::default() }
    }

    /// What the vendor does with a message, for [`Vendor::answers_by`]: it refuses every tenth for good, fails the first
    /// attempt of every third, and takes its time over every seventh.
    pub fn answer(request: &Received) -> Reply {
        let number: u32 = request.text().parse().unwrap_or_default();
        let reply = match number {
            n if is_refused(n) => status(400),
            n if n % 3 == 0 && request.header("backstop-attempt") == "1" => status(503),
            _ => ok(),
        };
        if number.is_multiple_of(7) { reply.after(Duration::from_millis(50)) } else { reply }
    }

    /// Keeps sending to `hosts` in turn over so many connections until `until` is over, and answers what that says.
    /// Requests under way are answered before this returns.
    pub async fn while_sending<T>(&self, hosts: &[&Host], connections: usize, until: impl Future<Output = T>) -> T {
        let stop = CancellationToken::new();
        let senders = (0..connections).map(async |first| {
            for host in hosts.iter().cycle().skip(first) {
                if stop.is_cancelled() {
                    break;
                }
                self.send(host).await;
            }
        });
        let until = async {
            let said = until.await;
            stop.cancel();
            said
        };
        tokio::join!(until, join_all(senders)).0
    }

    /// Sends over so many connections until so many more messages are accepted, or a few more than that.
    pub async fn send_all(&self, host: &Host, count: usize, connections: usize) {
        let goal = self.accepted() + count;
        let senders = (0..connections).map(async |_| {
            while self.accepted() < goal {
                self.send(host).await;
            }
        });
        join_all(senders).await;
    }

    /// How many messages were answered 202.
    pub fn accepted(&self) -> usize {
        self.books().accepted.len()
    }

    /// The answers with this status.
    pub fn refused(&self, status: u16) -> Vec<Answer> {
        self.books().refused.get(&status).cloned().unwrap_or_default()
    }

    /// Waits until every message has ended, and holds the books against one another: those of the senders, of the
    /// vendor, and of the host.
    ///
    /// # Panics
    /// When a message was lost, ended otherwise than it was to, or was repeated without its journal saying why.
    pub async fn audit(&self, host: &Host, vendor: &Vendor) -> Audit {
        eventually_within(ENDED_WITHIN, "every message to end", async || {
            let open = host.try_admin("/v1/messages?limit=1&state=queued,in_flight").await?;
            open["messages"].as_array().is_some_and(Vec::is_empty).then_some(())
        })
        .await;
        let accepted = self.books().accepted.clone();
        let received = vendor.received();
        let mut by_id: BTreeMap<String, Vec<Received>> = BTreeMap::new();
        for request in received {
            by_id.entry(request.header("backstop-message-id")).or_default().push(request);
        }
        one_message_for_each_number(&accepted, &by_id);
        // Also those that were accepted though their sender did not live to hear of it.
        let ids: BTreeSet<&String> = accepted.values().chain(by_id.keys()).collect();
        let deliveries = by_id.values().map(Vec::len).sum();
        let mut audit = Audit { interrupted: 0, deliveries, journals: BTreeMap::new() };
        let shown = stream::iter(&ids).map(async |id| host.message(id).await).buffered(ASKED_AT_ONCE);
        for (id, message) in ids.iter().zip(shown.collect::<Vec<_>>().await) {
            let requests = by_id.get(*id).map(Vec::as_slice).unwrap_or_default();
            let journal = explained(id, &message, requests);
            audit.interrupted += journal.iter().filter(|attempt| is_interrupted(attempt)).count();
            audit.journals.insert((*id).clone(), journal);
        }
        for (number, id) in &accepted {
            assert!(by_id.contains_key(id), "message {number} ({id}) was accepted and never reached the vendor");
        }
        audit
    }

    async fn send(&self, host: &Host) {
        let again = self.books().unanswered.pop();
        let number = again.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
        let mut request = host.request(Method::POST, &self.path).body(number.to_string()).timeout(ANSWERED_WITHIN);
        if has_key(number) {
            request = request.header("idempotency-key", format!("key-{number}"));
        }
        let answer = Answer::try_to(request).await;
        if !self.books().enter(number, answer) {
            SystemClock.sleep(PAUSE).await;
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Enters what the sender of a message was told, if anything; false when it was not accepted.
    fn enter(&mut self, number: u32, answer: Option<Answer>) -> bool {
        match answer {
            Some(answer) if answer.status == 202 => {
                self.accepted.insert(number, answer.json()["id"].as_str().expect("an id").to_owned());
                return true;
            }
            Some(answer) => self.refused.entry(answer.status).or_default().push(answer),
            None => {}
        }
        if has_key(number) {
            self.unanswered.push(number);
        }
        false
    }
}

impl Audit {
    /// Checks that no message was attempted twice at once: an attempt that was finished was over when the next began.
    /// (One that was interrupted may have gone on unheard of: its journal cannot say until when.)
    ///
    /// # Panics
    /// When one was.
    pub fn one_attempt_at_a_time(&self) {
        for (id, journal) in &self.journals {
            let mut finished: Vec<(u64, u64)> =
                journal.iter().filter(|attempt| !is_interrupted(attempt)).map(span).collect();
            finished.sort_unstable();
            for pair in finished.windows(2) {
                assert!(pair[0].1 <= pair[1].0, "{id} was attempted twice at once: {journal:#?}");
            }
        }
    }
}

/// Refused for good by the vendor.
fn is_refused(number: u32) -> bool {
    number.is_multiple_of(10)
}

/// Sent with an idempotency key, and again until it is answered.
fn has_key(number: u32) -> bool {
    number % 4 == 3
}

/// Checks that a number is one message, whoever asks: for the sender and at the vendor.
fn one_message_for_each_number(accepted: &BTreeMap<u32, String>, by_id: &BTreeMap<String, Vec<Received>>) {
    let mut of_number: BTreeMap<u32, BTreeSet<&String>> = BTreeMap::new();
    for (number, id) in accepted {
        of_number.entry(*number).or_default().insert(id);
    }
    for (id, requests) in by_id {
        for request in requests {
            of_number.entry(request.text().parse().expect("a number")).or_default().insert(id);
        }
    }
    for (number, ids) in of_number {
        assert!(ids.len() == 1, "number {number} became several messages: {ids:?}");
    }
}

/// Checks that a message has ended as it was to, and that its journal accounts for every request that reached the
/// vendor. Answers the journal.
fn explained(id: &str, message: &Value, requests: &[Received]) -> Vec<Value> {
    let number: u32 = message["request"]["body"].as_str().and_then(|body| body.parse().ok()).unwrap_or_else(|| {
        panic!("{id} is lost: {message}");
    });
    let expected = if is_refused(number) { "dead" } else { "delivered" };
    assert_eq!(message["state"], expected, "{message}");
    let journal = message["journal"].as_array().cloned().unwrap_or_default();
    let number_of = |attempt: &Value| attempt["number"].as_u64().unwrap_or_default();
    let written: BTreeMap<u64, &Value> = journal.iter().map(|attempt| (number_of(attempt), attempt)).collect();
    assert_eq!(written.len(), journal.len(), "no two attempts carry the same number: {message}");
    let sent: BTreeSet<u64> =
        requests.iter().map(|request| request.header("backstop-attempt").parse().expect("a number")).collect();
    assert_eq!(sent.len(), requests.len(), "no two requests carry the same number: {requests:?}");
    for attempt in &sent {
        assert!(written.contains_key(attempt), "attempt {attempt} of {id} is not in its journal: {message}");
    }
    for (number, attempt) in &written {
        assert!(sent.contains(number) || is_interrupted(attempt), "attempt {number} of {id} was never made: {message}");
    }
    let keys: BTreeSet<String> = requests.iter().map(|request| request.header("idempotency-key")).collect();
    assert!(keys.len() <= 1, "{id} was sent under several keys: {keys:?}");
    journal
}

/// Whether an attempt was cut off, so that nobody knows its outcome.
pub fn is_interrupted(attempt: &Value) -> bool {
    attempt["reason"].as_str().is_some_and(|reason| reason.starts_with("interrupted"))
}

/// When an attempt began and when it was over, in milliseconds since the epoch.
fn span(attempt: &Value) -> (u64, u64) {
    let began = attempt["started_at"].as_u64().unwrap_or_default();
    (began, began + attempt["latency_ms"].as_u64().unwrap_or_default())
}
