//! What the tasks of one connection share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use adit_ssh::{OpenError, OpenOut};
use tokio_util::sync::CancellationToken;

use crate::channel::ChannelIo;
use crate::server::Shared;
use crate::tasks::Tasks;

/// One connection.
pub(crate) struct Connection {
    /// The server it belongs to.
    pub(crate) server: Arc<Shared>,
    /// Address of the peer without port; may be empty.
    pub(crate) peer_ip: String,
    /// Ends everything that belongs to the connection.
    pub(crate) token: CancellationToken,
    /// Sessions, forwards and listeners.
    pub(crate) tasks: Tasks,
    protocol: OnceLock<adit_ssh::Connection>,
    agent_forwarding: AtomicBool,
}

impl Connection {
    pub(crate) fn new(server: Arc<Shared>, peer_ip: String, token: CancellationToken) -> Self {
        Self {
            server,
            peer_ip,
            token,
            tasks: Tasks::default(),
            protocol: OnceLock::new(),
            agent_forwarding: AtomicBool::new(false),
        }
    }

    /// The peer is authenticated: channels can be opened.
    pub(crate) fn set_protocol(&self, protocol: adit_ssh::Connection) {
        let _ = self.protocol.set(protocol);
    }

    /// Whether the peer ever got that far.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.protocol.get().is_some()
    }

    /// Opens a channel to the client.
    pub(crate) async fn open(&self, open: &OpenOut) -> Result<ChannelIo, OpenError> {
        let protocol = self.protocol.get().ok_or(OpenError::Unavailable)?;
        protocol.open(open).await.map(ChannelIo::new)
    }

    /// The peer offers its SSH agent, to all sessions of the connection.
    pub(crate) fn offer_agent(&self) {
        self.agent_forwarding.store(true, Ordering::Relaxed);
    }

    pub(crate) fn agent_offered(&self) -> bool {
        self.agent_forwarding.load(Ordering::Relaxed)
    }
}
