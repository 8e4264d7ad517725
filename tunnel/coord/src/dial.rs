//! Reaching an agent.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use adit_engine::{Node, NodeConfig, PeerStatus, PingResult, TcpStream};
use adit_keys::addr;
use adit_rest::AgentConnectionInfo;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::Rng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::control::{Control, ControlState, Refusal};
use crate::error::{DialError, Unreachable};
use crate::map::{map_from_json, region_names, rewrite_map};

/// First wait between reachability pings, its growth, and the longest.
const PING_FIRST: Duration = Duration::from_millis(50);
const PING_LONGEST: Duration = Duration::from_secs(5);
/// Pause after a dial that failed because the agent was out of reach.
const DIAL_PAUSE: Duration = Duration::from_millis(200);
/// Pings that may be on their way at once.
const PINGS: usize = 16;
/// How long [`AgentConn::close`] waits for the coordinator.
const CLOSE: Duration = Duration::from_millis(1500);

/// Where a dial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialStage {
    /// Asking the server how to connect.
    ConnectionInfo,
    /// Meeting the agent through the coordinator.
    Coordinating,
    /// The agent is known; waiting for its answer through the tunnel.
    WaitingForPeer,
    /// The agent answered.
    Reachable,
}

/// How to dial.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// Use relays only.
    pub block_endpoints: bool,
    /// How long to wait until the agent answers.
    pub ready_timeout: Duration,
    /// What the server said a moment ago about connections to any agent; asked
    /// for, for this agent, if it is not given.
    pub info: Option<AgentConnectionInfo>,
    /// Told about the progress.
    pub progress: Option<watch::Sender<DialStage>>,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            block_endpoints: false,
            ready_timeout: Duration::from_secs(30),
            info: None,
            progress: None,
        }
    }
}

impl DialOptions {
    fn at(&self, stage: DialStage) {
        if let Some(progress) = &self.progress {
            progress.send_replace(stage);
        }
    }
}

/// A connection to one agent: the node, and the coordination session that
/// keeps it informed. Cheap to clone; everything ends with [`close`] or when
/// the last clone is dropped.
///
/// [`close`]: Self::close
#[derive(Clone, Debug)]
pub struct AgentConn {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: Node,
    agent: Uuid,
    ip: Ipv6Addr,
    regions: HashMap<u32, String>,
    state: watch::Receiver<ControlState>,
    programmed: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    refusal: Refusal,
    _task: AbortOnDrop,
}

/// Connects to an agent and waits until it answers through the tunnel.
///
/// # Errors
/// What failed, in the order of the steps; see [`DialError`].
pub async fn dial_agent(
    http: &adit_http::Client,
    agent: Uuid,
    options: DialOptions,
) -> Result<AgentConn, DialError> {
    let conn = start_agent_conn(http, agent, &options).await?;
    options.at(DialStage::Coordinating);
    match conn.reach(&options, conn.pinged()).await {
        Ok(_) => Ok(conn),
        Err(error) => {
            conn.close().await;
            Err(error)
        }
    }
}

/// Connects to an agent and to a TCP port of it, without asking first whether
/// the agent answers: a round trip less than [`dial_agent`] and then
/// [`AgentConn::dial`].
///
/// # Errors
/// What failed, in the order of the steps; see [`DialError`].
pub async fn dial_agent_port(
    http: &adit_http::Client,
    agent: Uuid,
    port: u16,
    options: DialOptions,
) -> Result<(AgentConn, TcpStream), DialError> {
    let conn = start_agent_conn(http, agent, &options).await?;
    options.at(DialStage::Coordinating);
    match conn.reach(&options, conn.accepted(port)).await {
        Ok(stream) => Ok((conn, stream)),
        Err(error) => {
            conn.close().await;
            Err(error)
        }
    }
}

