//! One stream as an asynchronous byte stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    connection::{Owner, State},
    error::Error,
    session::{Read, Write},
};

/// A stream of a session. Dropping it finishes the own direction and discards
/// what still arrives; [`Stream::reset`] gives up both directions.
#[derive(Debug)]
pub struct Stream {
    owner: Arc<Owner>,
    id: u32,
}

impl Stream {
    pub(crate) const fn new(owner: Arc<Owner>, id: u32) -> Self {
        Self { owner, id }
    }

    /// Number of the stream, unique within the session.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Gives the stream up in both directions at once.
    pub fn reset(&mut self) {
        let mut state = self.owner.shared.lock();
        state.session.reset(self.id);
        state.notify();
        state.wake_driver();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.owner.shared.lock();
        match state.session.read(self.id, buf.remaining()) {
            Read::Data(data) => {
                buf.put_slice(&data);
                state.wake_driver();
                Poll::Ready(Ok(()))
            }
            Read::Eof => Poll::Ready(Ok(())),
            Read::Reset => Poll::Ready(Err(broken(&state))),
            Read::Pending => {
                if let Some(wakers) = state.wakers.get_mut(&self.id) {
                    wakers.read = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut state = self.owner.shared.lock();
        match state.session.write(self.id, buf) {
            Write::Taken(count) => {
                state.wake_driver();
                Poll::Ready(Ok(count))
            }
            Write::Closed => Poll::Ready(Err(broken(&state))),
            Write::Pending => {
                if let Some(wakers) = state.wakers.get_mut(&self.id) {
                    wakers.write = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// The driver sends on its own; there is nothing to push.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.owner.shared.lock();
        state.session.finish(self.id);
        state.wake_driver();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.owner.shared.lock();
        state.wakers.remove(&self.id);
        state.session.release(self.id);
        state.wake_driver();
    }
}

/// The error of a stream that was reset, by the end of the session or alone.
fn broken(state: &State) -> io::Error {
    match state.session.error() {
        Some(Error::Eof) => io::Error::new(io::ErrorKind::UnexpectedEof, Error::Eof),
        Some(error) => error.clone().into(),
        None => io::ErrorKind::ConnectionReset.into(),
    }
}
