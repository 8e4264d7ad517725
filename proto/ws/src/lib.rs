//! WebSocket connections as Coder uses them: without subprotocol (except for
//! relays) and without compression.
//!
//! [`ByteStream`] carries a byte stream in binary messages. [`json`] carries
//! JSON documents in text messages. [`server_handshake`] answers the upgrade
//! request; the dialling side makes its own.

mod byte_stream;
mod handshake;
pub mod json;
mod liveness;
mod monitor;

pub use byte_stream::ByteStream;
pub use handshake::{Rejection, server_handshake};
pub use liveness::Liveness;
pub use monitor::{CloseInfo, Monitor};
pub use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use tokio::io::{AsyncRead, AsyncWrite};

/// Largest message and largest frame taken from a peer, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Read buffer of a connection, which it keeps while it idles. Frames that are
/// larger get one of their size.
const READ_BUFFER: usize = 1024;
/// Output that is written at once; the buffer is as large as what waits.
const WRITE_BUFFER: usize = 4 * 1024;

/// Limits for a control connection: small buffers, messages up to
/// [`MAX_MESSAGE`].
#[must_use]
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// The server's end of a connection on which [`server_handshake`] was sent.
pub async fn accept<IO>(upgraded: IO, config: WebSocketConfig) -> WebSocketStream<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await
}

#[cfg(test)]
mod tests;
