//! Accepting TCP connections from peers.

use std::net::SocketAddrV6;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::command::Command;
use crate::error::Error;
use crate::stream::TcpStream;

/// Connections that completed their handshake and wait for `accept`.
pub(crate) const BACKLOG: usize = 64;

/// How long [`PendingConn::accept`] waits for the peer's last handshake step.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Listens on one port of all own addresses; SYNs are answered at once.
///
/// The port is free again when the listener is dropped. A connection that
/// arrives while [`BACKLOG`] others wait is reset.
#[derive(Debug)]
pub struct TcpListener {
    pub(crate) port: u16,
    pub(crate) incoming: mpsc::Receiver<TcpStream>,
}

impl TcpListener {
    /// Next connection with the peer's address; `None` once the node closed.
    ///
    /// Cancel safe.
    pub async fn accept(&mut self) -> Option<(TcpStream, SocketAddrV6)> {
        let stream = self.incoming.recv().await?;
        let remote = stream.peer_addr();
        Some((stream, remote))
    }

    /// The port listened on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Connection attempts to every TCP port nobody listens on.
///
/// The SYN stays unanswered until the attempt is accepted or rejected, so a
/// proxy can dial its target first and refuse truthfully. Without a rest
/// listener such SYNs are dropped in silence.
#[derive(Debug)]
pub struct RestListener {
    pub(crate) incoming: mpsc::Receiver<PendingConn>,
}

impl RestListener {
    /// Next attempt; `None` once the node closed. Cancel safe.
    pub async fn recv(&mut self) -> Option<PendingConn> {
        self.incoming.recv().await
    }
}

/// A SYN waiting for a decision. Dropping it rejects.
#[derive(Debug)]
pub struct PendingConn {
    pub(crate) id: u64,
    pub(crate) local: SocketAddrV6,
    pub(crate) remote: SocketAddrV6,
    pub(crate) commands: Option<mpsc::Sender<Command>>,
}

impl PendingConn {
    /// The port the peer wants.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.local.port()
    }

    /// Own address and port the peer wants.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddrV6 {
        self.local
    }

    /// The peer.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddrV6 {
        self.remote
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// The peer vanished or gave up, or the node closed.
    pub async fn accept(mut self) -> Result<TcpStream, Error> {
        let commands = self.commands.take().ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        let id = self.id;
        commands
            .send(Command::Accept { id, reply })
            .await
            .map_err(|_| Error::Closed)?;
        match tokio::time::timeout(ACCEPT_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(|_| Error::Closed)?,
            Err(_) => {
                let _ = commands.try_send(Command::Reject { id });
                Err(Error::Timeout("the peer's handshake"))
            }
        }
    }

    /// Answers with a reset: the peer sees "connection refused".
    pub fn reject(self) {
        drop(self);
    }
}

impl Drop for PendingConn {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.take() {
            // A full queue leaves the SYN to its own timeout.
            let _ = commands.try_send(Command::Reject { id: self.id });
        }
    }
}
