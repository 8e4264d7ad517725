//! The two directions of a call on the server side.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc, watch};

use crate::{codec::Kind, error::Error, transport::PacketWriter};

/// Messages of the peer.
#[derive(Debug)]
pub struct Requests {
    messages: mpsc::Receiver<Bytes>,
    cancelled: watch::Receiver<bool>,
}

impl Requests {
    pub(crate) const fn new(
        messages: mpsc::Receiver<Bytes>,
        cancelled: watch::Receiver<bool>,
    ) -> Self {
        Self {
            messages,
            cancelled,
        }
    }

    /// Next message; `None` when the peer said that no more follow.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the peer gave the call up or is gone.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, Error> {
        tokio::select! {
            biased;
            message = self.messages.recv() => match message {
                Some(message) => Ok(Some(message)),
                None if *self.cancelled.borrow() => Err(Error::Cancelled),
                None => Ok(None),
            },
            () = is_cancelled(&mut self.cancelled) => Err(Error::Cancelled),
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
    cancelled: watch::Receiver<bool>,
}

impl Responses {
    pub(crate) const fn new(
        writer: Arc<Mutex<PacketWriter>>,
        stream: u64,
        cancelled: watch::Receiver<bool>,
    ) -> Self {
        Self {
            writer,
            stream,
            cancelled,
        }
    }

    /// Sends an encoded message. Waits while the peer does not read. Dropping
    /// the future half way breaks the call.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the peer gave the call up or is gone, others
    /// when the transport fails or the message is too large.
    pub async fn send(&self, message: Bytes) -> Result<(), Error> {
        let mut cancelled = self.cancelled.clone();
        let send = async {
            let mut writer = self.writer.lock().await;
            if writer.stream() != self.stream {
                return Err(Error::Cancelled);
            }
            writer.send(Kind::Message, message).await
        };
        tokio::select! {
            biased;
            () = is_cancelled(&mut cancelled) => Err(Error::Cancelled),
            sent = send => sent,
        }
    }

    /// Waits until the peer gave the call up or is gone.
    pub async fn cancelled(&self) {
        is_cancelled(&mut self.cancelled.clone()).await;
    }
}

impl fmt::Debug for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// The end of the call counts as well: nobody is left to read.
async fn is_cancelled(cancelled: &mut watch::Receiver<bool>) {
    // An error means that the call is over and its state dropped.
    let _ = cancelled.wait_for(|cancelled| *cancelled).await;
}
