//! The stream below lapin: TCP or TLS, which ends when it is told to, and hands on nothing that lapin cannot bear.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::scrub::Scrubber;

/// Bytes read at once.
const READ: usize = 16 * 1024;

/// Whatever carries bytes both ways.
pub(super) trait Carrier: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static {}

impl<C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static> Carrier for C {}

/// The stream.
pub(super) struct Wire {
    carrier: Box<dyn Carrier>,
    scrubber: Scrubber,
    buffer: Box<[u8]>,
    /// lapin's thread goes on for as long as the broker is silent, also when nobody waits for it any more: this is what
    /// ends it.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Wire {
    /// `carrier`, until `cut` is cancelled.
    pub(super) fn new(carrier: Box<dyn Carrier>, cut: CancellationToken) -> Self {
        let buffer = vec![0; READ].into_boxed_slice();
        Self { carrier, scrubber: Scrubber::default(), buffer, cut: Box::pin(cut.cancelled_owned()) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            let taken = this.scrubber.take(into);
            if taken > 0 || into.is_empty() {
                return Poll::Ready(Ok(taken));
            }
            if this.cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(0));
            }
            let mut read = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.carrier).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(0));
            }
            this.scrubber.feed(read.filled())?;
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.carrier).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.carrier).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.carrier).poll_shutdown(cx)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}
