//! This server's own way to the agents: a node in the mesh that opens a tunnel
//! to each agent it has something to ask of.
//!
//! ```text
//!   route ── Tunnel ──▶ driver ── add_tunnel ──▶ coordinator ◀── agent
//!     │                   │ grants
//!     └─ Link ══════════ node ═══════ WireGuard ══════════════▶ agent's ports
//! ```
//!
//! The node starts with the first tunnel and ends some time after the last. A
//! tunnel stays while anything holds it. Who may have one is for the routes to
//! decide, before they ask.

mod driver;
mod http;

use std::net::SocketAddrV6;
use std::sync::Arc;
use std::time::Duration;

use adit_engine::{Error as EngineError, Node, TcpStream};
use adit_keys::addr;
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::app::App;
pub(crate) use http::{ask, relay};

/// How long an agent may take to accept a connection.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the coordinator may take to tell of a connected agent.
const NEWS: Duration = Duration::from_secs(10);
/// Pause before another attempt while the agent is unknown for a moment.
const PAUSE: Duration = Duration::from_millis(100);
/// Questions that may wait for the driver.
const QUEUE: usize = 64;

/// What this part keeps.
#[derive(Debug, Default)]
pub(crate) struct State {
    driver: Mutex<Option<mpsc::Sender<Ask>>>,
}

/// A wish for a tunnel.
#[derive(Debug)]
struct Ask {
    agent: Uuid,
    reply: oneshot::Sender<Tunnel>,
}

/// A tunnel to an agent, open for as long as this is held.
#[derive(Clone, Debug)]
pub(crate) struct Tunnel {
    node: Node,
    agent: Uuid,
    /// Whether the agent may be sent to.
    known: watch::Receiver<bool>,
    _hold: Arc<()>,
}

/// Why an agent is out of reach.
#[derive(Debug, Error)]
pub(crate) enum Unreachable {
    /// The node would not start, or ended at once.
    #[error("start a tunnel: {0}")]
    Node(String),
    /// The coordinator had no news of the agent.
    #[error("the agent is not in the tunnel network (waited {} s)", NEWS.as_secs())]
    Unknown,
    /// It is known, but nothing comes back.
    #[error("the agent did not answer within {} s", LIMIT.as_secs())]
    Silent,
    /// It is there but does not take the connection.
    #[error("connect to port {port} of the agent: {error}")]
    Port {
        port: u16,
        #[source]
        error: EngineError,
    },
}

/// A tunnel to an agent that the caller has the right to reach.
pub(crate) async fn tunnel(app: &App, agent: Uuid) -> Result<Tunnel, Unreachable> {
    // A driver that has just ended leaves one question unanswered.
    for _ in 0..2 {
        let mut driver = app.reach.driver.lock().await;
        let asks = match &*driver {
            Some(asks) if !asks.is_closed() => asks.clone(),
            _ => {
                let (asks, inbox) = mpsc::channel(QUEUE);
                driver::start(app, inbox).await?;
                driver.insert(asks).clone()
            }
        };
        drop(driver);
        let (reply, answer) = oneshot::channel();
        if asks.send(Ask { agent, reply }).await.is_ok()
            && let Ok(tunnel) = answer.await
        {
            return Ok(tunnel);
        }
    }
    Err(Unreachable::Node("the server is ending".to_owned()))
}

/// A connection to a port of an agent, with the tunnel it goes through.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) tunnel: Tunnel,
}

/// Connects to a port of an agent that the caller has the right to reach.
pub(crate) async fn dial(app: &App, agent: Uuid, port: u16) -> Result<Link, Unreachable> {
    let tunnel = tunnel(app, agent).await?;
    let stream = tunnel.dial(port).await?;
    Ok(Link { stream, tunnel })
}

impl Tunnel {
    async fn dial(&self, port: u16) -> Result<TcpStream, Unreachable> {
        let remote = SocketAddrV6::new(addr::tailnet_ip(self.agent), port, 0, 0);
        let until = Instant::now() + LIMIT;
        let mut known = self.known.clone();
        let news = Instant::now() + NEWS;
        match timeout_at(news, known.wait_for(|known| *known)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(Unreachable::Node("the tunnel is closed".to_owned())),
            Err(_) => return Err(Unreachable::Unknown),
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.node.dial_timeout(remote, left).await {
                Ok(stream) => return Ok(stream),
                Err(EngineError::UnknownPeer(_)) if left > PAUSE => sleep(PAUSE).await,
                Err(EngineError::UnknownPeer(_) | EngineError::Timeout(_)) => {
                    return Err(Unreachable::Silent);
                }
                Err(error) => return Err(Unreachable::Port { port, error }),
            }
        }
    }
}
