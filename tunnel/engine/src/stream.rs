//! TCP streams inside the tunnel.

use std::io;
use std::net::SocketAddrV6;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::cell::{RING_MAX, StreamCell};

/// A TCP connection with a peer in the tunnel.
///
/// Reads and writes exchange bytes with the node through bounded buffers.
/// Dropping the stream closes it gracefully: what was written is still
/// delivered (like a kernel socket). [`abort`](Self::abort) resets it.
#[derive(Debug)]
pub struct TcpStream {
    inner: Arc<Inner>,
}

/// Reading half, see [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    inner: Arc<Inner>,
}

/// Writing half, see [`TcpStream::into_split`]. Dropping it sends FIN.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cell: Arc<StreamCell>,
    local: SocketAddrV6,
    remote: SocketAddrV6,
}

impl TcpStream {
    pub(crate) fn new(cell: Arc<StreamCell>, local: SocketAddrV6, remote: SocketAddrV6) -> Self {
        Self {
            inner: Arc::new(Inner {
                cell,
                local,
                remote,
            }),
        }
    }

    /// Own overlay address and port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddrV6 {
        self.inner.local
    }

    /// The peer's overlay address and port.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddrV6 {
        self.inner.remote
    }

    /// Resets the connection: unsent bytes are lost, the peer sees an error.
    pub fn abort(self) {
        let mut state = self.inner.cell.lock();
        state.abort = true;
        self.inner.cell.ring(state);
    }

    /// Splits into halves that may live in different tasks.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        (
            OwnedReadHalf {
                inner: Arc::clone(&self.inner),
            },
            OwnedWriteHalf { inner: self.inner },
        )
    }
}

impl Inner {
    fn poll_read(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.cell.lock();
        if !state.rx.is_empty() {
            let (a, b) = state.rx.slices();
            let n = a.len().min(buf.remaining());
            buf.put_slice(&a[..n]);
            let m = b.len().min(buf.remaining());
            buf.put_slice(&b[..m]);
            state.rx.consume(n + m);
            if state.rx_stalled && state.rx.space() >= RING_MAX / 2 {
                state.rx_stalled = false;
                self.cell.ring(state);
            }
            return Poll::Ready(Ok(()));
        }
        if state.rx_eof {
            return Poll::Ready(Ok(()));
        }
        if let Some(kind) = state.error {
            return Poll::Ready(Err(kind.into()));
        }
        state.wait_readable(cx.waker());
        Poll::Pending
    }

    fn poll_write(&self, cx: &Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut state = self.cell.lock();
        if let Some(kind) = state.error {
            return Poll::Ready(Err(kind.into()));
        }
        if state.tx_shutdown {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bufs.iter().all(|b| b.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let n = state.tx.push_vectored(bufs);
        if n == 0 {
            state.wait_writable(cx.waker());
            return Poll::Pending;
        }
        self.cell.ring(state);
        Poll::Ready(Ok(n))
    }

    fn shutdown(&self) {
        let mut state = self.cell.lock();
        if !std::mem::replace(&mut state.tx_shutdown, true) {
            self.cell.ring(state);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut state = self.cell.lock();
        state.dropped = true;
        state.tx_shutdown = true;
        self.cell.ring(state);
    }
}

impl OwnedReadHalf {
    /// The peer's overlay address and port.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddrV6 {
        self.inner.remote
    }
}

impl OwnedWriteHalf {
    /// The peer's overlay address and port.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddrV6 {
        self.inner.remote
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        self.inner.shutdown();
    }
}

/// Whole streams and halves read and write alike.
macro_rules! reads {
    ($($stream:ty),*) => {$(
        impl AsyncRead for $stream {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.inner.poll_read(cx, buf)
            }
        }
    )*};
}

macro_rules! writes {
    ($($stream:ty),*) => {$(
        impl AsyncWrite for $stream {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.inner.poll_write(cx, &[io::IoSlice::new(buf)])
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.inner.poll_write(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.inner.shutdown();
                Poll::Ready(Ok(()))
            }
        }
    )*};
}

reads!(TcpStream, OwnedReadHalf);
writes!(TcpStream, OwnedWriteHalf);
