//! A second implementation of the packet formats, and a scripted peer.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use adit_netstack::{Event, SocketId, Stack, StackConfig, TcpState};

pub(crate) const OWN: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 1);
pub(crate) const PEER: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 2);

fn checksum(src: Ipv6Addr, dst: Ipv6Addr, next: u8, body: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, next]);
    bytes.extend(body);
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv6 packet; for TCP, UDP and ICMPv6 the checksum is put at `check_at`.
pub(crate) fn packet(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    next: u8,
    body: &[u8],
    check_at: Option<usize>,
) -> Vec<u8> {
    let mut body = body.to_vec();
    if let Some(at) = check_at {
        body[at..at + 2].fill(0);
        let sum = checksum(src, dst, next, &body);
        body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(body);
    packet
}

/// Splits an outgoing packet into destination, protocol and body; checks it.
pub(crate) fn unpack(packet: &[u8]) -> (Ipv6Addr, u8, Vec<u8>) {
    assert_eq!(packet[0] >> 4, 6);
    assert_eq!(&packet[1..4], [0; 3], "no traffic class, no flow label");
    let body = packet[40..].to_vec();
    assert_eq!(
        u16::from_be_bytes([packet[4], packet[5]]) as usize,
        body.len()
    );
    let src = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[8..24]).unwrap());
    let dst = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap());
    let next = packet[6];
    assert!(matches!(next, 6 | 17 | 58 | 99), "no extension headers");
    if next != 99 {
        assert_eq!(checksum(src, dst, next, &body), 0);
    }
    (dst, next, body)
}

/// A TCP segment as a script writes it; sequence numbers are absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seg {
    pub(crate) flags: &'static str,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) win: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack_ok: bool,
    pub(crate) ts: Option<(u32, u32)>,
    pub(crate) sacks: Vec<(u32, u32)>,
    pub(crate) data: Vec<u8>,
}

const FLAGS: [(char, u8); 8] = [
    ('F', 1),
    ('S', 2),
    ('R', 4),
    ('P', 8),
    ('.', 16),
    ('U', 32),
    ('E', 64),
    ('W', 128),
];

fn flag_text(bits: u8) -> &'static str {
    match bits & !8 {
        1 => "F",
        2 => "S",
        4 => "R",
        16 => ".",
        17 => "F.",
        18 => "S.",
        20 => "R.",
        _ => "?",
    }
}

impl Seg {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(mss) = self.mss {
            options.extend([2, 4]);
            options.extend(mss.to_be_bytes());
        }
        if let Some(scale) = self.scale {
            options.extend([3, 3, scale]);
        }
        if self.sack_ok {
            options.extend([4, 2]);
        }
        if let Some((value, echo)) = self.ts {
            options.extend([8, 10]);
            options.extend(value.to_be_bytes());
            options.extend(echo.to_be_bytes());
        }
        if !self.sacks.is_empty() {
            options.extend([5, 2 + 8 * self.sacks.len() as u8]);
            for (left, right) in &self.sacks {
                options.extend(left.to_be_bytes());
                options.extend(right.to_be_bytes());
            }
        }
        while options.len() % 4 != 0 {
            options.push(1);
        }
        let bits = FLAGS
            .iter()
            .filter(|(c, _)| self.flags.contains(*c))
            .fold(0, |bits, (_, bit)| bits | bit);
        let mut body = Vec::new();
        body.extend(self.sport.to_be_bytes());
        body.extend(self.dport.to_be_bytes());
        body.extend(self.seq.to_be_bytes());
        body.extend(self.ack.to_be_bytes());
        body.extend([((20 + options.len()) / 4 * 16) as u8, bits]);
        body.extend(self.win.to_be_bytes());
        let urgent = if self.flags.contains('U') { 1 } else { 0 };
        body.extend([0, 0, 0, urgent]);
        body.extend(options);
        body.extend(&self.data);
        packet(PEER, OWN, 6, &body, Some(16))
    }

    pub(crate) fn decode(body: &[u8]) -> Self {
        let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_be_bytes(body[at..at + 2].try_into().unwrap());
        let header = usize::from(body[12] >> 4) * 4;
        let mut seg = Self {
            flags: flag_text(body[13]),
            sport: half(0),
            dport: half(2),
            seq: word(4),
            ack: word(8),
            win: half(14),
            data: body[header..].to_vec(),
            ..Self::default()
        };
        let mut at = 20;
        while at < header {
            match body[at] {
                0 => break,
                1 => {
                    at += 1;
                    continue;
                }
                2 => seg.mss = Some(half(at + 2)),
                3 => seg.scale = Some(body[at + 2]),
                4 => seg.sack_ok = true,
                5 => {
                    for i in 0..(usize::from(body[at + 1]) - 2) / 8 {
                        seg.sacks.push((word(at + 2 + 8 * i), word(at + 6 + 8 * i)));
                    }
                }
                8 => seg.ts = Some((word(at + 2), word(at + 6))),
                other => panic!("unexpected option {other}"),
            }
            at += usize::from(body[at + 1]);
        }
        seg
    }
}

