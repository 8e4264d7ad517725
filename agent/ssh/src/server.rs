//! The server: connections, counters, shutdown.
//!
//! ```text
//! close()
//!   ├─ 1. `closing`: every connection is cut, with its sessions, forwards,
//!   │     listeners and terminals; new connections are refused
//!   ├─ 2. programs that outlive their session get SIGHUP
//!   └─ 3. wait for both, at most until the deadline, then abort
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_agent_exec::ConnectionKind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::Config;
use crate::connection::Connection;
use crate::handler::Handler;
use crate::hostkey::HostKey;
use crate::settings;
use crate::tally;
use crate::tasks::Tasks;
use crate::x11::Displays;

/// Time the tasks of a cut connection have to end by themselves: long enough
/// for a shell to save its history.
const TASK_DEADLINE: Duration = Duration::from_secs(3);

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

impl Counts {
    fn slot(&mut self, kind: ConnectionKind) -> Option<&mut u32> {
        match kind {
            ConnectionKind::Ssh => Some(&mut self.ssh),
            ConnectionKind::VsCode => Some(&mut self.vscode),
            ConnectionKind::JetBrains => Some(&mut self.jetbrains),
            ConnectionKind::Unspecified | ConnectionKind::ReconnectingPty => None,
        }
    }
}

/// What connections share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) closing: CancellationToken,
    /// Programs that outlive their session.
    pub(crate) lingering: Tasks,
    pub(crate) displays: Displays,
    protocol: Arc<adit_ssh::Config>,
    counts: watch::Sender<Counts>,
    connections: watch::Sender<usize>,
}

impl Shared {
    /// Counts one session until the guard is dropped.
    pub(crate) fn count(self: &Arc<Self>, kind: ConnectionKind) -> CountGuard {
        self.counts.send_modify(|counts| {
            if let Some(slot) = counts.slot(kind) {
                *slot += 1;
            }
        });
        CountGuard {
            shared: Arc::clone(self),
            kind,
        }
    }
}

/// One counted session.
pub(crate) struct CountGuard {
    shared: Arc<Shared>,
    kind: ConnectionKind,
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.shared.counts.send_modify(|counts| {
            if let Some(slot) = counts.slot(self.kind) {
                *slot = slot.saturating_sub(1);
            }
        });
    }
}

/// The SSH server. Clones share everything.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("config", &self.shared.config)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server that presents `key`.
    #[must_use]
    pub fn new(config: Config, key: &HostKey) -> Self {
        let protocol = settings::protocol(&config, key);
        Self {
            shared: Arc::new(Shared {
                config,
                closing: CancellationToken::new(),
                lingering: Tasks::default(),
                displays: Displays::default(),
                protocol,
                counts: watch::Sender::default(),
                connections: watch::Sender::default(),
            }),
        }
    }

    /// Serves one connection to its end, whatever ends it. `remote` is only
    /// reported. Dropping the future cuts the connection.
    pub async fn serve<IO>(&self, io: IO, remote: Option<SocketAddr>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let token = self.shared.closing.child_token();
        if token.is_cancelled() {
            return;
        }
        let ip = remote.map(|a| a.ip().to_string()).unwrap_or_default();
        let conn = Arc::new(Connection::new(Arc::clone(&self.shared), ip, token.clone()));
        let guard = ConnectionGuard::new(&conn);
        let handler = Handler::new(Arc::clone(&conn));
        let protocol = Arc::clone(&self.shared.protocol);
        let deadline = absolute_deadline(&self.shared.config);
        let served = tokio::time::timeout_at(deadline, async {
            tokio::select! {
                biased;
                () = token.cancelled() => Ok(()),
                ended = adit_ssh::serve(io, protocol, handler) => ended,
            }
        });
        match served.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "SSH connection ended"),
            Err(_) => tracing::debug!("SSH connection reached its longest life"),
        }
        if !conn.is_authenticated() {
            tally::connection_failed(&*self.shared.config.tally);
        }
        token.cancel();
        conn.tasks.finish(TASK_DEADLINE).await;
        drop(guard);
    }

    /// Sessions open at this moment.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Follows the number of open sessions.
    #[must_use]
    pub fn watch_counts(&self) -> watch::Receiver<Counts> {
        self.shared.counts.subscribe()
    }

    /// Connections open at this moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Ends all connections and sends SIGHUP to every program started without
    /// a terminal that still runs. Returns when all is gone or `deadline` has
    /// passed. Connections offered meanwhile and afterwards are refused.
    pub async fn close(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        self.shared.closing.cancel();
        let mut connections = self.shared.connections.subscribe();
        let quiet = connections.wait_for(|n| *n == 0);
        let _ = tokio::time::timeout_at(end, quiet).await;
        let left = end.saturating_duration_since(Instant::now());
        self.shared.lingering.finish(left).await;
    }
}

/// Configured times below this are the longest life of a connection.
pub(crate) const SHORTEST_SILENCE: Duration = Duration::from_secs(3);

fn absolute_deadline(config: &Config) -> Instant {
    /// "Never", for timers.
    const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let life = match config.max_timeout {
        Some(max) if max < SHORTEST_SILENCE && !max.is_zero() => max,
        _ => FAR,
    };
    Instant::now() + life
}

/// Counts a connection and ends all of it when dropped.
struct ConnectionGuard {
    conn: Arc<Connection>,
    _cut: DropGuard,
}

impl ConnectionGuard {
    fn new(conn: &Arc<Connection>) -> Self {
        conn.server.connections.send_modify(|n| *n += 1);
        Self {
            conn: Arc::clone(conn),
            _cut: conn.token.clone().drop_guard(),
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.conn.tasks.abort();
        self.conn
            .server
            .connections
            .send_modify(|n| *n = n.saturating_sub(1));
    }
}
