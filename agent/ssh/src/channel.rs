//! One SSH channel as the rest of the server sees it.

use adit_ssh::{Channel, ChannelId, Gone, RequestOut, Stream};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

/// Both directions of a channel. Writers respect the peer's window, each
/// channel on its own. Dropping it closes the channel.
pub(crate) struct ChannelIo(Channel);

impl ChannelIo {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(channel)
    }

    pub(crate) fn id(&self) -> ChannelId {
        self.0.id()
    }

    /// The next piece the peer sent, or `None` once it has ended. Taking it
    /// lets the peer send more. Cancel safe.
    pub(crate) async fn recv(&self) -> Option<Bytes> {
        self.0.recv().await.map(|(_, piece)| piece)
    }

    /// Nobody will call [`ChannelIo::recv`] again.
    pub(crate) fn discard(&self) {
        self.0.discard();
    }

    /// Resolves once the peer has closed the channel or the connection ended.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }

    /// Resolves once the connection has ended.
    pub(crate) async fn cut(&self) {
        self.0.cut().await;
    }

    /// True once the peer has closed the channel or the connection ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends data, waiting for the peer's window.
    pub(crate) async fn send(&self, data: Bytes) -> Result<(), Gone> {
        self.0.send(Stream::Data, data).await
    }

    /// Sends data as standard error.
    pub(crate) async fn send_stderr(&self, data: Bytes) -> Result<(), Gone> {
        self.0.send(Stream::Stderr, data).await
    }

    /// Copies between the channel and a local stream until both have ended.
    pub(crate) async fn relay(&self, stream: impl AsyncRead + AsyncWrite) {
        adit_ssh::relay(&self.0, stream).await;
    }

    /// Ends the channel, with an exit status if there is one.
    pub(crate) fn finish(&self, exit_status: Option<u32>) {
        let ending = || {
            if let Some(status) = exit_status {
                self.0.request(&RequestOut::ExitStatus(status))?;
                self.0.eof()?;
            }
            self.0.close()
        };
        // The peer may have closed the channel or left meanwhile.
        let _: Result<(), Gone> = ending();
    }
}
