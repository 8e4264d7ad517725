//! The node: all peers, and the way of each datagram to the right one.

mod discovery;
mod grants;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_keys::{DiscoPrivate, DiscoPublic, NodePublic};
use adit_noise::{Admission, Guard, Identity, Kind, Origin, Random, kind, receiver_index};
use uuid::Uuid;

use crate::paths::Paths;
use crate::peer::Peer;
use crate::tunnel::{Input, Message, Output};
use crate::types::{Event, Load, MeshConfig, PeerInfo, Received, Sealed, Transmit, Via};

/// Most control datagrams waiting to be sent; the oldest goes first.
const MAX_QUEUED: usize = 4096;

/// Number of a peer, and owner of its session numbers.
type PeerIndex = u32;

/// Deadlines that packets bring lie at least this far ahead.
const SOON: Duration = Duration::from_millis(100);

/// Timer entries beyond two for each peer that are kept before the heap is
/// cleaned.
const SPARE_TIMERS: usize = 64;

/// Timers fire no sooner than this after they are set.
const TICK: Duration = Duration::from_millis(1);

/// The sans-IO mesh core.
///
/// Feed it datagrams and inner packets with the time they arrived; afterwards
/// drain [`poll_transmit`](Self::poll_transmit) and
/// [`poll_event`](Self::poll_event), and call
/// [`handle_timeout`](Self::handle_timeout) when
/// [`poll_timeout`](Self::poll_timeout) has passed.
pub struct Mesh {
    node_public: NodePublic,
    disco_key: DiscoPrivate,
    disco_public: DiscoPublic,
    identity: Arc<Identity>,
    guard: Guard,
    rng: Random,
    peers: HashMap<PeerIndex, Peer>,
    next_index: u32,
    by_id: HashMap<Uuid, PeerIndex>,
    by_key: HashMap<NodePublic, PeerIndex>,
    by_disco: HashMap<DiscoPublic, PeerIndex>,
    by_ip: HashMap<Ipv6Addr, PeerIndex>,
    /// Direct addresses in use, with their peers.
    by_direct: BTreeSet<(SocketAddr, PeerIndex)>,
    timers: BinaryHeap<Reverse<(Instant, PeerIndex)>>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    endpoints: Vec<SocketAddr>,
    blocked: bool,
    next_token: u64,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("key", &self.node_public)
            .field("peers", &self.peers.len())
            .finish()
    }
}

impl Mesh {
    /// A node without peers.
    #[must_use]
    pub fn new(config: MeshConfig) -> Self {
        let identity = Arc::new(Identity::new(config.node_key.to_x25519(), config.clock));
        Self {
            node_public: config.node_key.public(),
            disco_public: config.disco_key.public(),
            disco_key: config.disco_key,
            guard: Guard::new(Arc::clone(&identity)),
            identity,
            next_index: 0,
            rng: Random::new(config.seed),
            peers: HashMap::new(),
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            by_disco: HashMap::new(),
            by_ip: HashMap::new(),
            by_direct: BTreeSet::new(),
            timers: BinaryHeap::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            endpoints: Vec::new(),
            blocked: false,
            next_token: 1,
        }
    }

    /// Own addresses over UDP, offered to peers in call-me-maybe messages.
    /// Peers that packets go to over the relay are told at once.
    pub fn set_endpoints(&mut self, now: Instant, endpoints: Vec<SocketAddr>) {
        if self.endpoints != endpoints {
            self.endpoints = endpoints;
            self.for_all(now, |peer, _| peer.paths.endpoints_changed(now));
        }
    }

    /// The relay region through which `key` was heard last: a way to it when
    /// its home region is not known here.
    #[must_use]
    pub fn seen_region(&self, key: &NodePublic) -> Option<u32> {
        self.by_key
            .get(key)
            .and_then(|index| self.peers.get(index))
            .and_then(|peer| peer.seen_region)
    }

    /// Switches direct paths off (existing ones are dropped at once) or on.
    pub fn set_blocked(&mut self, now: Instant, blocked: bool) {
        self.blocked = blocked;
        self.for_all(now, |peer, rng| peer.paths.set_blocked(now, blocked, rng));
    }

