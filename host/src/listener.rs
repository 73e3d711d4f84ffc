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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;

/// Connections open at once on one listener; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// How long a caller may take to send a request's header section, or stay idle between requests.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// The longest header section, in bytes: hyper's buffer for one request line and its fields.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// How long accepting pauses when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `stop`, then lets requests under way finish.
///
/// The caller bounds that wait, by dropping this future.
pub async fn serve(listener: TcpListener, router: Router, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN).max_buf_size(MAX_HEADER_BYTES);
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
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            // An error here is the caller's: it hung up, or did not speak HTTP.
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
    connections.close();
    connections.wait().await;
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(tokio::net::TcpStream, Place)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}
