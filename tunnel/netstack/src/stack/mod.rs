//! The stack: demultiplexing, timers, transmit scheduling and the public calls.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Instant;

use bytes::Bytes;

use crate::{
    Event, Keepalive, PingId, SocketId, StackConfig, TcpError, TcpState, TcpStats, Transmit,
    UdpError,
};

/// A userspace IPv6 stack. See the [crate documentation](crate) for the loop
/// that drives it.
#[derive(Debug)]
pub struct Stack {
    config: StackConfig,
}

#[expect(unused_variables, clippy::unused_self, reason = "signatures first")]
impl Stack {
    /// A stack with the given settings; `now` is the origin of its clock.
    #[must_use]
    pub fn new(config: StackConfig, now: Instant) -> Self {
        Self { config }
    }
    /// Replaces the own addresses. Connections from removed ones stay until
    /// they are closed, but receive nothing any more.
    pub fn set_addresses(&mut self, addresses: &[Ipv6Addr]) {
        self.config.addresses = addresses.to_vec();
    }
    /// Inner MTU towards `peer`, used by connections opened from now on and by
    /// open ones as far as their MSS allows. `None` restores the default.
    pub fn set_path_mtu(&mut self, peer: Ipv6Addr, mtu: Option<usize>) {}
    /// Takes one packet from a peer. Anything malformed or not addressed to
    /// this stack is dropped.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {}
    /// Writes the next packet to `buf`, which must hold the largest MTU in use.
    /// Leave head room in front of `buf` to encrypt in place.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut [u8]) -> Option<Transmit> {
        None
    }
    /// When [`handle_timeout`](Self::handle_timeout) has to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {}
    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
    /// Says that the path to `peer` works again or has changed: connections
    /// waiting in retransmission back-off try at once.
    pub fn path_changed(&mut self, now: Instant, peer: Ipv6Addr) {}

    /// Opens a connection. `local_port` 0 picks one; the source is the first
    /// own address.
    ///
    /// # Errors
    /// [`TcpError::BadAddress`], [`TcpError::PortInUse`], [`TcpError::Limit`].
    pub fn connect(
        &mut self,
        now: Instant,
        local_port: u16,
        remote: SocketAddrV6,
    ) -> Result<SocketId, TcpError> {
        Err(TcpError::Limit)
    }
    /// Answers a pending connection with SYN-ACK.
    ///
    /// # Errors
    /// [`TcpError::UnknownSocket`], or [`TcpError::InvalidState`] if not pending.
    pub fn accept(&mut self, now: Instant, id: SocketId) -> Result<(), TcpError> {
        Err(TcpError::UnknownSocket)
    }
    /// Answers a pending connection with RST and forgets it.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn reject(&mut self, now: Instant, id: SocketId) -> Result<(), TcpError> {
        Err(TcpError::UnknownSocket)
    }
    /// Forgets a pending connection without an answer.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn ignore(&mut self, now: Instant, id: SocketId) -> Result<(), TcpError> {
        Err(TcpError::UnknownSocket)
    }
    /// Reads received bytes; `Ok(0)` is the end of the stream (for a non-empty
    /// `buf`).
    ///
    /// # Errors
    /// [`TcpError::WouldBlock`], or the end of the connection.
    pub fn read(&mut self, now: Instant, id: SocketId, buf: &mut [u8]) -> Result<usize, TcpError> {
        Err(TcpError::UnknownSocket)
    }
    /// Copies as much of `data` as there is room for to the send buffer.
    ///
    /// # Errors
    /// [`TcpError::WouldBlock`], or the end of the connection.
    pub fn write(&mut self, now: Instant, id: SocketId, data: &[u8]) -> Result<usize, TcpError> {
        Err(TcpError::UnknownSocket)
    }
    /// As [`write`](Self::write) without a copy: takes what there is room for
    /// off the front of `data`.
    ///
    /// # Errors
    /// [`TcpError::WouldBlock`], or the end of the connection.
    pub fn write_bytes(
        &mut self,
        now: Instant,
        id: SocketId,
        data: &mut Bytes,
    ) -> Result<usize, TcpError> {
        Err(TcpError::UnknownSocket)
    }
    /// Sends FIN after what is buffered; reading goes on.
    ///
    /// # Errors
    /// [`TcpError::UnknownSocket`] or the end of the connection.
    pub fn shutdown_write(&mut self, now: Instant, id: SocketId) -> Result<(), TcpError> {
        Err(TcpError::UnknownSocket)
    }
    /// Releases the handle. Buffered data and FIN are still delivered; what was
    /// received and not read is discarded.
    pub fn close(&mut self, now: Instant, id: SocketId) {}
    /// Resets the connection at once and releases the handle.
    pub fn abort(&mut self, now: Instant, id: SocketId) {}
    /// State of the connection; [`TcpState::Closed`] for unknown handles.
    #[must_use]
    pub fn state(&self, id: SocketId) -> TcpState {
        TcpState::Closed
    }
    /// Own and peer's address of a connection.
    #[must_use]
    pub fn addresses_of(&self, id: SocketId) -> Option<(SocketAddrV6, SocketAddrV6)> {
        None
    }
    /// Counters and estimates of a connection.
    #[must_use]
    pub fn tcp_stats(&self, id: SocketId) -> Option<TcpStats> {
        None
    }
    /// Replaces the keepalive setting of a connection.
    pub fn set_keepalive(&mut self, now: Instant, id: SocketId, keepalive: Option<Keepalive>) {}
    /// Number of TCP sockets, TIME-WAIT entries not counted.
    #[must_use]
    pub fn socket_count(&self) -> usize {
        0
    }

    /// Receives datagrams for `port` as events.
    ///
    /// # Errors
    /// [`UdpError::PortInUse`].
    pub fn udp_bind(&mut self, port: u16) -> Result<(), UdpError> {
        Ok(())
    }
    /// Picks and binds a free ephemeral port.
    ///
    /// # Errors
    /// [`UdpError::PortInUse`] if none is free.
    pub fn udp_bind_any(&mut self) -> Result<u16, UdpError> {
        Err(UdpError::PortInUse)
    }
    /// Ends [`udp_bind`](Self::udp_bind).
    pub fn udp_unbind(&mut self, port: u16) {}
    /// Whether datagrams for unbound ports become events too. If not they are
    /// answered with ICMPv6 port unreachable.
    pub fn udp_accept_any(&mut self, on: bool) {}
    /// Queues a datagram from `local` (an own address; unspecified = the first).
    ///
    /// # Errors
    /// [`UdpError`].
    pub fn udp_send(
        &mut self,
        local: SocketAddrV6,
        remote: SocketAddrV6,
        payload: &[u8],
    ) -> Result<(), UdpError> {
        Ok(())
    }
    /// Tells `remote` by ICMPv6 that nobody listens at `local`.
    pub fn udp_reject(&mut self, now: Instant, local: SocketAddrV6, remote: SocketAddrV6) {}
    /// Queues a TSMP ping; answered by [`Event::TsmpPong`].
    pub fn tsmp_ping(&mut self, now: Instant, dst: Ipv6Addr) -> PingId {
        PingId(0)
    }
    /// Queues an ICMPv6 echo request; answered by [`Event::EchoReply`].
    pub fn echo_request(
        &mut self,
        now: Instant,
        dst: Ipv6Addr,
        ident: u16,
        seq: u16,
        payload: &[u8],
    ) {
    }
}