    /// The machine's network changed: every path has to prove itself anew.
    pub fn link_changed(&mut self, now: Instant) {
        self.for_all(now, |peer, rng| peer.paths.link_changed(now, rng));
    }

    /// A relay connection came up: handshakes under way are repeated at once,
    /// and peers that were reached over relays hear from this node.
    pub fn relay_up(&mut self, now: Instant, region: u32) {
        self.for_all(now, |peer, rng| {
            if peer.config.home_region == region {
                peer.tunnel.nudge(now, rng);
            }
            if peer.paths.relay_up(now) {
                peer.tunnel.poke(now, rng);
            }
        });
    }

    /// The operating system refused to send to `addr` (unreachable, filtered).
    pub fn send_failed(&mut self, now: Instant, addr: SocketAddr) {
        self.for_direct(now, addr, |paths| paths.send_failed(now, addr));
    }

    /// The operating system refused a datagram of `len` bytes to `addr` as too
    /// long.
    pub fn send_too_long(&mut self, now: Instant, addr: SocketAddr, len: usize) {
        self.for_direct(now, addr, |paths| paths.too_long(now, len));
    }

    /// Tells the paths of all peers that are reached at `addr`.
    fn for_direct(&mut self, now: Instant, addr: SocketAddr, mut tell: impl FnMut(&mut Paths)) {
        let hit: Vec<_> = self
            .by_direct
            .range((addr, 0)..=(addr, PeerIndex::MAX))
            .copied()
            .collect();
        for (_, index) in hit {
            if let Some(peer) = self.peers.get_mut(&index) {
                tell(&mut peer.paths);
            }
            self.after(now, index);
        }
    }

    fn for_all(&mut self, now: Instant, mut change: impl FnMut(&mut Peer, &mut Random)) {
        let mut all: Vec<_> = self.peers.keys().copied().collect();
        // What is drawn at random must not depend on the order of a hash.
        all.sort_unstable();
        for index in all {
            if let Some(peer) = self.peers.get_mut(&index) {
                change(peer, &mut self.rng);
            }
            self.after(now, index);
        }
    }

    /// The relay region through which alone packets to the holder of `ip` go
    /// now, if they do.
    #[must_use]
    pub fn relay_only(&self, now: Instant, ip: &Ipv6Addr) -> Option<u32> {
        let peer = self.by_ip.get(ip).and_then(|index| self.peers.get(index))?;
        let route = peer.route(now);
        route.direct.is_none().then_some(route.relay?.0)
    }

    /// Whether a granted peer holds the address.
    #[must_use]
    pub fn has_peer(&self, ip: &Ipv6Addr) -> bool {
        self.by_ip.contains_key(ip)
    }

    /// Seals one inner packet for the peer that holds `dst` into `out`, which
    /// must be at least 32 bytes longer than the packet.
    pub fn seal(&mut self, now: Instant, dst: &Ipv6Addr, packet: &[u8], out: &mut [u8]) -> Sealed {
        let Some(peer) = self
            .by_ip
            .get(dst)
            .and_then(|index| self.peers.get_mut(index))
        else {
            return Sealed::Dropped;
        };
        let index = peer.index;
        peer.paths.sent(now, &mut self.rng);
        let largest = peer.paths.mtu();
        let sealed = match peer.tunnel.send(now, packet, largest, out, &mut self.rng) {
            Output::Sealed(len) => {
                peer.tx_bytes += packet.len() as u64;
                Sealed::Ready {
                    len,
                    route: peer.route(now),
                }
            }
            Output::Queued => {
                peer.tx_bytes += packet.len() as u64;
                Sealed::Queued
            }
        };
        self.after(now, index);
        sealed
    }

