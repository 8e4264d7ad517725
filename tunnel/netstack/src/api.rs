//! What callers see of sockets: handles, events, errors, statistics.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use bytes::Bytes;

/// Handle of a TCP connection. Handles are never reused: one that outlived its
/// connection gives [`TcpError::UnknownSocket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Identifies an outstanding TSMP ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PingId(pub(crate) u64);

/// Something the application should know.
///
/// [`Readable`](Self::Readable) and [`Writable`](Self::Writable) are edges: each
/// comes once after a call took everything there was, or returned
/// [`TcpError::WouldBlock`] (and the first `Readable` without any call).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer asks for a connection. Nothing has been answered yet: the
    /// application calls [`accept`](crate::Stack::accept) (SYN-ACK),
    /// [`reject`](crate::Stack::reject) (RST) or
    /// [`ignore`](crate::Stack::ignore) (silence).
    Incoming {
        /// Handle of the pending connection.
        id: SocketId,
        /// Own address and port.
        local: SocketAddrV6,
        /// The peer's address and port.
        remote: SocketAddrV6,
    },
    /// The three-way handshake is complete.
    Connected(SocketId),
    /// Data, end of stream or an error can be read.
    Readable(SocketId),
    /// There is room in the send buffer again, or an error to be seen.
    Writable(SocketId),
    /// The connection is over; data received in order before may still be read.
    /// The handle stays valid until [`close`](crate::Stack::close).
    Closed {
        /// Handle of the connection.
        id: SocketId,
        /// Why it ended.
        reason: CloseReason,
    },
    /// A datagram for a bound port, or any port if
    /// [`udp_accept_any`](crate::Stack::udp_accept_any) is on.
    Datagram {
        /// Own address and port.
        local: SocketAddrV6,
        /// The sender.
        remote: SocketAddrV6,
        /// UDP payload.
        payload: Bytes,
    },
    /// The peer reported by ICMPv6 that a datagram could not be delivered.
    DatagramUnreachable {
        /// Own address and port of the datagram.
        local: SocketAddrV6,
        /// Its destination.
        remote: SocketAddrV6,
    },
    /// A TSMP pong for an own ping arrived.
    TsmpPong {
        /// What [`tsmp_ping`](crate::Stack::tsmp_ping) returned.
        id: PingId,
        /// The peer.
        from: Ipv6Addr,
        /// Time since the ping was queued.
        rtt: Duration,
    },
    /// An answer to an own ICMPv6 echo request.
    EchoReply {
        /// The peer.
        from: Ipv6Addr,
        /// Identifier of the request.
        ident: u16,
        /// Sequence number of the request.
        seq: u16,
    },
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Both directions were closed in order.
    #[error("connection closed")]
    Finished,
    /// The peer refused the connection (RST in answer to a SYN).
    #[error("connection refused")]
    Refused,
    /// The peer reset the connection.
    #[error("connection reset by peer")]
    Reset,
    /// The peer did not answer for too long.
    #[error("connection timed out")]
    TimedOut,
    /// ICMPv6 reported the peer's address or port as unreachable while
    /// connecting, or the peer is gone for good
    /// ([`peer_gone`](crate::Stack::peer_gone)).
    #[error("destination unreachable")]
    Unreachable,
    /// Closed from this side by [`abort`](crate::Stack::abort).
    #[error("connection aborted")]
    Aborted,
}

/// Error of a socket call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcpError {
    /// Nothing to read, or no room to write; an event tells when that changes.
    #[error("operation would block")]
    WouldBlock,
    /// The handle is not, or no longer, valid.
    #[error("unknown socket")]
    UnknownSocket,
    /// The call does not fit the connection's state (e.g. a write after
    /// [`shutdown_write`](crate::Stack::shutdown_write)).
    #[error("not allowed in this connection state")]
    InvalidState,
    /// The connection is over.
    #[error("{0}")]
    Closed(CloseReason),
    /// The address is not IPv6 unicast, or no own address exists to use.
    #[error("address not usable")]
    BadAddress,
    /// The local port is taken, or none is free.
    #[error("no local port available")]
    PortInUse,
    /// A limit of [`StackConfig`](crate::StackConfig) is reached.
    #[error("too many sockets")]
    Limit,
}

/// Error of a UDP call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// The payload does not fit one packet; fragments are never sent.
    #[error("datagram too large")]
    TooLarge,
    /// The transmit queue is full; the datagram was dropped.
    #[error("transmit queue full")]
    QueueFull,
    /// Not an own address, or not a unicast destination.
    #[error("address not usable")]
    BadAddress,
    /// The port is already bound.
    #[error("port in use")]
    PortInUse,
}

/// State of a connection (RFC 9293 §3.3.2, plus [`Pending`](Self::Pending)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// A SYN arrived and the application has not decided yet.
    Pending,
    /// SYN sent.
    SynSent,
    /// SYN received and SYN-ACK sent.
    SynReceived,
    /// Open in both directions.
    Established,
    /// FIN sent, not acknowledged.
    FinWait1,
    /// Own FIN acknowledged; the peer may still send.
    FinWait2,
    /// Both FINs sent, own not acknowledged.
    Closing,
    /// Both directions closed.
    TimeWait,
    /// The peer closed its direction.
    CloseWait,
    /// The peer closed, then this side; own FIN not acknowledged.
    LastAck,
    /// Over.
    Closed,
}

/// Counters and estimates of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TcpStats {
    /// Payload bytes handed to the link, repeats included.
    pub bytes_sent: u64,
    /// Payload bytes the peer acknowledged.
    pub bytes_acked: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Segments sent.
    pub segments_sent: u64,
    /// Segments received.
    pub segments_received: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Tail loss probes sent (RFC 8985 §7).
    pub tail_probes: u64,
    /// Retransmissions that proved unnecessary (RFC 2883).
    pub spurious: u64,
    /// Segments that arrived out of order.
    pub out_of_order: u64,
    /// Smoothed round-trip time (zero before the first sample).
    pub srtt: Duration,
    /// Least round-trip time seen lately (zero before the first sample).
    pub min_rtt: Duration,
    /// Congestion window in bytes.
    pub cwnd: usize,
    /// Bytes in flight.
    pub in_flight: usize,
    /// Pacing rate in bytes per second; 0 = not paced.
    pub pacing_rate: u64,
    /// Latest delivery rate sample in bytes per second.
    pub delivery_rate: u64,
    /// Window last announced by the peer, in bytes.
    pub peer_window: usize,
    /// Size the receive buffer may use now, in bytes.
    pub recv_buffer: usize,
    /// Bytes waiting in the send buffer, in flight or not.
    pub send_queued: usize,
}

/// A packet written by [`poll_transmit`](crate::Stack::poll_transmit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The peer the packet is for.
    pub dst: Ipv6Addr,
    /// Bytes written to the start of the caller's buffer.
    pub len: usize,
}
