//! Notices to people's own systems: an alarm fired, an alarm cleared.
//!
//! Sending them never holds up traffic: whoever has a notice leaves it in a bounded queue and goes on. A notice that
//! cannot be queued or delivered is logged and counted, and that is all; the alarm itself is in the log and the admin
//! API whatever happens here.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::clients::Clients;
use super::{Read, answer, fault};
use crate::backoff::{Backoff, Growth, Jitter};
use crate::clock::Clock;

#[cfg(test)]
mod tests;

/// Notices waiting at once; one more is dropped.
pub const QUEUED: usize = 64;

/// Notices being sent at once, each to another URL: those to the same URL go one after the other, in order.
pub const AT_ONCE: usize = 8;

/// How often a notice is tried.
pub const TRIES: u32 = 5;

/// The time one try may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The delay before the second try; it doubles with each …
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// … up to this.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Something to tell.
#[derive(Clone, Debug)]
pub struct Notice {
    /// What it is about, for the log.
    pub about: String,
    /// Where it is POSTed. Only its host is ever logged, as its path may be a secret.
    pub url: Url,
    /// Networks the URL's name may resolve to, beside global addresses.
    pub allow: Vec<IpNet>,
    /// What is POSTed.
    pub body: serde_json::Value,
}

/// Sends notices, in its own task.
#[derive(Clone, Debug)]
pub struct Notifier {
    queue: mpsc::Sender<Notice>,
    lost: Arc<AtomicU64>,
}

impl Notifier {
    /// Starts the task on `tasks`; it ends when `stop` is cancelled, and gives up what it has not sent by then.
    pub fn start(clients: Arc<Clients>, clock: Arc<dyn Clock>, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (queue, notices) = mpsc::channel(QUEUED);
        let lost = Arc::new(AtomicU64::new(0));
        let sender = Sender { clients, clock, lost: Arc::clone(&lost) };
        tasks.spawn(async move { sender.run(notices, stop).await });
        Self { queue, lost }
    }

    /// Leaves `notice` to be sent. Never waits: a notice that finds the queue full is dropped.
    pub fn notify(&self, notice: Notice) {
        if let Err(mpsc::error::TrySendError::Full(notice) | mpsc::error::TrySendError::Closed(notice)) =
            self.queue.try_send(notice)
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(about = notice.about, to = fault::place(&notice.url), "a notice was dropped: too many wait");
        }
    }

    /// Notices that were dropped, or given up after the last try.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

struct Sender {
    clients: Arc<Clients>,
    clock: Arc<dyn Clock>,
    lost: Arc<AtomicU64>,
}

impl Sender {
    async fn run(&self, mut notices: mpsc::Receiver<Notice>, stop: CancellationToken) {
        let mut waiting: VecDeque<Notice> = VecDeque::new();
        let mut busy: HashSet<Url> = HashSet::new();
        let mut sending = FuturesUnordered::new();
        let mut open = true;
        loop {
            while sending.len() < AT_ONCE
                && let Some(next) = waiting.iter().position(|notice| !busy.contains(&notice.url))
                && let Some(notice) = waiting.remove(next)
            {
                busy.insert(notice.url.clone());
                sending.push(self.deliver(notice));
            }
            if !open && sending.is_empty() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(url) = sending.next() => {
                    busy.remove(&url);
                }
                // Beyond this the notices wait in the channel, whose senders never wait.
                notice = notices.recv(), if open && waiting.len() < QUEUED => match notice {
                    Some(notice) => waiting.push_back(notice),
                    None => open = false,
                },
            }
        }
        let left = sending.len() + waiting.len() + notices.len();
        if left > 0 {
            self.lost.fetch_add(left as u64, Ordering::Relaxed);
            tracing::warn!(left, "notices were not sent before the shutdown");
        }
    }

    /// Tries until it is delivered or given up, and says which URL is free again.
    async fn deliver(&self, notice: Notice) -> Url {
        let backoff = Backoff { growth: Growth::Exponential { factor: 2.0 }, jitter: Jitter::Equal };
        let mut tried = 0;
        loop {
            let Err(why) = self.attempt(&notice).await else { return notice.url };
            tried += 1;
            let (about, to) = (&notice.about, fault::place(&notice.url));
            if tried >= TRIES {
                self.lost.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(about, to, tried, why, "a notice could not be delivered and is given up");
                return notice.url;
            }
            tracing::debug!(about, to, tried, why, "a notice could not be delivered and is tried again");
            let delay = backoff.delay(tried - 1, FIRST_DELAY, LONGEST_DELAY, None, self.clock.chance());
            self.clock.sleep(delay).await;
        }
    }

    async fn attempt(&self, notice: &Notice) -> Result<(), String> {
        let exchange = async {
            let client = self.clients.allowing(&notice.allow).map_err(|error| error.to_string())?;
            let request = client
                .post(notice.url.clone())
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(notice.body.to_string());
            let response = request.send().await.map_err(|error| fault::of(&error, &notice.url).detail)?;
            // The status says it all; a small body is read so that the connection can be used again.
            let (response, remainder) =
                answer::read(response, Read::Prefix(0), 0, &notice.url).await.map_err(|silence| silence.detail)?;
            remainder.drain().await;
            if response.status.is_success() { Ok(()) } else { Err(format!("it answered {}", response.status.as_u16())) }
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no complete answer within {TIMEOUT:?}")))
    }
}
