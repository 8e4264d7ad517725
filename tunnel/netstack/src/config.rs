//! Settings of a [`Stack`](crate::Stack) and of its TCP endpoint.

use std::net::Ipv6Addr;
use std::time::Duration;

/// Smallest MTU an IPv6 link may have (RFC 8200 §5), and the default here.
pub const MIN_MTU: usize = 1280;

/// Largest inner packet any setting allows, in bytes.
pub const MAX_MTU: usize = 9216;

/// Settings of a stack.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Own addresses. Packets for any other destination are dropped.
    pub addresses: Vec<Ipv6Addr>,
    /// Inner MTU in bytes used towards peers without a
    /// [path MTU](crate::Stack::set_path_mtu) of their own; values below
    /// [`MIN_MTU`] are raised to it.
    pub mtu: usize,
    /// Largest inner packet that the caller can take from and deliver to the
    /// stack, in bytes: the bound of all path MTUs. Peers are offered an MSS
    /// that allows it, whatever the path allows now, because the MSS of a
    /// connection cannot be raised later.
    pub max_mtu: usize,
    /// Secret from which initial sequence numbers, timestamp offsets and
    /// ephemeral ports are derived (RFC 6528). Must be random outside tests;
    /// a fixed seed makes a run reproducible.
    pub seed: u64,
    /// Most TCP connections (in any state but TIME-WAIT) at once.
    pub max_sockets: usize,
    /// Most incoming connections that are not yet established.
    pub backlog: usize,
    /// Most TIME-WAIT entries; the oldest are forgotten first.
    pub max_time_wait: usize,
    /// Bytes that all sockets together may hold in buffers beyond the
    /// [`initial_buffer`](TcpConfig::initial_buffer) each of them is entitled to.
    pub memory_budget: usize,
    /// Bytes of received UDP payload that may wait in the event queue, and as
    /// many again waiting for transmission.
    pub udp_queue_bytes: usize,
    /// Whether checksums of received packets are verified. Packets out of an
    /// authenticated tunnel need no second check.
    pub verify_checksums: bool,
    /// Settings of the TCP endpoint.
    pub tcp: TcpConfig,
}

impl StackConfig {
    /// The defaults for the given own addresses and secret seed.
    #[must_use]
    pub fn new(addresses: Vec<Ipv6Addr>, seed: u64) -> Self {
        Self {
            addresses,
            mtu: MIN_MTU,
            max_mtu: 1500,
            seed,
            max_sockets: 16_384,
            backlog: 1024,
            max_time_wait: 4096,
            memory_budget: 256 << 20,
            udp_queue_bytes: 1 << 20,
            verify_checksums: true,
            tcp: TcpConfig::default(),
        }
    }
}

/// Which congestion controller a connection uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// Model-based: paces at the measured delivery rate.
    #[default]
    Bbr,
    /// Loss-based (RFC 9438) with HyStart++ (RFC 9406).
    Cubic,
}

/// Keepalive of an idle connection (RFC 9293 §3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is given up.
    pub probes: u32,
}

impl Keepalive {
    /// 2 h idle, then up to 9 probes 75 s apart.
    pub const DEFAULT: Self = Self {
        idle: Duration::from_secs(2 * 60 * 60),
        interval: Duration::from_secs(75),
        probes: 9,
    };
}

/// Settings of the TCP endpoint.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Congestion controller of new connections.
    pub congestion: CongestionControl,
    /// Bytes of receive buffer (and so of the first window) of a new connection,
    /// and the least it shrinks to.
    pub initial_buffer: usize,
    /// Most bytes that a receive buffer, or a send buffer, may grow to.
    pub max_buffer: usize,
    /// Longest time an acknowledgement is held back.
    pub ack_delay: Duration,
    /// Least retransmission timeout (RFC 6298).
    pub min_rto: Duration,
    /// Largest retransmission timeout. Below the 60 s of RFC 6298 by default:
    /// one packet now and then costs nothing, and an outage of minutes is over
    /// sooner.
    pub max_rto: Duration,
    /// A connection whose data stays unacknowledged for this long is given up
    /// (RFC 5482).
    pub user_timeout: Duration,
    /// A connection attempt, in or out, is given up after this time.
    pub connect_timeout: Duration,
    /// How long the application may take to decide on an incoming connection.
    pub pending_timeout: Duration,
    /// Duration of TIME-WAIT.
    pub time_wait: Duration,
    /// How long a connection released by the application may wait for the
    /// peer's FIN.
    pub fin_wait: Duration,
    /// Keepalive of accepted connections; `None` switches it off.
    pub keepalive: Option<Keepalive>,
    /// Whether segments are paced; without it only the window limits bursts.
    pub pacing: bool,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            congestion: CongestionControl::default(),
            initial_buffer: 64 << 10,
            max_buffer: 16 << 20,
            ack_delay: Duration::from_millis(5),
            min_rto: Duration::from_millis(200),
            max_rto: Duration::from_secs(15),
            user_timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(30),
            pending_timeout: Duration::from_secs(30),
            time_wait: Duration::from_secs(10),
            fin_wait: Duration::from_secs(60),
            keepalive: Some(Keepalive::DEFAULT),
            pacing: true,
        }
    }
}
