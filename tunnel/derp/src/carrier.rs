//! What carries the DERP byte stream: an upgraded connection as it is, or the
//! binary messages of a WebSocket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::io::poll_read_buf;

/// The two ways to carry the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CarrierKind {
    /// `Upgrade: DERP`, then the bare stream.
    Upgrade,
    /// Binary messages of a WebSocket with the subprotocol `derp`.
    WebSocket,
}

/// Largest WebSocket message that is sent. What Coder's programs send, and
/// what a peer's buffer therefore certainly takes.
const WEBSOCKET_CHUNK: usize = 4096;

/// A connection, before it is read and written.
pub(crate) enum Carrier<IO> {
    Upgrade(IO),
    WebSocket(Box<WebSocketStream<IO>>),
}

/// How a connection broke.
#[derive(Debug)]
pub(crate) enum CarrierError {
    Io(io::Error),
    /// The other side broke the WebSocket protocol, or sent text.
    Protocol(String),
}

impl From<io::Error> for CarrierError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<tungstenite::Error> for CarrierError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Io(error) => Self::Io(error),
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Io(io::ErrorKind::UnexpectedEof.into())
            }
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// Read buffer of a relay's WebSocket, in bytes: thousands of them idle.
pub(crate) const RELAY_READ_BUFFER: usize = 4 << 10;

/// Read buffer of a client's WebSocket, in bytes: it has one or two.
pub(crate) const CLIENT_READ_BUFFER: usize = 32 << 10;

/// WebSocket settings with bounded memory.
pub(crate) fn websocket_config(read_buffer: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .write_buffer_size(16 << 10)
        .max_write_buffer_size(1 << 20)
        .max_message_size(Some(2 << 20))
        .max_frame_size(Some(2 << 20))
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Carrier<IO> {
    /// Appends received bytes to `buffer`, which must have room. `false` is
    /// the end of the stream.
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<Result<bool, CarrierError>> {
        match self {
            Self::Upgrade(io) => {
                let read = ready!(poll_read_buf(Pin::new(io), cx, buffer))?;
                Poll::Ready(Ok(read > 0))
            }
            Self::WebSocket(socket) => loop {
                match ready!(Pin::new(&mut *socket).poll_next(cx)) {
                    None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(false)),
                    Some(Ok(Message::Binary(data))) if data.is_empty() => {}
                    Some(Ok(Message::Binary(data))) => {
                        buffer.extend_from_slice(&data);
                        return Poll::Ready(Ok(true));
                    }
                    Some(Ok(Message::Text(_))) => {
                        let reason = "text message on a binary stream".to_owned();
                        return Poll::Ready(Err(CarrierError::Protocol(reason)));
                    }
                    Some(Ok(_)) => {}
                    // A stopped server ends the TCP stream without a word.
                    Some(Err(tungstenite::Error::Protocol(
                        ProtocolError::ResetWithoutClosingHandshake,
                    ))) => return Poll::Ready(Ok(false)),
                    Some(Err(error)) => return Poll::Ready(Err(error.into())),
                }
            },
        }
    }

    /// Sends from `out`; ready when it is empty and flushed.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
    ) -> Poll<Result<(), CarrierError>> {
        match self {
            Self::Upgrade(io) => {
                let mut io = Pin::new(io);
                while !out.is_empty() {
                    let written = ready!(io.as_mut().poll_write(cx, out))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                    }
                    out.advance(written);
                }
                ready!(io.poll_flush(cx))?;
            }
            Self::WebSocket(socket) => {
                let mut socket = Pin::new(&mut **socket);
                while !out.is_empty() {
                    ready!(socket.as_mut().poll_ready(cx))?;
                    let chunk = out.split_to(out.len().min(WEBSOCKET_CHUNK));
                    socket
                        .as_mut()
                        .start_send(Message::Binary(chunk.freeze()))?;
                }
                ready!(socket.poll_flush(cx))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says goodbye: a close frame on a WebSocket, then the end of the stream.
    /// `code` 1000 is an ordinary end.
    pub(crate) fn start_close(&mut self, code: u16) {
        if let Self::WebSocket(socket) = self {
            let frame = CloseFrame {
                code: CloseCode::from(code),
                reason: "".into(),
            };
            // On a broken connection there is nobody to tell.
            let _ = Pin::new(&mut **socket).start_send(Message::Close(Some(frame)));
        }
    }

    /// Completes [`start_close`](Self::start_close).
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Upgrade(io) => Pin::new(io).poll_shutdown(cx).map(drop),
            Self::WebSocket(socket) => {
                let mut socket = Pin::new(&mut **socket);
                let flushed = ready!(socket.as_mut().poll_flush(cx));
                if flushed.is_err() {
                    return Poll::Ready(());
                }
                Pin::new(socket.get_mut().get_mut())
                    .poll_shutdown(cx)
                    .map(drop)
            }
        }
    }
}
