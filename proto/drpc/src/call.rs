//! The two directions of a call on the server side.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::{
    codec::Kind,
    error::Error,
    exchange::{Exchange, Next},
    transport::PacketWriter,
};

/// Messages of the peer.
#[derive(Debug)]
pub struct Requests {
    exchange: Arc<Exchange>,
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.exchange.refuse();
    }
}

impl Requests {
    pub(crate) const fn new(exchange: Arc<Exchange>) -> Self {
        Self { exchange }
    }

    /// Next message; `None` when the peer said that no more follow.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the peer gave the call up or is gone.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, Error> {
        match self.exchange.take().await {
            Next::Message(message) => Ok(Some(message)),
            Next::Complete => Ok(None),
            Next::Cancelled => Err(Error::Cancelled),
        }
    }

    /// The one message of a method that takes one.
    ///
    /// # Errors
    /// As [`Requests::recv`], and [`Error::NoMessage`] when there is none.
    pub async fn single(&mut self) -> Result<Bytes, Error> {
        self.recv().await?.ok_or(Error::NoMessage)
    }
}

/// Messages to the peer. Clones share the call.
#[derive(Clone)]
pub struct Responses {
    writer: Arc<Mutex<PacketWriter>>,
    stream: u64,
    exchange: Arc<Exchange>,
}

impl Responses {
    pub(crate) const fn new(
        writer: Arc<Mutex<PacketWriter>>,
        stream: u64,
        exchange: Arc<Exchange>,
    ) -> Self {
        Self {
            writer,
            stream,
            exchange,
        }
    }

    /// Sends an encoded message. Waits while the peer does not read. Dropping
    /// the future half way breaks the call.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the peer gave the call up or is gone, others
    /// when the transport fails or the message is too large.
    pub async fn send(&self, message: Bytes) -> Result<(), Error> {
        let send = async {
            let mut writer = self.writer.lock().await;
            if writer.stream() != self.stream {
                return Err(Error::Cancelled);
            }
            writer.send(Kind::Message, message).await
        };
        tokio::select! {
            biased;
            () = self.exchange.cancelled() => Err(Error::Cancelled),
            sent = send => sent,
        }
    }

    /// Waits until the peer gave the call up or is gone.
    pub async fn cancelled(&self) {
        self.exchange.cancelled().await;
    }
}

impl fmt::Debug for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}
