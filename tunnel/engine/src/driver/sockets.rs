//! The node's two UDP sockets, with segmentation offload both ways.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Socket buffer size asked for, in bytes.
const SOCKET_BUFFER: usize = 7 << 20;
/// Received messages per system call; each may hold many merged datagrams.
const SLOTS: usize = 8;
/// Room for one merged message.
const SLOT_LEN: usize = 64 * 1024;
/// Bytes that one send may carry, a bit below the largest UDP payload.
const MAX_SEND: usize = 65_000;
/// Tries to get the same port number for both families.
const PORT_TRIES: usize = 8;

/// One socket.
#[derive(Debug)]
struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    fn bind(ip: IpAddr, port: u16) -> io::Result<Self> {
        let domain = if ip.is_ipv4() {
            socket2::Domain::IPV4
        } else {
            socket2::Domain::IPV6
        };
        let socket =
            socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
        if ip.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(ip, port).into())?;
        enlarge(&socket);
        let io = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        Ok(Self { io, state })
    }

    /// Takes back that segmentation offload was switched off: it was refused
    /// for the length of the segments, which fits into no other case.
    fn offload_again(&mut self) {
        if self.state.max_gso_segments() == 1
            && let Ok(state) = UdpSocketState::new(UdpSockRef::from(&self.io))
        {
            self.state = state;
        }
    }

    fn port(&self) -> u16 {
        self.io.local_addr().map_or(0, |a| a.port())
    }
}

/// Asks for large buffers, beyond the system limit where allowed.
fn enlarge(socket: &socket2::Socket) {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        let forced = setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_ok()
            && setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_ok();
        if forced {
            return;
        }
    }
    // Smaller buffers only cost throughput.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
}

/// Outcome of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendResult {
    /// Taken by the system (or dropped as UDP may).
    Done,
    /// The socket buffer is full: try again when writable.
    Blocked,
    /// The address cannot be reached from here.
    Unreachable,
    /// Datagrams of this length do not fit the way out.
    TooLong(usize),
}

/// Both sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    v4: Option<Socket>,
    v6: Option<Socket>,
    buffer: Vec<u8>,
}

impl Sockets {
    /// Binds both families, on the same port number if possible. Without any
    /// socket the node goes on over relays.
    pub(crate) fn bind(port: u16) -> Self {
        for _ in 0..PORT_TRIES {
            let v4 = Socket::bind(Ipv4Addr::UNSPECIFIED.into(), port);
            let wanted = v4.as_ref().map_or(port, Socket::port);
            match (v4, Socket::bind(Ipv6Addr::UNSPECIFIED.into(), wanted)) {
                // The number is taken in the other family: draw again.
                (Ok(_), Err(error)) if error.kind() == io::ErrorKind::AddrInUse && port == 0 => {}
                (Err(error), Err(_)) => {
                    tracing::warn!(%error, "no UDP socket: relays only");
                    return Self::with(None, None);
                }
                (v4, v6) => return Self::with(v4.ok(), v6.ok()),
            }
        }
        Self::with(Socket::bind(Ipv4Addr::UNSPECIFIED.into(), port).ok(), None)
    }

    fn with(v4: Option<Socket>, v6: Option<Socket>) -> Self {
        Self {
            v4,
            v6,
            // Zeroed pages cost nothing until large messages arrive.
            buffer: vec![0; SLOTS * SLOT_LEN],
        }
    }

    /// Frees the pages of the receive buffer that were used. It stays where it
    /// is: a new one might come from what a burst has left of the heap, and
    /// would be cleared there.
    pub(crate) fn give_back(&mut self) {
        adit_memory::release(&mut self.buffer);
    }

    /// Local port of the IPv4 and the IPv6 socket.
    pub(crate) fn ports(&self) -> (Option<u16>, Option<u16>) {
        (
            self.v4.as_ref().map(Socket::port),
            self.v6.as_ref().map(Socket::port),
        )
    }

    /// Receives one batch and gives each datagram to `each`. `Ready(false)`
    /// when nothing was there after all.
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        v6: bool,
        mut each: impl FnMut(SocketAddr, &[u8]),
    ) -> Poll<bool> {
        let Some(socket) = (if v6 { &self.v6 } else { &self.v4 }) else {
            return Poll::Pending;
        };
        let mut metas = [RecvMeta::default(); SLOTS];
        loop {
            match socket.io.poll_recv_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Ready(Ok(())) => {}
            }
            let mut slots = self.buffer.chunks_mut(SLOT_LEN);
            let mut slices: [IoSliceMut<'_>; SLOTS] =
                std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or(&mut [])));
            let got = socket.io.try_io(Interest::READABLE, || {
                socket
                    .state
                    .recv(UdpSockRef::from(&socket.io), &mut slices, &mut metas)
            });
            let count = match got {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                // An ICMP error of an earlier send.
                Err(_) => return Poll::Ready(false),
            };
            for (meta, slot) in metas.iter().zip(self.buffer.chunks(SLOT_LEN)).take(count) {
                let data = &slot[..meta.len.min(slot.len())];
                for datagram in data.chunks(meta.stride.max(1)) {
                    each(meta.addr, datagram);
                }
            }
            return Poll::Ready(true);
        }
    }

    /// Sends `contents`, cut into datagrams of `segment` bytes.
    pub(crate) fn send(&mut self, to: SocketAddr, contents: &[u8], segment: usize) -> SendResult {
        let Some(socket) = (if to.is_ipv6() {
            &mut self.v6
        } else {
            &mut self.v4
        }) else {
            return SendResult::Unreachable;
        };
        let most =
            (segment * socket.state.max_gso_segments()).min(MAX_SEND / segment.max(1) * segment);
        for part in contents.chunks(most.max(segment).max(1)) {
            let transmit = Transmit {
                destination: to,
                ecn: None,
                contents: part,
                segment_size: (part.len() > segment).then_some(segment),
                src_ip: None,
            };
            let sent = socket.io.try_io(Interest::WRITABLE, || {
                socket
                    .state
                    .try_send(UdpSockRef::from(&socket.io), &transmit)
            });
            match sent {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return SendResult::Blocked;
                }
                Err(error) if is_unreachable(&error) => return SendResult::Unreachable,
                Err(error) if is_too_long(&error, segment) => {
                    socket.offload_again();
                    return SendResult::TooLong(segment);
                }
                Err(error) => tracing::debug!(%to, %error, "UDP send failed"),
            }
        }
        SendResult::Done
    }

    /// Registers for room in the socket buffer towards `to`.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>, to: SocketAddr) -> Poll<()> {
        match if to.is_ipv6() { &self.v6 } else { &self.v4 } {
            Some(socket) => socket.io.poll_send_ready(cx).map(|_| ()),
            None => Poll::Ready(()),
        }
    }
}

