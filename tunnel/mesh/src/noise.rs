//! The WireGuard core behind a small interface.
//!
//! boringtun supplies the handshake and the transport cipher. Its own timers
//! are not used: they measure with the real clock, rekey and send keepalives
//! at the wrong moments, and need a call every few hundred milliseconds. Time
//! lives in [`Tunnel`](crate::tunnel::Tunnel) instead; boringtun's clock is
//! only advanced around handshakes, where it orders sessions.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use adit_keys::{NodePrivate, NodePublic};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

/// Datagrams above this are no WireGuard of ours. Also keeps the cipher's
/// output buffer large enough.
pub(crate) const MAX_DATAGRAM: usize = crate::MAX_MTU + OVERHEAD;

/// Bytes a sealed packet is longer than its content.
pub(crate) const OVERHEAD: usize = 32;

/// Length of a handshake initiation.
pub(crate) const INITIATION_LEN: usize = 148;

/// Handshake messages per second and peer before cookies are asked for: about
/// two percent of a core.
const HANDSHAKE_LIMIT: u64 = 100;

/// What opening a datagram gave. Lengths refer to the output buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Send these bytes back to the peer.
    Reply(usize),
    /// An inner packet, with its source address.
    Packet(usize, Ipv6Addr),
    /// Authentic, but without content.
    Empty,
}

/// A datagram that gave nothing: replayed, forged, or of a forgotten session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejected;

/// One peer's handshake and sessions.
pub(crate) trait Noise {
    /// Writes a new handshake initiation; its length, or `None` on failure.
    fn initiate(&mut self, out: &mut [u8]) -> Option<usize>;
    /// Seals an inner packet (empty for a keepalive); `None` without session.
    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize>;
    /// Opens any WireGuard message. `out` must hold [`MAX_DATAGRAM`] bytes.
    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Opened, Rejected>;
    /// Forgets all session keys.
    fn forget(&mut self);
    /// Whether [`seal`](Self::seal) would work.
    fn has_session(&self) -> bool;
}

/// [`Noise`] by boringtun.
pub(crate) struct Boring {
    tunn: Tunn,
    limiter: Arc<RateLimiter>,
    secret: StaticSecret,
    public: PublicKey,
    /// Stands for the peer in cookies: real addresses change with the path.
    source: IpAddr,
}

impl Boring {
    /// `index` must be unique among the node's peers and below 2^24.
    pub(crate) fn new(
        secret: &NodePrivate,
        peer: &NodePublic,
        index: u32,
        source: Ipv6Addr,
    ) -> Self {
        let secret = secret.to_x25519();
        let public = PublicKey::from(&secret);
        let limiter = Arc::new(RateLimiter::new(&public, HANDSHAKE_LIMIT));
        let tunn = Tunn::new(
            secret.clone(),
            peer.to_x25519(),
            None,
            None,
            index,
            Some(Arc::clone(&limiter)),
        );
        Self {
            tunn,
            limiter,
            secret,
            public,
            source: IpAddr::V6(source),
        }
    }

    /// Advances boringtun's clock. An initiation it makes on the way is
    /// returned, anything else it wants to send is not needed.
    fn advance(&mut self, out: &mut [u8]) -> Option<usize> {
        match self.tunn.update_timers(out) {
            TunnResult::WriteToNetwork(p) if p.len() == INITIATION_LEN => Some(p.len()),
            _ => None,
        }
    }
}

impl Noise for Boring {
    fn initiate(&mut self, out: &mut [u8]) -> Option<usize> {
        if out.len() < INITIATION_LEN {
            return None;
        }
        if let Some(len) = self.advance(out) {
            return Some(len);
        }
        match self.tunn.format_handshake_initiation(out, true) {
            TunnResult::WriteToNetwork(p) => Some(p.len()),
            _ => None,
        }
    }

    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        if !self.has_session() || out.len() < packet.len() + OVERHEAD {
            return None;
        }
        match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(p) => Some(p.len()),
            _ => None,
        }
    }

    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Opened, Rejected> {
        if datagram.is_empty() || datagram.len() > MAX_DATAGRAM || out.len() < MAX_DATAGRAM {
            return Err(Rejected);
        }
        match kind(datagram) {
            Kind::Initiation => {
                self.limiter.reset_count();
                let _ = self.advance(out);
            }
            Kind::Response => self.limiter.reset_count(),
            Kind::Cookie | Kind::Data => {}
            Kind::Unknown => return Err(Rejected),
        }
        match self.tunn.decapsulate(Some(self.source), datagram, out) {
            TunnResult::WriteToNetwork(p) => Ok(Opened::Reply(p.len())),
            TunnResult::WriteToTunnelV6(p, source) => Ok(Opened::Packet(p.len(), source)),
            TunnResult::Done => Ok(Opened::Empty),
            TunnResult::WriteToTunnelV4(..) | TunnResult::Err(_) => Err(Rejected),
        }
    }

    fn forget(&mut self) {
        self.tunn.set_static_private(
            self.secret.clone(),
            self.public,
            Some(Arc::clone(&self.limiter)),
        );
    }

    fn has_session(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }
}

/// Message types of WireGuard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Initiation,
    Response,
    Cookie,
    Data,
    Unknown,
}

/// Type of a datagram, with its length checked.
pub(crate) fn kind(datagram: &[u8]) -> Kind {
    let Some((head, _)) = datagram.split_first_chunk::<4>() else {
        return Kind::Unknown;
    };
    match (u32::from_le_bytes(*head), datagram.len()) {
        (1, INITIATION_LEN) => Kind::Initiation,
        (2, 92) => Kind::Response,
        (3, 64) => Kind::Cookie,
        (4, OVERHEAD..) => Kind::Data,
        _ => Kind::Unknown,
    }
}

/// The 32-bit little-endian number at `at`, 0 past the end.
pub(crate) fn index_at(datagram: &[u8], at: usize) -> u32 {
    datagram
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |b| u32::from_le_bytes(*b))
}

/// The receiver index of a message that has one.
pub(crate) fn receiver_index(datagram: &[u8]) -> Option<u32> {
    match kind(datagram) {
        Kind::Data | Kind::Cookie => Some(index_at(datagram, 4)),
        Kind::Response => Some(index_at(datagram, 8)),
        Kind::Initiation | Kind::Unknown => None,
    }
}

/// Finds out who sent an initiation that came from an unknown address. Costs
/// one curve multiplication, after the cheap MAC check.
pub(crate) struct Introducer {
    limiter: RateLimiter,
    secret: StaticSecret,
    public: PublicKey,
}

impl Introducer {
    pub(crate) fn new(secret: &NodePrivate) -> Self {
        let secret = secret.to_x25519();
        let public = PublicKey::from(&secret);
        Self {
            limiter: RateLimiter::new(&public, u64::MAX),
            secret,
            public,
        }
    }

    /// The static key inside an initiation addressed to this node.
    pub(crate) fn sender(&self, initiation: &[u8]) -> Option<NodePublic> {
        let mut cookie = [0; 64];
        let Ok(Packet::HandshakeInit(init)) =
            self.limiter.verify_packet(None, initiation, &mut cookie)
        else {
            return None;
        };
        let half =
            boringtun::noise::handshake::parse_handshake_anon(&self.secret, &self.public, &init)
                .ok()?;
        Some(NodePublic::from_bytes(half.peer_static_public))
    }
}
