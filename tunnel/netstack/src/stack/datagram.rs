//! UDP, ICMPv6 and TSMP.

use std::collections::VecDeque;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::table::Flow;
use super::{Stack, ctx};
use crate::tcp::{Ctx, Nanos};
use crate::wire::{icmp, ipv6, tsmp, udp};
use crate::{CloseReason, Event, PingId, TcpState, UdpError};

/// TSMP pings that may be outstanding; older ones are forgotten.
const MAX_PINGS: usize = 256;
/// Allowance per queued datagram for its bookkeeping, in bytes.
const OVERHEAD: usize = 128;

#[derive(Debug)]
struct Ping {
    id: PingId,
    dst: Ipv6Addr,
    sent: Nanos,
}

/// Queues of everything that is not TCP.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    received: VecDeque<Event>,
    received_bytes: usize,
    to_send: VecDeque<(Ipv6Addr, Vec<u8>)>,
    to_send_bytes: usize,
    any: bool,
    pings: VecDeque<Ping>,
    ping_count: u64,
}

impl Datagrams {
    pub(super) fn next_event(&mut self) -> Option<Event> {
        let event = self.received.pop_front()?;
        if let Event::Datagram { payload, .. } = &event {
            self.received_bytes -= payload.len() + OVERHEAD;
        }
        Some(event)
    }

    pub(super) fn next_packet(&mut self) -> Option<(Ipv6Addr, Vec<u8>)> {
        let next = self.to_send.pop_front()?;
        self.to_send_bytes -= next.1.len() + OVERHEAD;
        Some(next)
    }

    /// Gives back what a burst needed.
    pub(super) fn shrink(&mut self) {
        self.received.shrink_to(super::FEW);
        self.to_send.shrink_to(super::FEW);
        self.pings.shrink_to(super::FEW);
    }
}

impl Stack {
    /// Receives datagrams for `port` as events.
    ///
    /// # Errors
    /// [`UdpError::PortInUse`].
    pub fn udp_bind(&mut self, port: u16) -> Result<(), UdpError> {
        if self.bound.insert(port) {
            Ok(())
        } else {
            Err(UdpError::PortInUse)
        }
    }

    /// Picks and binds a free ephemeral port.
    ///
    /// # Errors
    /// [`UdpError::PortInUse`] if none is free.
    pub fn udp_bind_any(&mut self) -> Result<u16, UdpError> {
        let port = self
            .ephemeral(|stack, port| !stack.bound.contains(&port))
            .map_err(|_| UdpError::PortInUse)?;
        self.bound.insert(port);
        Ok(port)
    }

    /// Ends [`udp_bind`](Self::udp_bind).
    pub fn udp_unbind(&mut self, port: u16) {
        self.bound.remove(&port);
    }

    /// Whether datagrams for unbound ports become events too. If not they are
    /// answered with ICMPv6 port unreachable.
    pub fn udp_accept_any(&mut self, on: bool) {
        self.datagrams.any = on;
    }

    /// Most payload bytes of a datagram to `peer`.
    #[must_use]
    pub fn udp_payload_limit(&self, peer: &Ipv6Addr) -> usize {
        self.mtu(peer) - ipv6::HEADER - udp::HEADER
    }

    /// Queues a datagram from `local` (an own address; unspecified = the first).
    ///
    /// # Errors
    /// [`UdpError`].
    pub fn udp_send(
        &mut self,
        mut local: SocketAddrV6,
        remote: SocketAddrV6,
        payload: &[u8],
    ) -> Result<(), UdpError> {
        if local.ip().is_unspecified()
            && let Some(own) = self.config.addresses.first()
        {
            local.set_ip(*own);
        }
        if !self.config.addresses.contains(local.ip()) || !ipv6::is_unicast(remote.ip()) {
            return Err(UdpError::BadAddress);
        }
        if payload.len() > self.udp_payload_limit(remote.ip()) {
            return Err(UdpError::TooLarge);
        }
        let packet = udp::packet(&local, &remote, payload);
        let size = packet.len() + OVERHEAD;
        if self.datagrams.to_send_bytes + size > self.config.udp_queue_bytes {
            return Err(UdpError::QueueFull);
        }
        self.datagrams.to_send_bytes += size;
        self.datagrams.to_send.push_back((*remote.ip(), packet));
        Ok(())
    }