/// Errors that mean "no way to that address": no route, or a local filter.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NetworkDown
    )
}

/// Errors that mean "longer than the link". Batches are refused with another
/// number than single datagrams.
fn is_too_long(error: &io::Error, segment: usize) -> bool {
    #[cfg(unix)]
    {
        use nix::errno::Errno;
        let code = error.raw_os_error().map(Errno::from_raw);
        code == Some(Errno::EMSGSIZE)
            || (code == Some(Errno::EINVAL) && segment > adit_disco::PADDED_DATAGRAM_LEN + 2)
    }
    #[cfg(windows)]
    {
        let _ = segment;
        // WSAEMSGSIZE
        error.raw_os_error() == Some(10_040)
    }
}

/// Datagrams of one destination and size, collected for one system call.
#[derive(Debug)]
pub(crate) struct Batch {
    buffer: Vec<u8>,
    len: usize,
    segment: usize,
    to: Option<SocketAddr>,
    /// A shorter datagram ended the batch.
    closed: bool,
}

/// Most datagrams in one batch.
const MAX_SEGMENTS: usize = 64;

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; MAX_SEND + adit_mesh::BUFFER_LEN],
            len: 0,
            segment: 0,
            to: None,
            closed: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn destination(&self) -> Option<SocketAddr> {
        self.to
    }

    /// Room for the next datagram, behind what is collected.
    pub(crate) fn slot(&mut self) -> &mut [u8] {
        &mut self.buffer[self.len..]
    }

    /// Bytes written into the slot.
    pub(crate) fn written(&self, len: usize) -> &[u8] {
        &self.buffer[self.len..self.len + len]
    }

    /// Whether a datagram of `len` bytes to `to` may join.
    pub(crate) fn fits(&self, to: SocketAddr, len: usize) -> bool {
        self.len == 0
            || (self.to == Some(to)
                && !self.closed
                && len <= self.segment
                && self.len + len <= MAX_SEND
                && self.len / self.segment < MAX_SEGMENTS)
    }

    /// Keeps the datagram in the slot. Call only if it [`fits`](Self::fits).
    pub(crate) fn push(&mut self, to: SocketAddr, len: usize) {
        if self.len == 0 {
            self.to = Some(to);
            self.segment = len;
            self.closed = false;
        } else if len < self.segment {
            self.closed = true;
        }
        self.len += len;
    }

    /// Sends what is collected; on [`SendResult::Blocked`] it stays.
    pub(crate) fn flush(&mut self, sockets: &mut Sockets) -> SendResult {
        let Some(to) = self.to.filter(|_| self.len > 0) else {
            return SendResult::Done;
        };
        let result = sockets.send(to, &self.buffer[..self.len], self.segment);
        if result != SendResult::Blocked {
            self.clear();
        }
        result
    }

    /// Moves the datagram in the slot to the front of an emptied batch.
    pub(crate) fn restart(&mut self, slot_at: usize, to: SocketAddr, len: usize) {
        self.buffer.copy_within(slot_at..slot_at + len, 0);
        self.len = 0;
        self.push(to, len);
    }

    /// Where the slot begins.
    pub(crate) fn position(&self) -> usize {
        self.len
    }

    fn clear(&mut self) {
        self.len = 0;
        self.to = None;
    }

    /// Frees the pages that were used, if nothing is collected.
    pub(crate) fn give_back(&mut self) {
        if self.is_empty() {
            adit_memory::release(&mut self.buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_waits_is_not_given_back() {
        let to = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut batch = Batch::new();
        for _ in 0..20 {
            batch.slot()[..1200].fill(7);
            batch.push(to, 1200);
        }
        batch.give_back();
        assert!(batch.buffer[..20 * 1200].iter().all(|byte| *byte == 7));
        batch.clear();
        batch.give_back();
        batch.slot()[..1200].fill(8);
        batch.push(to, 1200);
        assert_eq!((batch.position(), batch.buffer[1199]), (1200, 8));
    }
}