/// The stack under test and the state of the scripted peer.
pub(crate) struct Script {
    pub(crate) stack: Stack,
    pub(crate) origin: Instant,
    pub(crate) now: Duration,
    /// Ports: own, and the peer's.
    pub(crate) own_port: u16,
    pub(crate) peer_port: u16,
    /// Initial sequence numbers: own (learnt), and the peer's.
    pub(crate) iss: u32,
    pub(crate) irs: u32,
    /// Whether the peer uses timestamps; they run in milliseconds from 1000.
    pub(crate) timestamps: bool,
    pub(crate) last_value: u32,
    pub(crate) id: Option<SocketId>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(adjust: impl FnOnce(&mut StackConfig)) -> Self {
        let origin = Instant::now();
        let mut config = StackConfig::new(vec![OWN], 1);
        adjust(&mut config);
        Self {
            stack: Stack::new(config, origin),
            origin,
            now: Duration::ZERO,
            own_port: 80,
            peer_port: 4000,
            iss: 0,
            irs: 5000,
            timestamps: true,
            last_value: 0,
            id: None,
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.origin + self.now
    }

    /// Like `next_packet`, for packets to anybody.
    pub(crate) fn next_any(&mut self, within: Duration) -> Option<usize> {
        let end = self.now + within;
        let mut buf = [0; 9216];
        loop {
            let now = self.instant();
            while self.stack.poll_event().is_some() {}
            if let Some(transmit) = self.stack.poll_transmit(now, &mut buf) {
                return Some(transmit.len);
            }
            let due = self.stack.poll_timeout()?;
            let due = due.saturating_duration_since(self.origin);
            if due > end {
                self.now = end;
                return None;
            }
            self.now = self.now.max(due);
            let now = self.instant();
            self.stack.handle_timeout(now);
        }
    }

    /// The next packet sent up to `within` from now, and when it was.
    pub(crate) fn next_packet(&mut self, within: Duration) -> Option<(Duration, u8, Vec<u8>)> {
        let (start, end) = (self.now, self.now + within);
        let mut buf = [0; 9216];
        loop {
            let now = self.instant();
            if let Some(transmit) = self.stack.poll_transmit(now, &mut buf) {
                let (dst, next, body) = unpack(&buf[..transmit.len]);
                assert_eq!((dst, transmit.dst), (PEER, PEER));
                return Some((self.now - start, next, body));
            }
            let due = self.stack.poll_timeout()?;
            let due = due.saturating_duration_since(self.origin);
            if due > end {
                self.now = end;
                return None;
            }
            self.now = self.now.max(due);
            let now = self.instant();
            self.stack.handle_timeout(now);
        }
    }

    /// The segment sent next, and after what time.
    #[track_caller]
    pub(crate) fn expect_within(&mut self, within: Duration) -> (Duration, Seg) {
        let Some((after, next, body)) = self.next_packet(within) else {
            panic!("nothing sent within {within:?}");
        };
        assert_eq!(next, 6);
        let seg = Seg::decode(&body);
        if let Some((value, _)) = seg.ts {
            self.last_value = value;
        }
        (after, seg)
    }

    /// The segment sent at once.
    #[track_caller]
    pub(crate) fn expect(&mut self) -> Seg {
        self.expect_within(Duration::ZERO).1
    }

    /// Relative numbers of the segment sent at once.
    #[track_caller]
    pub(crate) fn expect_at(&mut self) -> (u32, u32) {
        self.expect_at_within(Duration::ZERO)
    }

    #[track_caller]
    pub(crate) fn expect_at_within(&mut self, within: Duration) -> (u32, u32) {
        let seg = self.expect_within(within).1;
        self.relative(&seg)
    }

    /// Nothing is sent for some time.
    #[track_caller]
    pub(crate) fn quiet(&mut self, time: Duration) {
        let end = self.now + time;
        if let Some((after, _, body)) = self.next_packet(time) {
            panic!("sent after {after:?}: {:?}", Seg::decode(&body));
        }
        self.now = end;
    }

    /// Takes everything that is sent at once.
    pub(crate) fn drain(&mut self) -> Vec<Seg> {
        let mut all = Vec::new();
        while let Some((_, next, body)) = self.next_packet(Duration::ZERO) {
            if next == 6 {
                let seg = Seg::decode(&body);
                if let Some((value, _)) = seg.ts {
                    self.last_value = value;
                }
                all.push(seg);
            }
        }
        all
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.stack.poll_event()).collect()
    }