/// As [`dial_agent`] without waiting for the agent.
///
/// # Errors
/// The server refuses, or the node cannot start.
pub async fn start_agent_conn(
    http: &adit_http::Client,
    agent: Uuid,
    options: &DialOptions,
) -> Result<AgentConn, DialError> {
    options.at(DialStage::ConnectionInfo);
    let myself = Uuid::new_v4();
    let mut config = NodeConfig::new(
        http.clone(),
        addr::node_id(myself),
        vec![addr::tailnet_ip(myself)],
    );
    config.speaks_first = true;
    config.block_endpoints = options.block_endpoints;
    let node = Node::start(config).await.map_err(DialError::Node)?;

    let (state_sender, state) = watch::channel(ControlState::Connecting {
        attempt: 0,
        error: None,
    });
    let (programmed_sender, programmed) = watch::channel(false);
    let (maps_wanted, maps_receiver) = watch::channel(false);
    let (stop, stop_receiver) = watch::channel(false);
    let refusal = Refusal::default();
    let control = Control {
        http: http.clone(),
        node: node.clone(),
        agent,
        state: state_sender,
        programmed: programmed_sender,
        maps_wanted: maps_receiver,
        stop: stop_receiver,
        refusal: Arc::clone(&refusal),
    };
    // The session does not depend on the connection info: both start now.
    let task = AbortOnDrop(tokio::spawn(control.run()));

    let info = match &options.info {
        Some(info) => info.clone(),
        None => {
            let path = format!("/api/v2/workspaceagents/{agent}/connection");
            let info = http.get::<AgentConnectionInfo>(&path);
            tokio::select! {
                biased;
                info = info => info.map_err(DialError::Info)?,
                () = stopped(state.clone()) => return Err(refused(&refusal)),
            }
        }
    };
    if info.disable_direct_connections {
        node.set_block_endpoints(true).await;
    }
    node.set_force_websockets(info.derp_force_websockets).await;
    let mut map = map_from_json(&info.derp_map.unwrap_or_default());
    rewrite_map(&mut map, http.base());
    let regions = region_names(&map);
    node.set_derp_map(map).await;
    maps_wanted.send_replace(true);

    let inner = Inner {
        node,
        agent,
        ip: addr::tailnet_ip(agent),
        regions,
        state,
        programmed,
        stop,
        refusal,
        _task: task,
    };
    Ok(AgentConn {
        inner: Arc::new(inner),
    })
}

/// A node as a client has, without any peer: for looking at the network.
///
/// # Errors
/// The node cannot start.
pub async fn bare_node(
    http: &adit_http::Client,
    info: &AgentConnectionInfo,
) -> Result<Node, DialError> {
    let myself = Uuid::new_v4();
    let mut config = NodeConfig::new(
        http.clone(),
        addr::node_id(myself),
        vec![addr::tailnet_ip(myself)],
    );
    config.block_endpoints = info.disable_direct_connections;
    config.force_websockets = info.derp_force_websockets;
    let mut map = map_from_json(&info.derp_map.clone().unwrap_or_default());
    rewrite_map(&mut map, http.base());
    config.derp_map = Some(map);
    Node::start(config).await.map_err(DialError::Node)
}

/// Waits until the coordination session is over for good.
async fn stopped(mut state: watch::Receiver<ControlState>) {
    let _ = state.wait_for(|s| *s == ControlState::Stopped).await;
}

/// Why the coordination session gave up.
fn refused(refusal: &Refusal) -> DialError {
    match refusal
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        Some(error) => DialError::Coordinate(error),
        None => DialError::Node(adit_engine::Error::Closed),
    }
}

