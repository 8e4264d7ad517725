//! One SSH channel as the rest of the server sees it.

use std::sync::Arc;

use bytes::Bytes;
use russh::server::Msg;
use russh::{Channel, ChannelId, ChannelWriteHalf};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::inbox::Inbox;

/// Extended data type of standard error (RFC 4254 §5.2).
const STDERR: u32 = 1;

/// The peer closed the channel or the connection is gone.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("channel closed")]
pub(crate) struct Gone;

/// Both directions of a channel. Writers respect the peer's window, each
/// channel on its own.
pub(crate) struct ChannelIo {
    conn: Arc<Connection>,
    inbox: Arc<Inbox>,
    out: ChannelWriteHalf<Msg>,
    closed: CancellationToken,
}

impl ChannelIo {
    /// Takes a channel over. Its read half is not used: data comes through
    /// the handler's callback into the inbox, so that nothing queues up in
    /// the library.
    pub(crate) fn new(conn: Arc<Connection>, channel: Channel<Msg>) -> Self {
        let (_, out) = channel.split();
        let (inbox, closed) = conn.register(out.id());
        Self {
            conn,
            inbox,
            out,
            closed,
        }
    }

    pub(crate) fn id(&self) -> ChannelId {
        self.out.id()
    }

    /// The next piece the peer sent, or `None` once it has ended. Taking it
    /// lets the peer send more. Cancel safe.
    pub(crate) async fn recv(&self) -> Option<Bytes> {
        let piece = self.inbox.next().await?;
        self.conn.consumed(self.id(), &self.inbox, piece.len());
        Some(piece)
    }

    /// Nobody will call [`ChannelIo::recv`] again.
    pub(crate) fn discard(&self) {
        self.inbox.discard();
    }

    /// Resolves once the peer has closed the channel or the connection ended.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Resolves once the connection has ended.
    pub(crate) async fn cut(&self) {
        self.conn.token.cancelled().await;
    }

    /// True once the peer has closed the channel or the connection ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Sends data, waiting for the peer's window.
    pub(crate) async fn send(&self, data: Bytes) -> Result<(), Gone> {
        self.unless_closed(self.out.data_bytes(data)).await
    }

    /// Sends data as standard error.
    pub(crate) async fn send_stderr(&self, data: Bytes) -> Result<(), Gone> {
        self.unless_closed(self.out.extended_data_bytes(STDERR, data))
            .await
    }

    /// Says that no more data follows.
    pub(crate) async fn eof(&self) -> Result<(), Gone> {
        self.unless_closed(self.out.eof()).await
    }

    /// Ends the channel, with an exit status if there is one.
    pub(crate) async fn finish(&self, exit_status: Option<u32>) {
        let ending = async {
            if let Some(status) = exit_status {
                self.out.exit_status(status).await?;
                self.out.eof().await?;
            }
            self.conn.forget(self.id());
            self.out.close().await
        };
        // The peer may have closed the channel or left meanwhile.
        let _ = self.unless_closed(ending).await;
    }

    /// A write that is dropped half-way loses window, which no longer matters
    /// once the channel is closed.
    async fn unless_closed(
        &self,
        work: impl Future<Output = Result<(), russh::Error>>,
    ) -> Result<(), Gone> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Gone),
            done = work => done.map_err(|_| Gone),
        }
    }
}

impl Drop for ChannelIo {
    fn drop(&mut self) {
        self.conn.forget(self.out.id());
    }
}
