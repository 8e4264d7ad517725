//! Terminals that outlive the connections attached to them.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_agent_exec::{ConnectionReporter, ContextProvider};
use tokio::io::{AsyncRead, AsyncWrite};

/// The reconnecting terminal service. Clones share everything.
#[derive(Debug, Clone)]
pub struct Service;

impl Service {
    /// A service without terminals.
    #[must_use]
    pub fn new(_context: Arc<dyn ContextProvider>, _reporter: Arc<dyn ConnectionReporter>) -> Self {
        Self
    }

    /// Serves one connection to its end. Dropping the future detaches it.
    pub async fn serve<IO>(&self, _io: IO, _remote: Option<SocketAddr>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
    }

    /// Connections open at this moment, from accept on.
    #[must_use]
    pub fn connections(&self) -> u32 {
        0
    }

    /// Connections accepted since start.
    #[must_use]
    pub fn total(&self) -> u64 {
        0
    }

    /// Closes every terminal (graceful shutdown); connections end by
    /// themselves. Returns when all is gone or `deadline` has passed, then
    /// cuts what is left.
    pub async fn close(&self, _deadline: Duration) {}
}