    pub(super) fn on_udp(&mut self, now: Nanos, ip: &ipv6::Packet<'_>, packet: &[u8]) {
        let Some(datagram) = udp::parse(ip.payload) else {
            return;
        };
        if !self.datagrams.any && !self.bound.contains(&datagram.dst_port) {
            if self.take_stray_token(now) {
                let quoted = &packet[..(ipv6::HEADER + ip.payload.len()).min(1232)];
                self.send_icmp(&ip.dst, &ip.src, icmp::UNREACHABLE, icmp::CODE_PORT, quoted);
            }
            return;
        }
        let size = datagram.payload.len() + OVERHEAD;
        if self.datagrams.received_bytes + size > self.config.udp_queue_bytes {
            return;
        }
        self.datagrams.received_bytes += size;
        self.datagrams.received.push_back(Event::Datagram {
            local: SocketAddrV6::new(ip.dst, datagram.dst_port, 0, 0),
            remote: SocketAddrV6::new(ip.src, datagram.src_port, 0, 0),
            payload: Bytes::copy_from_slice(datagram.payload),
        });
    }

    fn send_icmp(&mut self, src: &Ipv6Addr, dst: &Ipv6Addr, kind: u8, code: u8, body: &[u8]) {
        let message = icmp::Message {
            kind,
            code,
            word: [0; 4],
            body,
        };
        let packet = icmp::packet(src, dst, &message);
        self.push_control(*dst, packet);
    }

    /// Tells `remote` by ICMPv6 that nobody listens at `local`: what a host
    /// does that received a datagram for a closed port.
    pub fn udp_reject(&mut self, now: Instant, local: SocketAddrV6, remote: SocketAddrV6) {
        let now = self.nanos(now);
        if self.take_stray_token(now) {
            // The message quotes the headers of the datagram it is about.
            let quoted = udp::packet(&remote, &local, &[]);
            let (own, peer) = (local.ip(), remote.ip());
            self.send_icmp(own, peer, icmp::UNREACHABLE, icmp::CODE_PORT, &quoted);
        }
    }

    pub(super) fn on_icmp(&mut self, now: Nanos, ip: &ipv6::Packet<'_>) {
        let Some(message) = icmp::parse(ip.payload) else {
            return;
        };
        match message.kind {
            icmp::ECHO_REQUEST
                if ip.payload.len() + ipv6::HEADER <= self.mtu(&ip.src)
                    && self.take_stray_token(now) =>
            {
                let reply = icmp::Message {
                    kind: icmp::ECHO_REPLY,
                    code: 0,
                    ..message
                };
                let packet = icmp::packet(&ip.dst, &ip.src, &reply);
                self.push_control(ip.src, packet);
            }
            icmp::ECHO_REPLY => {
                let [a, b, c, d] = message.word;
                self.push_event(Event::EchoReply {
                    from: ip.src,
                    ident: u16::from_be_bytes([a, b]),
                    seq: u16::from_be_bytes([c, d]),
                });
            }
            icmp::UNREACHABLE => self.on_unreachable(now, message.body),
            icmp::PACKET_TOO_BIG => {
                let mtu = u32::from_be_bytes(message.word) as usize;
                if let Some((_, flow)) = quoted(message.body)
                    && self.table.contains(&flow)
                {
                    self.on_too_big(now, flow.remote.0, mtu);
                }
            }
            _ => {}
        }
    }

    /// RFC 8201: a path MTU may only fall this way, and not below the least.
    fn on_too_big(&mut self, now: Nanos, dst: Ipv6Addr, mtu: usize) {
        if mtu >= self.mtu(&dst) {
            return;
        }
        let mtu = self.note_path_mtu(dst, mtu);
        for index in self.sockets_to(&dst) {
            if let Some(tcb) = &mut self.table.slot(index).tcb {
                tcb.on_too_big(mtu);
            }
            self.settle(now, index);
        }
    }