    /// Takes a datagram from a UDP socket. `out` must hold
    /// [`BUFFER_LEN`](crate::BUFFER_LEN) bytes.
    pub fn handle_udp(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Received {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if adit_stun::is_stun(datagram) {
            return Received::Stun;
        }
        if adit_disco::is_disco(datagram) {
            if !self.blocked {
                self.handle_disco(now, Via::Udp(from), datagram);
            }
            return Received::Nothing;
        }
        let via = Via::Udp(from);
        match self.admit(now, via, datagram) {
            Some((index, message)) => self.open(now, index, via, message, out),
            None => {
                let mut at = self
                    .by_direct
                    .range((from, PeerIndex::MIN)..=(from, PeerIndex::MAX));
                // The path in use of one peer only.
                if let (Some(&(_, index)), None) = (at.next(), at.next()) {
                    self.unknown(now, index, datagram);
                }
                Received::Nothing
            }
        }
    }

    /// Takes a packet that `key` sent through the relay of `region`. `out`
    /// must hold [`BUFFER_LEN`](crate::BUFFER_LEN) bytes.
    pub fn handle_derp(
        &mut self,
        now: Instant,
        region: u32,
        key: NodePublic,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Received {
        let via = Via::Derp { region, key };
        if adit_disco::is_disco(datagram) {
            self.handle_disco(now, via, datagram);
            return Received::Nothing;
        }
        let Some(index) = self.by_key.get(&key).copied() else {
            return Received::Nothing;
        };
        // The relay vouches for the sender; a message of another peer inside
        // its packets is a lie.
        match self.admit(now, via, datagram) {
            Some((of, message)) if of == index => self.open(now, index, via, message, out),
            Some(_) => Received::Nothing,
            None => {
                self.unknown(now, index, datagram);
                Received::Nothing
            }
        }
    }

    /// `datagram` surely came from this peer, but names no session.
    fn unknown(&mut self, now: Instant, index: PeerIndex, datagram: &[u8]) {
        if kind(datagram) == Some(Kind::Data)
            && let Some(peer) = self.peers.get_mut(&index)
        {
            peer.tunnel.outdated(now, datagram, &mut self.rng);
            self.after(now, index);
        }
    }

    /// Whose tunnel a datagram belongs to, and what it is there.
    fn admit<'a>(
        &mut self,
        now: Instant,
        via: Via,
        datagram: &'a [u8],
    ) -> Option<(PeerIndex, Message<'a>)> {
        let kind = kind(datagram)?;
        let owner = match receiver_index(datagram) {
            Some(receiver) => Some(self.rng.owner(receiver)?),
            None => None,
        };
        if matches!(kind, Kind::Initiation | Kind::Response) {
            let origin = match via {
                Via::Udp(from) => Origin::Udp(from),
                Via::Derp { key, .. } => Origin::Relay(*key.as_bytes()),
            };
            match self.guard.admit(now, origin, datagram, &mut self.rng) {
                Admission::Accept => {}
                Admission::Cookie(reply) => {
                    self.transmit(Transmit {
                        via,
                        data: reply.to_vec(),
                    });
                    return None;
                }
                Admission::Drop => return None,
            }
        }
        if kind == Kind::Initiation {
            let incoming = self.identity.examine(datagram).ok()?;
            let sender = NodePublic::from_bytes(incoming.sender().to_bytes());
            let index = self.by_key.get(&sender).copied()?;
            return Some((index, Message::Initiation(Box::new(incoming))));
        }
        Some((owner?, Message::Other(kind, datagram)))
    }

    fn open(
        &mut self,
        now: Instant,
        index: PeerIndex,
        via: Via,
        message: Message<'_>,
        out: &mut [u8],
    ) -> Received {
        let Some(peer) = self.peers.get_mut(&index) else {
            return Received::Nothing;
        };
        let data = match &message {
            Message::Other(Kind::Data, data) => Some(*data),
            _ => None,
        };
        let Ok(input) = peer.tunnel.receive(now, message, out, &mut self.rng) else {
            // Replays are normal while both paths are used.
            let vouched = match via {
                Via::Udp(from) => peer.paths.direct() == Some(from),
                Via::Derp { .. } => true,
            };
            if vouched && let Some(data) = data {
                peer.tunnel.outdated(now, data, &mut self.rng);
                self.after(now, index);
            }
            return Received::Nothing;
        };
        peer.paths.heard(now);
        match via {
            Via::Udp(from) => peer.paths.heard_udp(now, from, &mut self.rng),
            Via::Derp { region, .. } => {
                peer.seen_region = Some(region);
                if matches!(input, Input::Packet(..)) {
                    peer.paths.heard_relay(now, &mut self.rng);
                }
            }
        }
        let received = match input {
            Input::Packet(len, source) => {
                if peer.allowed.contains(&source) {
                    peer.rx_bytes += len as u64;
                    Received::Packet { len }
                } else {
                    tracing::debug!(%source, peer = %peer.id, "source address is not granted to the peer");
                    Received::Nothing
                }
            }
            Input::Handled(reply) => {
                if let Some(data) = reply {
                    // Answer the way it came: that way works.
                    self.transmit(Transmit {
                        via,
                        data: data.to_vec(),
                    });
                }
                Received::Nothing
            }
        };
        self.after(now, index);
        received
    }

    fn transmit(&mut self, transmit: Transmit) {
        if self.transmits.len() >= MAX_QUEUED {
            self.transmits.pop_front();
        }
        self.transmits.push_back(transmit);
    }

    /// Collects what a peer's parts want done, and arms its timer.
    fn after(&mut self, now: Instant, index: PeerIndex) {
        let Some(peer) = self.peers.get_mut(&index) else {
            return;
        };
        if peer.tunnel.take_established() {
            self.events.push_back(Event::Established { id: peer.id });
        }
        // The usual case on the data path: nothing to say, and a timer armed
        // that comes before any deadline a packet can bring.
        if peer.is_quiet() && peer.armed.is_some_and(|at| at <= now + SOON) {
            return;
        }
        let mut made = Vec::new();
        peer.drain_tunnel(now, &mut self.rng, &mut |t| made.push(t));
        let mut actions = Vec::new();
        while let Some(action) = peer.paths.poll_action() {
            actions.push(action);
        }
        if let Some(at) = peer.poll_timeout(now).map(|at| at.max(now + TICK))
            && peer.armed.is_none_or(|armed| at < armed)
        {
            peer.armed = Some(at);
            self.timers.push(Reverse((at, index)));
            self.trim_timers();
        }
        for transmit in made {
            self.transmit(transmit);
        }
        if !actions.is_empty() {
            for action in actions {
                self.act(now, index, action);
            }
            self.after(now, index);
        }
    }

    /// Forgets entries that were overtaken, once they are the majority.
    fn trim_timers(&mut self) {
        if self.timers.len() > 2 * self.peers.len() + SPARE_TIMERS {
            let peers = &self.peers;
            self.timers.retain(|Reverse((at, index))| {
                peers.get(index).is_some_and(|p| p.armed == Some(*at))
            });
        }
    }

    /// Next control datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) should run; it may turn
    /// out to have nothing to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(peer) = self.peers.get_mut(&index) else {
                continue;
            };
            if peer.armed != Some(at) {
                continue;
            }
            peer.armed = None;
            // Armed times only move later unnoticed, so look before acting.
            if peer.poll_timeout(now).is_some_and(|due| due <= now) {
                peer.tunnel.handle_timeout(now, &mut self.rng);
                peer.paths.handle_timeout(now, &mut self.rng);
            }
            self.after(now, index);
        }
    }

    /// All peers.
    pub fn peers(&self, now: Instant) -> impl Iterator<Item = PeerInfo> + '_ {
        self.peers.values().map(move |p| p.info(now))
    }

    /// One peer.
    #[must_use]
    pub fn peer(&self, now: Instant, id: &Uuid) -> Option<PeerInfo> {
        self.by_id
            .get(id)
            .and_then(|index| self.peers.get(index))
            .map(|p| p.info(now))
    }

    /// How much is kept, to see that it stays bounded.
    #[must_use]
    pub fn load(&self) -> Load {
        let mut load = Load {
            peers: self.peers.len(),
            timers: self.timers.len(),
            queued: self.transmits.len(),
            ..Load::default()
        };
        for peer in self.peers.values() {
            let (candidates, pings) = peer.paths.load();
            load.candidates += candidates;
            load.pings += pings;
        }
        load
    }

    /// Own WireGuard key.
    #[must_use]
    pub fn public_key(&self) -> NodePublic {
        self.node_public
    }
}
