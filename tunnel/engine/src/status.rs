//! Read-only views of a running node.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use adit_keys::NodePublic;
use uuid::Uuid;

/// The way packets take to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Straight over UDP to this address.
    Direct(SocketAddr),
    /// Through the DERP relay of this region.
    Derp(u32),
}

/// Outcome of a disco ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingResult {
    /// Round-trip time.
    pub latency: Duration,
    /// The path the first pong answered for.
    pub path: Path,
}

/// Why a peer is not reached directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayReason {
    /// Direct connections are disabled on this side.
    BlockedHere,
    /// The peer announces no endpoints (it blocks direct connections, sits
    /// behind a network without UDP, or has not finished gathering).
    PeerHasNoEndpoints,
    /// No own endpoint is known yet, so the peer cannot be invited to try.
    NoOwnEndpoints,
    /// Nothing was sent lately, so no direct path was looked for.
    Idle,
    /// Candidates were probed and none answered yet.
    NoAnswer,
    /// A direct path worked and then stopped answering.
    PathLost,
}

impl RelayReason {
    /// One line for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::BlockedHere => "direct connections are disabled on this side",
            Self::PeerHasNoEndpoints => "the peer offers no direct endpoints",
            Self::NoOwnEndpoints => "no own endpoint is known yet",
            Self::Idle => "no traffic lately, no direct path was looked for",
            Self::NoAnswer => "no endpoint of the peer answered over UDP",
            Self::PathLost => "the direct path stopped answering",
        }
    }
}

/// One peer as the node sees it.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The coordinator's name for the peer.
    pub id: Uuid,
    /// WireGuard key.
    pub node_key: NodePublic,
    /// Addresses the peer may send from.
    pub addresses: Vec<Ipv6Addr>,
    /// Home relay region of the peer.
    pub home_region: u32,
    /// The path packets take now, `None` while there is none.
    pub path: Option<Path>,
    /// Why the path is not direct, when it is not.
    pub why_relayed: Option<RelayReason>,
    /// Latest round-trip time measured on the direct path.
    pub latency: Option<Duration>,
    /// Bytes of tunnel packets received from the peer.
    pub rx_bytes: u64,
    /// Bytes of tunnel packets sent to the peer.
    pub tx_bytes: u64,
    /// Time since the last completed WireGuard handshake.
    pub last_handshake: Option<Duration>,
}

/// A flow of inner packets, both directions as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Number of the IP protocol: 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// This node's end; port 0 where the protocol has none.
    pub local: SocketAddrV6,
    /// The peer's end.
    pub remote: SocketAddrV6,
}

/// Traffic counters for the agent's statistics report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// TCP connections open now.
    pub open_connections: u64,
    /// TCP connections counted since the node started.
    pub total_connections: u64,
    /// Tunnel packets received since start.
    pub rx_packets: u64,
    /// Tunnel bytes received since start.
    pub rx_bytes: u64,
    /// Tunnel packets sent since start.
    pub tx_packets: u64,
    /// Tunnel bytes sent since start.
    pub tx_bytes: u64,
}

/// What the network looks like from here.
#[derive(Clone, Debug, Default)]
pub struct NetReport {
    /// Home relay region, 0 while unknown.
    pub home_region: u32,
    /// Measured relay latency per region.
    pub latencies: Vec<(u32, Duration)>,
    /// Own endpoints as announced to peers.
    pub endpoints: Vec<SocketAddr>,
    /// Two STUN servers saw different addresses: direct paths need luck.
    pub mapping_varies: bool,
    /// A STUN server answered.
    pub udp: bool,
    /// Last relay error, for people.
    pub relay_error: Option<String>,
}
