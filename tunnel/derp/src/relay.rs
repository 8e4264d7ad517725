//! The relay engine: takes upgraded connections and forwards packets between
//! them by key.
//!
//! ```text
//!  connection ──▶ session ──▶ registry: key ─▶ active connection ─▶ its outbox
//!                 (1 task,      (who is here,                          │
//!                  reads and     who sent to whom)                     ▼
//!                  writes)                                    session of the receiver
//! ```
//!
//! A sender never waits for a receiver: outboxes are bounded and drop their
//! oldest packets. Whoever cannot be written to for two seconds is dropped.

mod accept;
mod outbox;
mod registry;
mod session;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_keys::{NodePrivate, NodePublic};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

pub use accept::{Accept, FastStart, FastStartIo, UPGRADE_REQUIRED_TEXT, accept, handle};
pub use session::SessionEnd;

use crate::CarrierKind;
use crate::carrier::{Carrier, RELAY_READ_BUFFER, websocket_config};
use registry::Registry;

/// Settings of a relay.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// The relay's own key; new for each process, as clients learn it when
    /// they connect.
    pub key: NodePrivate,
    /// How often every client hears from the relay; up to a twelfth more is
    /// added at random, so that clients do not wake in step.
    pub keep_alive: Duration,
    /// How many packets wait for one client, of each of the two kinds.
    pub queue_depth: usize,
    /// How many bytes wait for one client, of each of the two kinds.
    pub queue_bytes: usize,
    /// How long a write may be stuck before the client is dropped.
    pub write_timeout: Duration,
    /// How long each step of the handshake may take.
    pub handshake_timeout: Duration,
}

impl RelayConfig {
    /// The usual limits.
    pub fn new(key: NodePrivate) -> Self {
        Self {
            key,
            keep_alive: Duration::from_secs(60),
            queue_depth: 512,
            queue_bytes: 4 << 20,
            write_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// A relay. Clones are handles of the same one; when the last one goes, all
/// its sessions end.
#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    sessions: Mutex<JoinSet<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.core.stop();
    }
}

/// What sessions share.
struct Core {
    config: RelayConfig,
    public: NodePublic,
    registry: Registry,
    stopping: AtomicBool,
    stopped: Notify,
    counters: Counters,
}

impl Core {
    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stopped.notify_waiters();
    }
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    unknown: AtomicU64,
}

/// Figures about a relay since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Connections that are open now.
    pub connections: usize,
    /// Connections ever accepted.
    pub accepted: u64,
    /// Packets put into an outbox.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets dropped because an outbox was full.
    pub dropped: u64,
    /// Packets for keys that are not here.
    pub unknown: u64,
}

impl Relay {
    /// A relay without connections.
    pub fn new(config: RelayConfig) -> Self {
        let core = Core {
            public: config.key.public(),
            registry: Registry::default(),
            stopping: AtomicBool::new(false),
            stopped: Notify::new(),
            counters: Counters::default(),
            config,
        };
        Self(Arc::new(Inner {
            core: Arc::new(core),
            sessions: Mutex::default(),
        }))
    }

    /// The relay's public key.
    pub fn public_key(&self) -> NodePublic {
        self.0.core.public
    }

    /// Serves an upgraded connection until it ends. The 101 answer must have
    /// been sent; see [`accept`].
    pub async fn serve<IO>(&self, io: IO, kind: CarrierKind) -> SessionEnd
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let core = self.0.core.clone();
        serve(core, io, kind).await
    }

    /// As [`serve`](Self::serve), in a task that belongs to the relay.
    /// `upgrade` gives the connection when the 101 answer is out.
    pub fn spawn<F, IO, E>(&self, upgrade: F, kind: CarrierKind)
    where
        F: Future<Output = Result<IO, E>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        E: fmt::Display + Send,
    {
        let core = self.0.core.clone();
        let timeout = core.config.handshake_timeout;
        let session = async move {
            match tokio::time::timeout(timeout, upgrade).await {
                Ok(Ok(io)) => {
                    let end = serve(core, io, kind).await;
                    tracing::debug!(?kind, ?end, "relay session ended");
                }
                Ok(Err(error)) => tracing::debug!(%error, "relay connection was not upgraded"),
                Err(_) => tracing::debug!("relay connection was not upgraded in time"),
            }
        };
        let mut sessions = self
            .0
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while sessions.try_join_next().is_some() {}
        sessions.spawn(session);
    }

    /// Whether a node with this key is connected.
    pub fn has(&self, key: &NodePublic) -> bool {
        self.0.core.registry.has(key)
    }

    /// Figures since the start.
    pub fn stats(&self) -> RelayStats {
        let counters = &self.0.core.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RelayStats {
            connections: self.0.core.registry.connections(),
            accepted: read(&counters.accepted),
            packets: read(&counters.packets),
            bytes: read(&counters.bytes),
            dropped: read(&counters.dropped),
            unknown: read(&counters.unknown),
        }
    }

    /// Ends all sessions, without a word as the original relay does, and waits
    /// until spawned ones are gone.
    pub async fn close(&self) {
        self.0.core.stop();
        let mut sessions = {
            let mut guard = self
                .0
                .sessions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *guard)
        };
        let all = async { while sessions.join_next().await.is_some() {} };
        // Sessions that do not end by themselves are aborted by the drop.
        let _ = tokio::time::timeout(self.0.core.config.write_timeout, all).await;
    }
}

async fn serve<IO>(core: Arc<Core>, io: IO, kind: CarrierKind) -> SessionEnd
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    core.counters.accepted.fetch_add(1, Ordering::Relaxed);
    let carrier = match kind {
        CarrierKind::Upgrade => Carrier::Upgrade(io),
        CarrierKind::WebSocket => {
            let config = Some(websocket_config(RELAY_READ_BUFFER));
            let socket = WebSocketStream::from_raw_socket(io, Role::Server, config).await;
            Carrier::WebSocket(Box::new(socket))
        }
    };
    session::run(core, carrier).await
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("key", &self.0.core.public)
            .finish_non_exhaustive()
    }
}