/// A task that ends with this value.
#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl AgentConn {
    /// The node in the mesh.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.inner.node
    }

    /// The agent's id.
    #[must_use]
    pub fn agent_id(&self) -> Uuid {
        self.inner.agent
    }

    /// The agent's overlay address.
    #[must_use]
    pub fn agent_ip(&self) -> Ipv6Addr {
        self.inner.ip
    }

    /// Name of a relay region, or its number.
    #[must_use]
    pub fn region_name(&self, region: u32) -> String {
        self.inner
            .regions
            .get(&region)
            .cloned()
            .unwrap_or_else(|| region.to_string())
    }

    /// Where the coordination session stands. Its loss does not end
    /// connections to the agent.
    #[must_use]
    pub fn control(&self) -> watch::Receiver<ControlState> {
        self.inner.state.clone()
    }

    /// Opens a TCP connection to a port of the agent.
    ///
    /// # Errors
    /// As [`Node::dial`].
    pub async fn dial(&self, port: u16) -> Result<TcpStream, adit_engine::Error> {
        self.inner
            .node
            .dial(SocketAddrV6::new(self.inner.ip, port, 0, 0))
            .await
    }

    /// One path discovery ping.
    ///
    /// # Errors
    /// As [`Node::ping_disco`].
    pub async fn ping(&self) -> Result<PingResult, adit_engine::Error> {
        self.inner.node.ping_disco(self.inner.ip).await
    }

    /// The agent as the node sees it, once it is known.
    pub async fn status(&self) -> Option<PeerStatus> {
        self.inner.node.peer_status(self.inner.ip).await
    }

    /// Waits until the agent answers through the tunnel; gives the round-trip
    /// time of the answered ping.
    ///
    /// # Errors
    /// [`DialError::Unreachable`] with what is known about the reason.
    pub async fn await_reachable(&self, limit: Duration) -> Result<Duration, DialError> {
        let options = DialOptions {
            ready_timeout: limit,
            ..DialOptions::default()
        };
        self.reach(&options, self.pinged()).await
    }

    /// Waits for the agent to be known, and then for its `answer`.
    async fn reach<T>(
        &self,
        options: &DialOptions,
        answer: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        let begun = Instant::now();
        let limit = options.ready_timeout;
        let mut programmed = self.inner.programmed.clone();
        let reach = async {
            if programmed.wait_for(|known| *known).await.is_err() {
                return Err(refused(&self.inner.refusal));
            }
            tracing::debug!(took = ?begun.elapsed(), "agent known");
            options.at(DialStage::WaitingForPeer);
            answer.await
        };
        match tokio::time::timeout(limit, reach).await {
            Ok(Ok(answer)) => {
                options.at(DialStage::Reachable);
                tracing::debug!(took = ?begun.elapsed(), "agent reachable");
                Ok(answer)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(DialError::Unreachable {
                waited: limit,
                why: self.why_unreachable().await,
            }),
        }
    }

    /// Pings until one ping is answered; gives its round-trip time.
    async fn pinged(&self) -> Result<Duration, DialError> {
        let mut pings = FuturesUnordered::new();
        let mut wait = PING_FIRST;
        loop {
            if pings.len() < PINGS {
                pings.push(self.inner.node.ping_tsmp(self.inner.ip));
            }
            let pause = tokio::time::sleep(wait.mul_f64(rand::rng().random_range(0.5..1.5)));
            wait = wait.mul_f64(1.5).min(PING_LONGEST);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    Some(answer) = pings.next() => match answer {
                        Ok(rtt) => return Ok(rtt),
                        Err(adit_engine::Error::Closed) => {
                            return Err(DialError::Node(adit_engine::Error::Closed));
                        }
                        // Timed out, or the peer is unknown for a moment.
                        Err(_) => {}
                    },
                    () = &mut pause => break,
                }
            }
        }
    }

    /// Dials a port until the agent accepts or refuses.
    async fn accepted(&self, port: u16) -> Result<TcpStream, DialError> {
        use adit_engine::Error;
        loop {
            match self.dial(port).await {
                Ok(stream) => return Ok(stream),
                // No answer so far, or the peer is unknown for a moment.
                Err(Error::Timeout(_) | Error::UnknownPeer(_)) => {
                    tokio::time::sleep(DIAL_PAUSE).await;
                }
                Err(error @ Error::Closed) => return Err(DialError::Node(error)),
                Err(error) => return Err(DialError::Port { port, error }),
            }
        }
    }

    /// The most telling fact about why the agent is out of reach.
    async fn why_unreachable(&self) -> Unreachable {
        if let ControlState::Connecting { error, .. } = &*self.inner.state.borrow() {
            return Unreachable::NoCoordinator(error.clone());
        }
        let report = self.inner.node.net_report().await;
        if report.home_region == 0 {
            return Unreachable::NoRelayMap;
        }
        if let Some(error) = report.relay_error {
            return Unreachable::NoRelay(error);
        }
        if !*self.inner.programmed.borrow() {
            return Unreachable::AgentUnknown;
        }
        Unreachable::Silent
    }

    /// Says goodbye to the coordinator and ends the node. Waits two seconds at
    /// most.
    pub async fn close(&self) {
        self.inner.stop.send_replace(true);
        let mut state = self.inner.state.clone();
        let _ = tokio::time::timeout(CLOSE, state.wait_for(|s| *s == ControlState::Stopped)).await;
        self.inner.node.close().await;
    }
}
