//! A listener that hangs up on everybody, and remembers when they knocked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstop::clock::Stopwatch;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::eventually;

/// The listener. It stops when it is dropped.
pub struct Knocks {
    port: u16,
    at: Arc<Mutex<Vec<Duration>>>,
    _stop: DropGuard,
}

impl Knocks {
    /// Listens on loopback.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (at, stop, started) = (Arc::<Mutex<Vec<_>>>::default(), CancellationToken::new(), Stopwatch::start());
        let (noting, stopping) = (Arc::clone(&at), stop.clone());
        TaskTracker::new().spawn(async move {
            while let Some(Ok((stream, _))) = stopping.run_until_cancelled(listener.accept()).await {
                noting.lock().unwrap_or_else(PoisonError::into_inner).push(started.elapsed());
                drop(stream);
            }
        });
        Self { port, at, _stop: stop.drop_guard() }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for so many knocks, and answers the time between each and the next.
    pub async fn between(&self, count: usize) -> Vec<Duration> {
        let what = format!("{count} knocks");
        let at = eventually(&what, async || {
            let at = self.at.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (at.len() >= count).then_some(at)
        })
        .await;
        at.windows(2).filter_map(|pair| pair.last()?.checked_sub(*pair.first()?)).collect()
    }
}
