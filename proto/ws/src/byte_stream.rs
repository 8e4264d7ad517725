//! A byte stream in binary messages.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, error::ProtocolError},
};

use crate::{
    liveness::{Liveness, Probe, Prober},
    monitor::Monitor,
};

/// Largest message sent: older peers take no more than 4 MiB, and smaller
/// pieces let others have their turn.
const MAX_SEND: usize = 256 * 1024;
/// How long a shutdown waits for the peer's close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// A byte stream over the binary messages of a WebSocket. Where one message
/// ends and the next begins has no meaning.
///
/// Pings are answered while reading. A text message fails the stream with
/// close code 1003. A peer that ends with 1000, with 1001 or without a close
/// frame is at its end of file; other codes are errors.
#[derive(Debug)]
pub struct ByteStream<IO> {
    ws: WebSocketStream<IO>,
    /// Rest of the last message.
    input: Bytes,
    monitor: Monitor,
    prober: Option<Prober>,
    closing: Closing,
}

#[derive(Debug)]
enum Closing {
    Open,
    /// The close frame is on its way.
    Flushing,
    /// Waiting for the peer's close frame.
    Waiting(Pin<Box<Sleep>>),
    /// Only the transport is left to close.
    Transport,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ByteStream<IO> {
    /// A stream on a connection.
    #[must_use]
    pub fn new(ws: WebSocketStream<IO>) -> Self {
        Self {
            ws,
            input: Bytes::new(),
            monitor: Monitor::new(),
            prober: None,
            closing: Closing::Open,
        }
    }

    /// The same with pings to the peer, which must be read from to work. A
    /// peer that does not answer is closed with 1001 `liveness probe failed`.
    #[must_use]
    pub fn with_liveness(mut self, liveness: Liveness) -> Self {
        self.prober = Some(Prober::new(liveness));
        self
    }

    /// Tells how the connection ended, after the stream was given away.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    fn poll_probe(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(prober) = &mut self.prober else {
            return Ok(());
        };
        match prober.poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Probe::Ping(payload)) => {
                // Have the timer wake us again.
                cx.waker().wake_by_ref();
                self.queue(Message::Ping(payload), cx)
            }
            Poll::Ready(Probe::Dead) => {
                self.fail(cx, 1001, "liveness probe failed");
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no answer to WebSocket ping",
                ))
            }
        }
    }

    /// Sends a control message soon, whatever else is being sent.
    fn queue(&mut self, message: Message, cx: &mut Context<'_>) -> io::Result<()> {
        let mut ws = Pin::new(&mut self.ws);
        ws.as_mut().start_send(message).map_err(io_error)?;
        match ws.poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(io_error(error)),
            _ => Ok(()),
        }
    }

    fn fail(&mut self, cx: &mut Context<'_>, code: u16, reason: &str) {
        self.monitor.set_close(code, reason);
        if matches!(self.closing, Closing::Open) {
            self.closing = Closing::Flushing;
            let frame = self.monitor.frame_to_send();
            // The stream has failed already; this only tells the peer.
            let _ = self.queue(Message::Close(Some(frame)), cx);
        }
    }

    /// Next piece of input; `None` at the end.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            let message = match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
                None => return Poll::Ready(self.end()),
                Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                    return Poll::Ready(self.end());
                }
                Some(Err(Error::Io(error))) => return Poll::Ready(Err(error)),
                Some(Err(error)) => {
                    let code = if matches!(error, Error::Capacity(_)) {
                        1009
                    } else {
                        1002
                    };
                    self.fail(cx, code, "");
                    return Poll::Ready(Err(io_error(error)));
                }
                Some(Ok(message)) => message,
            };
            match message {
                Message::Binary(data) if data.is_empty() => {}
                Message::Binary(data) => return Poll::Ready(Ok(Some(data))),
                Message::Text(_) => {
                    self.fail(cx, 1003, "unexpected text message");
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "unexpected WebSocket text message",
                    )));
                }
                Message::Pong(payload) => {
                    if let Some(prober) = &mut self.prober {
                        prober.pong(&payload);
                    }
                }
                Message::Close(frame) => self.monitor.received(frame.as_ref()),
                Message::Ping(_) | Message::Frame(_) => {}
            }
        }
    }

    fn end(&self) -> io::Result<Option<Bytes>> {
        match self.monitor.close_info() {
            Some(info) if !info.is_normal() => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                format!("WebSocket closed by peer: {} {}", info.code, info.reason),
            )),
            _ => Ok(None),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.poll_probe(cx)?;
        if this.input.is_empty() {
            match ready!(this.poll_input(cx))? {
                Some(data) => this.input = data,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.input.len().min(buf.remaining());
        buf.put_slice(this.input.get(..count).unwrap_or_default());
        this.input.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<IO> {
    /// Each call makes one message.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut ws = Pin::new(&mut self.ws);
        ready!(ws.as_mut().poll_ready(cx)).map_err(io_error)?;
        let piece = buf.get(..MAX_SEND).unwrap_or(buf);
        let message = Message::Binary(Bytes::copy_from_slice(piece));
        ws.start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ws).poll_flush(cx).map_err(io_error)
    }

    /// Sends the close frame, waits a moment for the peer's, and closes the
    /// transport.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.closing {
                Closing::Open => {
                    this.closing = Closing::Flushing;
                    let frame = this.monitor.frame_to_send();
                    // Fails when the peer closed before us, which is as good.
                    let _ = Pin::new(&mut this.ws).start_send(Message::Close(Some(frame)));
                }
                Closing::Flushing => {
                    this.closing = match ready!(Pin::new(&mut this.ws).poll_flush(cx)) {
                        Ok(()) => Closing::Waiting(Box::pin(tokio::time::sleep(CLOSE_WAIT))),
                        Err(_) => Closing::Transport,
                    };
                }
                Closing::Waiting(timer) => {
                    if timer.as_mut().poll(cx).is_ready() {
                        this.closing = Closing::Transport;
                        continue;
                    }
                    match ready!(Pin::new(&mut this.ws).poll_next(cx)) {
                        Some(Ok(Message::Close(frame))) => this.monitor.received(frame.as_ref()),
                        Some(Ok(_)) => {}
                        None | Some(Err(_)) => this.closing = Closing::Transport,
                    }
                }
                Closing::Transport => return Pin::new(this.ws.get_mut()).poll_shutdown(cx),
            }
        }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}
