//! What lapin asks of a runtime: tokio's, with a stream of our own instead of a plain TCP one.

use std::future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;

use super::wire::Wire;

/// The tasks and timers are tokio's.
pub(super) type Kit = RuntimeParts<Tokio, Streams>;

/// Tokio's reactor, with [`Wire`] for a stream.
#[derive(Clone, Debug)]
pub(super) struct Streams(Tokio);

/// The runtime that the caller runs on.
///
/// # Panics
/// Outside of a tokio runtime.
pub(super) fn runtime() -> Runtime<Kit> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Streams(tokio)))
}

impl Reactor for Streams {
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Never asked for: lapin registers nothing.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Wire, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, length: Duration) -> Self::Sleep {
        self.0.sleep(length)
    }

    fn interval(&self, length: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(length)
    }

    /// Never asked for: connections are made before lapin gets them (`link`).
    fn tcp_connect_addr(&self, _: SocketAddr) -> impl Future<Output = io::Result<Wire>> + Send + 'static {
        future::ready(Err(io::Error::from(io::ErrorKind::Unsupported)))
    }
}