    /// An error about a packet of ours: ends a connection attempt, is told to
    /// whoever sent a datagram, and never hurts an open connection.
    fn on_unreachable(&mut self, now: Nanos, body: &[u8]) {
        let Some((next, flow)) = quoted(body) else {
            return;
        };
        if next == ipv6::UDP {
            self.push_event(Event::DatagramUnreachable {
                local: flow.local(),
                remote: flow.remote(),
            });
            return;
        }
        let Some(index) = self.table.socket(&flow) else {
            return;
        };
        if let Some(tcb) = &mut self.table.slot(index).tcb
            && tcb.state == TcpState::SynSent
        {
            tcb.finish(&mut ctx!(self, now), CloseReason::Unreachable);
            self.settle(now, index);
        }
    }

    /// Queues an ICMPv6 echo request; answered by [`Event::EchoReply`].
    pub fn echo_request(&mut self, dst: Ipv6Addr, ident: u16, seq: u16, payload: &[u8]) {
        let Some(&src) = self.config.addresses.first() else {
            return;
        };
        let ([a, b], [c, d]) = (ident.to_be_bytes(), seq.to_be_bytes());
        let room = self.mtu(&dst) - ipv6::HEADER - 8;
        let message = icmp::Message {
            kind: icmp::ECHO_REQUEST,
            code: 0,
            word: [a, b, c, d],
            body: &payload[..payload.len().min(room)],
        };
        let packet = icmp::packet(&src, &dst, &message);
        self.push_control(dst, packet);
    }

    /// Queues a TSMP ping; answered by [`Event::TsmpPong`].
    pub fn tsmp_ping(&mut self, now: Instant, dst: Ipv6Addr) -> PingId {
        let sent = self.nanos(now);
        self.datagrams.ping_count += 1;
        let token = self.key.hash(5, &self.datagrams.ping_count.to_be_bytes());
        let id = PingId(token);
        if let Some(&src) = self.config.addresses.first() {
            if self.datagrams.pings.len() >= MAX_PINGS {
                self.datagrams.pings.pop_front();
            }
            self.datagrams.pings.push_back(Ping { id, dst, sent });
            let ping = tsmp::Message::Ping(token.to_be_bytes());
            self.push_control(dst, tsmp::packet(&src, &dst, ping));
        }
        id
    }

    pub(super) fn on_tsmp(&mut self, now: Nanos, ip: &ipv6::Packet<'_>) {
        match tsmp::parse(ip.payload) {
            Some(tsmp::Message::Ping(token)) => {
                let pong = tsmp::packet(&ip.dst, &ip.src, tsmp::Message::Pong(token));
                self.push_control(ip.src, pong);
            }
            Some(tsmp::Message::Pong(token)) => {
                let id = PingId(u64::from_be_bytes(token));
                let pings = &mut self.datagrams.pings;
                let found = pings.iter().position(|p| p.id == id && p.dst == ip.src);
                if let Some(ping) = found.and_then(|at| pings.remove(at)) {
                    self.push_event(Event::TsmpPong {
                        id,
                        from: ip.src,
                        rtt: Duration::from_nanos(now.saturating_sub(ping.sent)),
                    });
                }
            }
            None => {}
        }
    }
}

/// Protocol and flow of the own packet that an ICMPv6 error quotes.
fn quoted(body: &[u8]) -> Option<(u8, Flow)> {
    let (header, rest) = body.split_first_chunk::<{ ipv6::HEADER }>()?;
    let ports = rest.first_chunk::<4>()?;
    if header[0] >> 4 != 6 || !matches!(header[6], ipv6::TCP | ipv6::UDP) {
        return None;
    }
    let address = |at: usize| -> Option<Ipv6Addr> {
        let octets: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets))
    };
    let flow = Flow {
        local: (address(8)?, u16::from_be_bytes([ports[0], ports[1]])),
        remote: (address(24)?, u16::from_be_bytes([ports[2], ports[3]])),
    };
    Some((header[6], flow))
}
