//! The sink: where every contestant delivers to. It notes what arrives and answers at once.
//!
//! A path that ends in `/later` is answered 503 instead, and not noted: it makes a backlog of delayed messages. A sink
//! that is a black hole reads what comes and never answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ledger::Ledger;
use crate::wire::{self, Reader};

const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LATER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nlater";

/// Destinations that serve until this is dropped, on one thread of their own.
pub(crate) struct Sink {
    /// The destinations' addresses, in order.
    pub(crate) addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// `count` destinations, the first `holes` of which are black holes.
    pub(crate) fn start(ledger: Arc<Ledger>, count: usize, holes: usize) -> io::Result<Self> {
        let listeners: Vec<_> =
            (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
        let addresses = listeners.iter().map(std::net::TcpListener::local_addr).collect::<io::Result<_>>()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("sink".to_owned()).spawn(move || {
            let serving = runtime.block_on(serve(listeners, holes, ledger, stopped));
            if let Err(error) = serving {
                eprintln!("the sink failed: {error}");
            }
        })?;
        Ok(Self { addresses, stop, thread: Some(thread) })
    }

    /// The first destination's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses.first().copied().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9)))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listeners: Vec<std::net::TcpListener>,
    holes: usize,
    ledger: Arc<Ledger>,
    stop: CancellationToken,
) -> io::Result<()> {
    let connections = TaskTracker::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (ledger, tasks) = (Arc::clone(&ledger), connections.clone());
        let hole = index < holes;
        connections.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let ledger = Arc::clone(&ledger);
                // A connection that breaks is the contestant's affair: what it did not deliver, it delivers again.
                tasks.spawn(async move { drop(answer(stream, hole, &ledger).await) });
            }
        });
    }
    stop.cancelled().await;
    Ok(())
}

async fn answer(mut stream: TcpStream, hole: bool, ledger: &Ledger) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = Reader::new();
    while let Some(head) = reader.next(&mut stream).await? {
        if hole {
            continue;
        }
        if reader.path(&head).ends_with(b"/later") {
            stream.write_all(LATER).await?;
            continue;
        }
        if let Some(number) = wire::number(reader.body(&head)) {
            ledger.arrived(number);
        }
        stream.write_all(TAKEN).await?;
    }
    Ok(())
}
