//! A scripted vendor: a real server on loopback that answers as it is told, and remembers every request as it came
//! over the wire.
//!
//! It speaks HTTP/1.1 by hand, because half of what vendors do wrong no HTTP library would let it do.

mod reply;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstop::clock::Stopwatch;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use reply::{Gate, Reply, black_hole, garbage, half_response, huge, json, nothing, ok, status};

use crate::eventually;

/// A vendor. It stops when it is dropped.
pub struct Vendor {
    address: SocketAddr,
    desk: Arc<Desk>,
    _stop: DropGuard,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: String,
    /// The request target: path and query, untouched.
    pub target: String,
    /// The header fields in order, names in lower case, values as bytes.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
    /// When it had arrived, counted from the vendor's start.
    pub at: Duration,
}

/// What the vendor's connections share.
struct Desk {
    started: Stopwatch,
    received: Mutex<Vec<Received>>,
    scripts: Mutex<Scripts>,
    huge_sent: AtomicU64,
}

type Rule = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// What is answered: by path, and to all other paths.
#[derive(Default)]
struct Scripts {
    at: HashMap<String, Script>,
    elsewhere: Script,
}

/// One script.
#[derive(Default)]
enum Script {
    /// 200, always.
    #[default]
    Ok,
    /// One reply after the other, the last one for ever.
    Sequence { replies: Vec<Reply>, next: usize },
    /// As a rule says.
    Rule(Rule),
}

impl Vendor {
    /// Starts a vendor that gives these replies one after the other, the last one for ever, whatever the path.
    pub async fn answering(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let desk = Arc::new(Desk {
            started: Stopwatch::start(),
            received: Mutex::default(),
            scripts: Mutex::default(),
            huge_sent: AtomicU64::default(),
        });
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(serve(listener, Arc::clone(&desk), stop.clone()));
        let vendor = Self { address, desk, _stop: stop.drop_guard() };
        vendor.now_answers(replies);
        vendor
    }

    /// From now on gives these replies one after the other, the last one for ever.
    pub fn now_answers(&self, replies: impl IntoIterator<Item = Reply>) -> &Self {
        self.desk.scripts().elsewhere = Script::sequence(replies);
        self
    }

    /// From now on gives these replies to requests for `path`.
    pub fn answers_at(&self, path: &str, replies: impl IntoIterator<Item = Reply>) -> &Self {
        self.desk.scripts().at.insert(path.to_owned(), Script::sequence(replies));
        self
    }

    /// From now on answers as `rule` says.
    pub fn answers_by(&self, rule: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> &Self {
        self.desk.scripts().elsewhere = Script::Rule(Arc::new(rule));
        self
    }

    /// Every request so far, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.desk.received().clone()
    }

    /// Every request for `path` so far.
    pub fn received_at(&self, path: &str) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.path() == path).collect()
    }

    /// How much of the bodies of [`huge`] answers it has got rid of, into the kernel's buffers at least.
    pub fn huge_bytes_sent(&self) -> u64 {
        self.desk.huge_sent.load(Ordering::Relaxed)
    }

    /// Waits until at least `count` requests have arrived, and returns all of them.
    pub async fn receives(&self, count: usize) -> Vec<Received> {
        let what = format!("{count} requests at the vendor");
        eventually(&what, async || Some(self.received()).filter(|received| received.len() >= count)).await
    }
}

impl fmt::Display for Vendor {
    /// Its URL, without a slash at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

impl Received {
    /// The path without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The values of the field called `name`, in order, as text.
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.headers.iter().filter(|(known, _)| known == name);
        values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The one value of the field called `name`.
    ///
    /// # Panics
    /// When there is none, or more than one.
    pub fn header(&self, name: &str) -> String {
        match self.all(name).as_slice() {
            [value] => value.clone(),
            values => panic!("expected one {name}, found {values:?} in {self:?}"),
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Script {
    fn sequence(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::Sequence { replies: replies.into_iter().collect(), next: 0 }
    }

    fn reply(&mut self, request: &Received) -> Reply {
        match self {
            Self::Ok => ok(),
            Self::Sequence { replies, next } => {
                let reply = replies.get(*next).or(replies.last()).cloned().unwrap_or_else(ok);
                *next += 1;
                reply
            }
            Self::Rule(rule) => rule(request),
        }
    }
}

impl Desk {
    fn scripts(&self) -> MutexGuard<'_, Scripts> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a request and says what to answer.
    fn take(&self, mut request: Received) -> Reply {
        request.at = self.started.elapsed();
        let reply = {
            let mut scripts = self.scripts();
            let Scripts { at, elsewhere } = &mut *scripts;
            at.get_mut(request.path()).unwrap_or(elsewhere).reply(&request)
        };
        self.received().push(request);
        reply
    }
}

async fn serve(listener: TcpListener, desk: Arc<Desk>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
        let (desk, stop) = (Arc::clone(&desk), stop.clone());
        connections.spawn(async move {
            // A connection that breaks is the host's business, and seen there.
            let _ = stop.run_until_cancelled(connection(stream, &desk)).await;
        });
    }
}

/// Serves one connection until it is closed by either side.
async fn connection(stream: TcpStream, desk: &Desk) -> std::io::Result<()> {
    let mut wire = wire::Wire::new(stream);
    while let Some(request) = wire.request().await? {
        let reply = desk.take(request);
        if !wire.give(reply, &desk.huge_sent).await? {
            break;
        }
    }
    Ok(())
}
