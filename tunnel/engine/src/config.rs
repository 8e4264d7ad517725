//! How a node is set up.

use std::net::Ipv6Addr;

use adit_keys::{DiscoPrivate, NodePrivate};
use adit_messages::tailnet;

/// Everything a [`Node`](crate::Node) needs to start.
///
/// Keys are made fresh for each process: a restarted program is a new node
/// under the same peer id.
pub struct NodeConfig {
    /// WireGuard and relay identity.
    pub node_key: NodePrivate,
    /// Path discovery identity.
    pub disco_key: DiscoPrivate,
    /// Number put in the announced node (`adit_keys::addr::node_id`).
    pub node_id: i64,
    /// Own overlay addresses, each announced as a /128.
    pub addresses: Vec<Ipv6Addr>,
    /// Dialer for relays and latency checks: brings TLS settings, proxy and
    /// the user's extra headers.
    pub http: adit_http::Client,
    /// Relay map, if already known. Nothing is announced before a map is set
    /// and a home region is found.
    pub derp_map: Option<tailnet::DerpMap>,
    /// Do not offer or use direct paths.
    pub block_endpoints: bool,
    /// Use WebSockets for relays without trying the native upgrade.
    pub force_websockets: bool,
    /// Keep account of flows for [`Node::take_flows`](crate::Node::take_flows).
    pub count_flows: bool,
    /// Announce the home region before its relay is connected: for a node that
    /// speaks first, whose own packets wait for the relay.
    pub speaks_first: bool,
    /// Local UDP port for both address families; 0 picks one.
    pub udp_port: u16,
}

impl NodeConfig {
    /// A node with fresh keys and defaults: no map, direct paths allowed,
    /// random UDP port.
    #[must_use]
    pub fn new(http: adit_http::Client, node_id: i64, addresses: Vec<Ipv6Addr>) -> Self {
        Self {
            node_key: NodePrivate::generate(),
            disco_key: DiscoPrivate::generate(),
            node_id,
            addresses,
            http,
            derp_map: None,
            block_endpoints: false,
            force_websockets: false,
            count_flows: false,
            speaks_first: false,
            udp_port: 0,
        }
    }
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("node_id", &self.node_id)
            .field("addresses", &self.addresses)
            .field("block_endpoints", &self.block_endpoints)
            .field("force_websockets", &self.force_websockets)
            .field("count_flows", &self.count_flows)
            .field("udp_port", &self.udp_port)
            .finish_non_exhaustive()
    }
}
