//! The server: connections, counters, shutdown.
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Config;
use crate::hostkey::HostKey;

/// Sessions open at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Plain SSH sessions.
    pub ssh: u32,
    /// VS Code sessions.
    pub vscode: u32,
    /// Forwards to a JetBrains back end.
    pub jetbrains: u32,
}

/// The SSH server. Clones share everything.
#[derive(Debug, Clone)]
pub struct Server;

impl Server {
    /// A server that presents `key`.
    #[must_use]
    pub fn new(_config: Config, _key: HostKey) -> Self {
        Self
    }

    /// Serves one connection to its end, whatever ends it. `remote` is only
    /// reported. Dropping the future drops the connection.
    pub async fn serve<IO>(&self, _io: IO, _remote: Option<SocketAddr>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
    }

    /// Sessions open at this moment.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::default()
    }

    /// Ends all connections and sends SIGHUP to every program started without
    /// a terminal that still runs. Returns when all is gone or `deadline` has
    /// passed. Connections offered meanwhile and afterwards are refused.
    pub async fn close(&self, _deadline: Duration) {}
}
