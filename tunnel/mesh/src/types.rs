//! Plain data at the mesh's edges.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_keys::{DiscoPrivate, DiscoPublic, NodePrivate, NodePublic};
use adit_noise::Clock;
use uuid::Uuid;

/// Who this node is.
#[derive(Debug)]
pub struct MeshConfig {
    /// WireGuard and relay identity.
    pub node_key: NodePrivate,
    /// Path discovery identity.
    pub disco_key: DiscoPrivate,
    /// All randomness follows from this, keys of handshakes included: it must
    /// come from the operating system, except in tests.
    pub seed: [u8; 32],
    /// The date, for handshakes.
    pub clock: Clock,
}

/// A peer as granted by the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The coordinator's name for the peer.
    pub id: Uuid,
    /// WireGuard key.
    pub node_key: NodePublic,
    /// Path discovery key; must not be zero.
    pub disco_key: DiscoPublic,
    /// Relay region the peer listens on.
    pub home_region: u32,
    /// Addresses at which the peer may be reached over UDP.
    pub endpoints: Vec<SocketAddr>,
    /// Overlay addresses the peer may use.
    pub allowed_ips: Vec<Ipv6Addr>,
    /// Keep the session open: handshake now, then a packet at least every 25 s.
    pub keepalive: bool,
}

/// Where a datagram goes to or came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// Straight over UDP.
    Udp(SocketAddr),
    /// Through the relay of `region`, addressed to (or sent by) `key`.
    Derp {
        /// Relay region.
        region: u32,
        /// The other node.
        key: NodePublic,
    },
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub via: Via,
    /// The datagram.
    pub data: Vec<u8>,
}

/// The ways one sealed packet is to be sent. Both are set while the direct
/// path is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Over UDP to this address.
    pub direct: Option<SocketAddr>,
    /// Over this region's relay to this key.
    pub relay: Option<(u32, NodePublic)>,
}

/// What became of an inner packet given to [`Mesh::seal`](crate::Mesh::seal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// `out[..len]` is the datagram to send along the route.
    Ready {
        /// Length of the datagram.
        len: usize,
        /// Where to send it.
        route: Route,
    },
    /// Kept until the handshake is done, then sent by
    /// [`Mesh::poll_transmit`](crate::Mesh::poll_transmit).
    Queued,
    /// No granted peer owns the destination, or the packet is unusable.
    Dropped,
}

/// What a received datagram meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// `out[..len]` is an inner packet from an allowed source address.
    Packet {
        /// Length of the inner packet.
        len: usize,
    },
    /// A STUN response: not for the mesh.
    Stun,
    /// Handled, or dropped.
    Nothing,
}

/// News for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A ping started by [`Mesh::ping`](crate::Mesh::ping) was answered.
    Pong {
        /// What `ping` returned.
        token: u64,
        /// Round-trip time.
        latency: Duration,
        /// The path that was pinged.
        via: Via,
    },
    /// The path to a peer changed, the relay begins to help out, or the peer is
    /// heard after a silence: what was lost is worth sending again now.
    Path {
        /// The peer.
        id: Uuid,
        /// The direct address, or `None` for the relay.
        direct: Option<SocketAddr>,
    },
    /// Another size of inner packets fits the path to a peer from now on.
    Mtu {
        /// The peer.
        id: Uuid,
        /// Largest inner packet, in bytes.
        mtu: usize,
    },
    /// A handshake with a peer completed.
    Established {
        /// The peer.
        id: Uuid,
    },
}

/// Why a peer is not reached directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDirect {
    /// Direct paths are switched off here.
    Blocked,
    /// The peer announced no endpoints.
    PeerHasNoEndpoints,
    /// Nothing was sent lately.
    Idle,
    /// No candidate answered.
    NoAnswer,
    /// The direct path went silent.
    Lost,
}

/// A peer's state, for display and statistics.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// The coordinator's name for the peer.
    pub id: Uuid,
    /// WireGuard key.
    pub node_key: NodePublic,
    /// Overlay addresses in force.
    pub allowed_ips: Vec<Ipv6Addr>,
    /// Relay region.
    pub home_region: u32,
    /// Direct address in use.
    pub direct: Option<SocketAddr>,
    /// Largest inner packet that fits, in bytes.
    pub mtu: usize,
    /// Round-trip time of the direct path.
    pub latency: Option<Duration>,
    /// Set when there is no direct path.
    pub not_direct: Option<NotDirect>,
    /// Last completed handshake.
    pub last_handshake: Option<Instant>,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// Inner bytes sent.
    pub tx_bytes: u64,
    /// Something was sent within the last 45 s.
    pub active: bool,
}

/// What a [`Mesh`](crate::Mesh) keeps, as counts over all peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Granted peers.
    pub peers: usize,
    /// Addresses that may lead to them.
    pub candidates: usize,
    /// Pings that wait for a pong.
    pub pings: usize,
    /// Entries in the timer queue.
    pub timers: usize,
    /// Datagrams that wait to be sent.
    pub queued: usize,
}

/// A peer description that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Without a disco key no path can be found.
    #[error("the peer has no disco key")]
    NoDiscoKey,
    /// The peer has this node's own key.
    #[error("the peer has this node's own key")]
    OwnKey,
    /// The node key is zero.
    #[error("the peer has no node key")]
    NoNodeKey,
}
