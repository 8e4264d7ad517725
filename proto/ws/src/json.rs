//! Text documents, one per message.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, Utf8Bytes},
};

use crate::monitor::CloseInfo;

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One document. Binary messages are taken too if they are text, as some
    /// servers send JSON that way.
    Text(Utf8Bytes),
    /// The end, with the peer's close frame if there was one.
    End(Option<CloseInfo>),
}

/// Sends a document and waits until it is on its way.
///
/// # Errors
/// When the connection fails or is closed.
pub async fn send_text<IO>(
    socket: &mut WebSocketStream<IO>,
    text: impl Into<Utf8Bytes>,
) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    socket.send(Message::Text(text.into())).await
}

/// Next document. Answers pings on the way. Cancel-safe.
///
/// # Errors
/// When the connection fails or the peer breaks the protocol.
pub async fn next_text<IO>(socket: &mut WebSocketStream<IO>) -> Result<Document, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match socket.next().await.transpose()? {
            Some(Message::Text(text)) => return Ok(Document::Text(text)),
            Some(Message::Binary(data)) => {
                let text =
                    Utf8Bytes::try_from(data).map_err(|error| Error::Utf8(error.to_string()))?;
                return Ok(Document::Text(text));
            }
            Some(Message::Close(frame)) => {
                return Ok(Document::End(frame.as_ref().map(CloseInfo::from)));
            }
            Some(_) => {}
            None => return Ok(Document::End(None)),
        }
    }
}
