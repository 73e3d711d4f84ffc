//! The load generator: a number of connections, each of which sends its next message when the last was answered, or
//! at a steady pace.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::ledger::Ledger;
use crate::wire::{self, Reader};

/// How long a sender waits before it sends again what was not taken.
const AGAIN: Duration = Duration::from_millis(5);
/// How often a message that is not taken is sent, before the run is given up.
const TRIES: usize = 2000;

/// What is sent.
#[derive(Clone)]
pub(crate) struct Load {
    /// To whom.
    pub(crate) to: SocketAddr,
    /// On these paths, in turns by the message's number.
    pub(crate) paths: Arc<Vec<String>>,
    /// These messages.
    pub(crate) messages: Range<usize>,
    /// Over so many connections.
    pub(crate) connections: usize,
    /// So many in a second, all connections together; without it as fast as they are answered.
    pub(crate) per_second: Option<u32>,
}

/// What was met with.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Answers that said "not now".
    pub(crate) refused: u64,
    /// Connections that broke.
    pub(crate) broken: u64,
}

/// Sends everything, on a thread of its own, and returns when the last message is answered.
///
/// # Errors
/// When a message is not taken however often it is sent.
pub(crate) fn run(load: &Load, ledger: &Arc<Ledger>) -> anyhow::Result<Met> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let next = Arc::new(AtomicUsize::new(load.messages.start));
    let (refused, broken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    runtime.block_on(async {
        let tasks = TaskTracker::new();
        let senders: Vec<_> = (0..load.connections)
            .map(|_| {
                let sender = Sender {
                    load: load.clone(),
                    ledger: Arc::clone(ledger),
                    next: Arc::clone(&next),
                    refused: Arc::clone(&refused),
                    broken: Arc::clone(&broken),
                };
                tasks.spawn(sender.run())
            })
            .collect();
        for sender in senders {
            sender.await??;
        }
        anyhow::Ok(())
    })?;
    Ok(Met { refused: refused.load(Ordering::Relaxed), broken: broken.load(Ordering::Relaxed) })
}

struct Sender {
    load: Load,
    ledger: Arc<Ledger>,
    next: Arc<AtomicUsize>,
    refused: Arc<AtomicU64>,
    broken: Arc<AtomicU64>,
}

impl Sender {
    async fn run(self) -> anyhow::Result<()> {
        let mut pace = self.load.per_second.map(|rate| {
            let mut pace = tokio::time::interval(Duration::from_secs(self.load.connections as u64) / rate.max(1));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        let mut connection = None;
        let mut request = Vec::with_capacity(2 * wire::BODY);
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.load.messages.end {
                return Ok(());
            }
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            self.write_request(number, &mut request);
            self.ledger.sent(number);
            let mut tries = 0;
            while !self.send(&mut connection, &request).await {
                tries += 1;
                anyhow::ensure!(tries < TRIES, "message {number} was sent {tries} times and never taken");
                clock::wait(AGAIN).await;
            }
            self.ledger.answered(number);
        }
    }

    fn write_request(&self, number: usize, request: &mut Vec<u8>) {
        let paths = &self.load.paths;
        let path = paths.get(number % paths.len().max(1)).map_or("/", String::as_str);
        let to = self.load.to;
        request.clear();
        request.extend_from_slice(
            format!(
                "POST {path} HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                wire::BODY
            )
            .as_bytes(),
        );
        request.extend_from_slice(&wire::body(number));
    }

    /// Sends once; false when it was not taken.
    async fn send(&self, connection: &mut Option<(TcpStream, Reader)>, request: &[u8]) -> bool {
        match self.exchange(connection, request).await {
            Ok(200..=299) => true,
            Ok(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(_) => {
                *connection = None;
                self.broken.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    async fn exchange(&self, connection: &mut Option<(TcpStream, Reader)>, request: &[u8]) -> io::Result<u16> {
        let (stream, reader) = match connection {
            Some(open) => open,
            None => {
                let stream = TcpStream::connect(self.load.to).await?;
                stream.set_nodelay(true)?;
                connection.insert((stream, Reader::new()))
            }
        };
        stream.write_all(request).await?;
        match reader.next(stream).await? {
            Some(head) => Ok(reader.status(&head)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
