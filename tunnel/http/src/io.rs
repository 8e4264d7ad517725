//! A connected byte stream of any make.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

trait Io: AsyncRead + AsyncWrite + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Send + Sync> Io for T {}

/// A connected byte stream: TCP, TLS over TCP, or either through a proxy.
///
/// Bytes that were read together with an HTTP head come first.
pub struct BoxIo {
    read_ahead: Bytes,
    io: Pin<Box<dyn Io>>,
}

impl BoxIo {
    /// Boxes a stream.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Sync + 'static) -> Self {
        Self {
            read_ahead: Bytes::new(),
            io: Box::pin(io),
        }
    }

    /// Puts bytes back that were read too far.
    pub fn with_read_ahead(mut self, bytes: Bytes) -> Self {
        self.read_ahead = if self.read_ahead.is_empty() {
            bytes
        } else {
            [bytes.as_ref(), self.read_ahead.as_ref()].concat().into()
        };
        self
    }
}

impl AsyncRead for BoxIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ahead.is_empty() {
            return self.io.as_mut().poll_read(cx, buf);
        }
        let len = self.read_ahead.len().min(buf.remaining());
        buf.put_slice(&self.read_ahead[..len]);
        self.read_ahead.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BoxIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io.as_mut().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl fmt::Debug for BoxIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxIo")
    }
}
