//! Listening: accepts connections and serves a router on them, within bounds, until told to stop.
//!
//! Both listeners (ingress and admin) are served by this, so that neither can be held open by slow or idle callers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;

/// Connections open at once on one listener, at most; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// How long a caller may take no byte of its answer. What it does not take is held in memory meanwhile.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// How long a caller may take to send a request's header section, or stay idle between requests.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// The longest header section, in bytes: hyper's buffer for one request line and its fields.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// How long accepting pauses when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What the process may have open at once, raised as far as it may be, shared out: callers must never take the
/// descriptors that attempts need.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors(usize);

impl Descriptors {
    /// Raises the limit, and says so if it is low all the same.
    pub fn raise() -> Self {
        let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
        if limit < 4096 {
            tracing::warn!(limit, "few file descriptors: raise `ulimit -n`, so that more callers and attempts fit");
        }
        Self(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// Half of them, for the ingress.
    pub fn for_callers(self) -> usize {
        (self.0 / 2).clamp(1, MAX_CONNECTIONS)
    }

    /// An eighth of them, for the admin API.
    pub fn for_admin(self) -> usize {
        (self.0 / 8).clamp(1, MAX_CONNECTIONS)
    }
}

/// Serves `router` on `listener` until `stop`, at most `connections` at once, then lets requests under way finish.
///
/// The caller bounds that wait, by dropping this future.
pub async fn serve(
    listener: TcpListener,
    connections: usize,
    router: Router,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(connections));
    let graceful = GracefulShutdown::new();
    let open = TaskTracker::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN).max_buf_size(MAX_HEADER_BYTES);
    // A caller that has sent its whole request may close its side and still be answered.
    http.half_close(true);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not accept a connection");
                clock.sleep(PAUSE).await;
                continue;
            }
        };
        // Answers are small and awaited: they must not wait for more to send.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(TAKEN_WITHIN));
        let connection =
            http.serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        open.spawn(async move {
            // An error here is the caller's: it hung up, or did not speak HTTP.
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
    open.close();
    open.wait().await;
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(tokio::net::TcpStream, Place)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}
