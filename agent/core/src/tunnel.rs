//! The agent's end of the tunnel: the mesh node and what listens in it.
//!
//! | Port | Service |
//! |---|---|
//! | 1, 22 | SSH |
//! | 2 | terminals of the dashboard |
//! | 3 | throughput test |
//! | 4 | HTTP API |
//! | other TCP, UDP | the same port on loopback |
//!
//! It lives as long as its [`Instance`](crate::instance::Instance), over any
//! number of control connections.

mod coordinate;
mod memory;
mod peers;
mod serve;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use adit_engine::{ConnectionStats, Flow, Node, NodeConfig};
use adit_messages::tailnet::DerpMap;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::diagnose::SessionError;
use crate::instance::Instance;
use crate::manifest::Manifest;
use peers::Peers;

/// Flows held for reports that do not arrive.
const MOST_FLOWS: usize = 4_096;

/// Points the relays of the control plane to the address this agent uses.
pub(crate) fn rewrite(mut map: DerpMap, base: &adit_http::Url) -> DerpMap {
    adit_coord::rewrite_map(&mut map, base);
    map
}

/// Everything behind the tunnel.
pub(crate) struct Tunnel {
    node: Node,
    ssh: Arc<OnceLock<adit_agent_ssh::Server>>,
    terminals: adit_agent_pty::Service,
    peers: Arc<Peers>,
    base: adit_http::Url,
    reported: Mutex<ConnectionStats>,
    /// Flows with packets that no report has told of yet.
    unreported: Mutex<HashSet<Flow>>,
    /// Cancelled once the coordinator knows that this node is gone.
    pub(crate) said_goodbye: CancellationToken,
    coordinating: AtomicBool,
    tasks: Mutex<JoinSet<()>>,
}

/// Sessions open at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SessionCounts {
    pub(crate) ssh: i64,
    pub(crate) vscode: i64,
    pub(crate) jetbrains: i64,
    pub(crate) terminals: i64,
}

impl Tunnel {
    /// Starts the node and its services.
    pub(crate) async fn start(
        agent: &Arc<Instance>,
        manifest: &Manifest,
    ) -> Result<Self, SessionError> {
        let id = manifest.agent_id;
        let addresses = vec![
            adit_keys::addr::tailnet_ip(id),
            adit_keys::addr::service_ip(id),
        ];
        let node_id = adit_keys::addr::node_id(id);
        let base = agent.http.base().clone();
        let mut config = NodeConfig::new(agent.http.clone(), node_id, addresses);
        config.derp_map = manifest.derp_map.clone().map(|m| rewrite(m, &base));
        config.block_endpoints = manifest.disable_direct;
        config.force_websockets = manifest.force_websockets;
        config.count_flows = true;
        config.udp_port = agent.config.tailnet_port;
        let node = Node::start(config).await?;
        let terminals =
            adit_agent_pty::Service::new(agent.workspace.clone(), agent.reports.clone());
        let peers = Arc::new(Peers::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&peers).sweep(node.clone()));
        tasks.spawn(memory::give_back(node.clone()));
        let ssh = Arc::default();
        serve::start_all(agent, manifest, &node, &terminals, &ssh, &mut tasks).await?;
        Ok(Self {
            node,
            ssh,
            terminals,
            peers,
            base,
            reported: Mutex::default(),
            unreported: Mutex::default(),
            said_goodbye: CancellationToken::new(),
            coordinating: AtomicBool::new(false),
            tasks: Mutex::new(tasks),
        })
    }

    /// Applies what a later manifest changes.
    pub(crate) async fn handle_manifest(&self, manifest: &Manifest) {
        let id = manifest.agent_id;
        self.node
            .set_addresses(vec![
                adit_keys::addr::tailnet_ip(id),
                adit_keys::addr::service_ip(id),
            ])
            .await;
        self.node.set_block_endpoints(manifest.disable_direct).await;
        self.node
            .set_force_websockets(manifest.force_websockets)
            .await;
        if let Some(map) = manifest.derp_map.clone() {
            self.node.set_derp_map(rewrite(map, &self.base)).await;
        }
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn session_counts(&self) -> SessionCounts {
        let ssh = self
            .ssh
            .get()
            .map(adit_agent_ssh::Server::counts)
            .unwrap_or_default();
        SessionCounts {
            ssh: ssh.ssh.into(),
            vscode: ssh.vscode.into(),
            jetbrains: ssh.jetbrains.into(),
            terminals: self.terminals.connections().into(),
        }
    }

    /// Terminal connections since the start.
    pub(crate) fn terminals_served(&self) -> u64 {
        self.terminals.total()
    }

    /// How many peers are reached directly, and through a relay.
    pub(crate) async fn reachable_peers(&self) -> (f64, f64) {
        let (mut direct, mut relayed) = (0.0, 0.0);
        for peer in self.node.status().await {
            match peer.path {
                Some(adit_engine::Path::Direct(_)) => direct += 1.0,
                Some(adit_engine::Path::Derp(_)) => relayed += 1.0,
                None => {}
            }
        }
        (direct, relayed)
    }

    /// Counters of the last report that arrived.
    pub(crate) fn reported(&self) -> ConnectionStats {
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A report with these counters and all flows has arrived.
    pub(crate) fn set_reported(&self, stats: ConnectionStats) {
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = stats;
        // With its room, which a burst of flows made large.
        *self.flows() = HashSet::new();
    }

    /// How many flows of each IP protocol carried packets since the last
    /// report that arrived.
    pub(crate) async fn flow_counts(&self) -> BTreeMap<u8, i64> {
        let new = self.node.take_flows().await;
        let mut flows = self.flows();
        let room = MOST_FLOWS.saturating_sub(flows.len());
        flows.extend(new.into_iter().take(room));
        let mut counts = BTreeMap::new();
        for flow in flows.iter() {
            *counts.entry(flow.protocol).or_default() += 1;
        }
        counts
    }

    fn flows(&self) -> MutexGuard<'_, HashSet<Flow>> {
        self.unreported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the coordinator knows this node at this moment.
    pub(crate) fn is_coordinated(&self) -> bool {
        self.coordinating.load(Ordering::Relaxed)
    }

    /// Disconnects SSH clients, politely.
    pub(crate) async fn close_ssh(&self, deadline: Duration) {
        if let Some(ssh) = self.ssh.get() {
            ssh.close(deadline).await;
        }
    }

    /// Closes all terminals.
    pub(crate) async fn close_terminals(&self, deadline: Duration) {
        self.terminals.close(deadline).await;
    }

    /// Ends everything.
    pub(crate) async fn close(&self) {
        let mut tasks = {
            let mut slot = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *slot)
        };
        tasks.shutdown().await;
        self.node.close().await;
    }
}