    /// Time stamp of the peer now.
    pub(crate) fn peer_ts(&self) -> u32 {
        1000 + self.now.as_millis() as u32
    }

    /// A segment of the peer: sequence numbers relative to both initial ones.
    pub(crate) fn seg(&self, flags: &'static str, seq: u32, ack: u32) -> Seg {
        Seg {
            flags,
            sport: self.peer_port,
            dport: self.own_port,
            seq: self.irs.wrapping_add(seq),
            ack: if flags.contains('.') {
                self.iss.wrapping_add(ack)
            } else {
                0
            },
            win: 50_000,
            ts: self.timestamps.then(|| (self.peer_ts(), self.last_value)),
            ..Seg::default()
        }
    }

    pub(crate) fn inject(&mut self, seg: &Seg) {
        let now = self.instant();
        self.stack.handle_packet(now, &seg.encode());
    }

    /// Something on the path reports a packet of the connection as too big.
    pub(crate) fn too_big(&mut self, mtu: u32) {
        let ports = [self.own_port.to_be_bytes(), self.peer_port.to_be_bytes()].concat();
        let quoted = packet(OWN, PEER, 6, &[&ports[..], &[0; 16]].concat(), None);
        let body = [&[2, 0, 0, 0][..], &mtu.to_be_bytes(), &quoted].concat();
        let now = self.instant();
        self.stack
            .handle_packet(now, &packet(PEER, OWN, 58, &body, Some(2)));
    }

    /// The peer's SYN with usual options.
    pub(crate) fn syn(&self) -> Seg {
        Seg {
            mss: Some(1220),
            scale: Some(0),
            sack_ok: true,
            ..self.seg("S", 0, 0)
        }
    }

    /// Opens a connection from the peer's side, with an RTT of 50 ms.
    #[track_caller]
    pub(crate) fn open(&mut self, syn: &Seg) -> SocketId {
        self.inject(syn);
        let events = self.events();
        let [Event::Incoming { id, .. }] = events[..] else {
            panic!("{events:?}");
        };
        let now = self.instant();
        self.stack.accept(now, id).unwrap();
        let answer = self.expect();
        assert_eq!((answer.flags, answer.ack), ("S.", self.irs.wrapping_add(1)));
        self.iss = answer.seq;
        self.now += Duration::from_millis(50);
        self.inject(&self.seg(".", 1, 1));
        assert_eq!(self.events(), [Event::Connected(id)]);
        assert_eq!(self.stack.state(id), TcpState::Established);
        self.id = Some(id);
        id
    }

    /// An open connection with usual options.
    pub(crate) fn established() -> Self {
        let mut script = Self::new();
        script.open(&script.syn());
        script
    }

    /// A connection without timestamps and SACK.
    pub(crate) fn plain() -> Self {
        let mut script = Self::new();
        script.timestamps = false;
        let syn = Seg {
            sack_ok: false,
            ..script.syn()
        };
        script.open(&syn);
        script
    }

    pub(crate) fn id(&self) -> SocketId {
        self.id.unwrap()
    }

    #[track_caller]
    pub(crate) fn write(&mut self, len: usize) {
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let now = self.instant();
        assert_eq!(self.stack.write(now, self.id.unwrap(), &data), Ok(len));
    }

    pub(crate) fn read(&mut self) -> Vec<u8> {
        let mut data = Vec::new();
        let mut buf = [0; 4096];
        let now = self.instant();
        while let Ok(n) = self.stack.read(now, self.id.unwrap(), &mut buf) {
            if n == 0 {
                break;
            }
            data.extend(&buf[..n]);
        }
        data
    }

    /// Data of the peer.
    pub(crate) fn data(&self, seq: u32, ack: u32, len: usize) -> Seg {
        Seg {
            data: vec![b'x'; len],
            ..self.seg("P.", seq, ack)
        }
    }

    /// Sequence and acknowledgement of a sent segment, relative.
    pub(crate) fn relative(&self, seg: &Seg) -> (u32, u32) {
        (
            seg.seq.wrapping_sub(self.iss),
            seg.ack.wrapping_sub(self.irs),
        )
    }

    /// Relative SACK blocks of a sent segment.
    pub(crate) fn sacks(&self, seg: &Seg) -> Vec<(u32, u32)> {
        let relative = |n: u32| n.wrapping_sub(self.irs);
        seg.sacks
            .iter()
            .map(|&(l, r)| (relative(l), relative(r)))
            .collect()
    }
}

/// Own socket address.
pub(crate) fn own(port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(OWN, port, 0, 0)
}

/// The peer's socket address.
pub(crate) fn peer(port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(PEER, port, 0, 0)
}
