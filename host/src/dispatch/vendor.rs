//! What the tests of dispatch stand on: a vendor that answers raw bytes over a real socket, a clock moved by hand, and
//! a route to a URL.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::clock::{Chance, Clock, SystemClock, Timestamp};
use crate::config::{Destination, Idempotency, Mode, Protocol, Route};
use crate::message::{Envelope, RouteName};

/// What a vendor does with a request, or with a connection before there is one.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers these bytes and goes on with the next request.
    Answer(Vec<u8>),
    /// Answers the first bytes and, a moment later, the others; then goes on with the next request.
    AnswerInTwo(Vec<u8>, Vec<u8>),
    /// Answers these bytes and cuts the connection.
    AnswerAndCut(Vec<u8>),
    /// Answers these bytes and then nothing.
    AnswerAndHang(Vec<u8>),
    /// Answers these bytes and then one `x` every few milliseconds, for ever.
    AnswerAndDrip(Vec<u8>),
    /// Answers these bytes and then that many more, as fast as they are taken.
    AnswerAndFlood(Vec<u8>, u64),
    /// Cuts every connection at once, without reading.
    Refuse,
    /// Answers these bytes to whatever comes first, be it HTTP or not.
    Blurt(Vec<u8>),
}

/// A vendor on a loopback port. Its acts are used up one by one; the last one goes on.
pub(crate) struct Vendor {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Vec<u8>>>,
    written: AtomicU64,
}

impl Vendor {
    pub(crate) async fn that(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let acts = Arc::new(Mutex::new(acts.into_iter().collect::<VecDeque<_>>()));
        let tasks = TaskTracker::new();
        let (shared, connections) = (Arc::clone(&seen), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream, Arc::clone(&acts), Arc::clone(&shared)));
            }
        });
        Self { address, seen }
    }

    /// A vendor that always gives this answer.
    pub(crate) async fn answering(answer: impl AsRef<[u8]>) -> Self {
        Self::that([Act::Answer(answer.as_ref().to_vec())]).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Bytes of flood it got rid of.
    pub(crate) fn written(&self) -> u64 {
        self.seen.written.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// The only request it got, as text.
    pub(crate) fn request(&self) -> String {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "one request was expected");
        String::from_utf8(requests[0].clone()).unwrap()
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            SystemClock.sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waited).await.is_ok(), "waited in vain: {what}");
}

async fn serve(mut stream: TcpStream, acts: Arc<Mutex<VecDeque<Act>>>, seen: Arc<Seen>) {
    let next = || {
        let mut acts = acts.lock().unwrap();
        if acts.len() > 1 { acts.pop_front() } else { acts.front().cloned() }
    };
    let first = acts.lock().unwrap().front().cloned();
    match first {
        Some(Act::Refuse) => {
            next();
            return;
        }
        Some(Act::Blurt(bytes)) => {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(&bytes).await;
            return std::future::pending().await;
        }
        _ => {}
    }
    while let Some(request) = read_request(&mut stream).await {
        seen.requests.lock().unwrap().push(request);
        let Some(act) = next() else { return };
        if !perform(act, &mut stream, &seen).await {
            return;
        }
    }
}

/// Whether the connection goes on.
async fn perform(act: Act, stream: &mut TcpStream, seen: &Seen) -> bool {
    match act {
        Act::Answer(bytes) => stream.write_all(&bytes).await.is_ok(),
        Act::AnswerInTwo(first, second) => {
            let _ = stream.write_all(&first).await;
            SystemClock.sleep(Duration::from_millis(1)).await;
            stream.write_all(&second).await.is_ok()
        }
        Act::AnswerAndCut(bytes) => {
            let _ = stream.write_all(&bytes).await;
            false
        }
        Act::AnswerAndHang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            std::future::pending().await
        }
        Act::AnswerAndDrip(bytes) => {
            let _ = stream.write_all(&bytes).await;
            while stream.write_all(b"x").await.is_ok() {
                SystemClock.sleep(Duration::from_millis(5)).await;
            }
            false
        }
        Act::AnswerAndFlood(bytes, length) => {
            let _ = stream.write_all(&bytes).await;
            let piece = [b'x'; 1 << 16];
            while seen.written.load(Ordering::SeqCst) < length && stream.write_all(&piece).await.is_ok() {
                seen.written.fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
            false
        }
        Act::Refuse | Act::Blurt(_) => false,
    }
}

/// Reads head and body; none when the other side is done.
async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        if let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.trim().parse::<usize>().unwrap());
            while request.len() < head + 4 + length {
                if stream.read_buf(&mut request).await.ok()? == 0 {
                    return None;
                }
            }
            return Some(request);
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}

/// A clock moved by hand. Who sleeps on it moves it: a day of retries takes no time.
#[derive(Debug)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_700_000_000_000)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    async fn sleep_until(&self, moment: Timestamp) {
        self.0.fetch_max(moment.as_millis(), Ordering::SeqCst);
        tokio::task::yield_now().await;
    }

    fn chance(&self) -> Chance {
        Chance::new(0.5)
    }
}

/// A route to `url`, with the defaults.
pub(crate) fn route_to(url: &str) -> Route {
    Route {
        enabled: true,
        name: RouteName::new("vendor").unwrap(),
        destination: destination(url),
        mode: Mode::Async,
        policy: None,
        envelope: Envelope {
            max_attempts: 5,
            max_elapsed: Duration::from_secs(3600),
            min_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            backoff: Backoff::default(),
            retry_after_max: Duration::from_secs(3600),
            renewable_credentials: false,
        },
        fallback: None,
        alarm: None,
        keep_dead: Duration::from_secs(3600),
        concurrency: 64,
        rate: None,
        breaker: None,
        retry_budget: None,
        order: None,
        check_back: None,
        max_queued: 1000,
        body_limit: 1 << 20,
        idempotency: Idempotency { required: false, keep: Duration::from_secs(3600) },
        events: None,
    }
}

/// A destination at `url`, with the defaults.
pub(crate) fn destination(url: &str) -> Destination {
    Destination {
        url: url.parse().unwrap(),
        protocol: Protocol::Http,
        timeout: Duration::from_secs(10),
        response_limit: 1 << 20,
        auth: None,
        headers: Vec::new(),
        allow: Vec::new(),
    }
}
