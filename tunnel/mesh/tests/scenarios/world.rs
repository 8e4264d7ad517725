//! The virtual world: sites behind translators, a relay, a coordinator, and
//! virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_keys::NodePublic;
use adit_mesh::{BUFFER_LEN, Event, Received, Sealed, Transmit, Via};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::nat::{Kind, Nat};
use super::node::{FRESH, Node, Published, REGION, peer_config};
use super::streams::Stream;

mod control;
mod datagrams;

pub(crate) const MS: fn(u64) -> Duration = Duration::from_millis;
/// Time a STUN server is asked again while a node is busy.
const GATHER_EVERY: Duration = Duration::from_secs(23);
/// A node counts as busy this long after it sent.
const BUSY: Duration = Duration::from_secs(45);
/// Longest queue in front of a site's line.
const QUEUE: Duration = Duration::from_millis(150);
/// How often a stream's writer produces.
const WRITE_EVERY: Duration = Duration::from_millis(50);
/// IP and UDP header.
const HEADERS: usize = 28;

fn stun() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 3478))
}

/// What reaches a node.
#[derive(Debug)]
pub(crate) enum Arrival {
    Udp { from: SocketAddr, data: Vec<u8> },
    Derp { from: NodePublic, data: Vec<u8> },
}

/// What happens at some time.
enum Happening {
    Udp {
        from: SocketAddr,
        to: SocketAddr,
        lan: Option<usize>,
        data: Vec<u8>,
    },
    ToRelay {
        conn: u64,
        from: NodePublic,
        to: NodePublic,
        data: Vec<u8>,
    },
    FromRelay {
        node: usize,
        conn: u64,
        from: NodePublic,
        data: Vec<u8>,
    },
    TryRelay(usize, u32),
    TryCoordinator(usize, u32),
    Publish(usize, u32),
    Update {
        node: usize,
        life: u32,
        about: usize,
        info: Option<Published>,
    },
    Gather(usize, u32),
    /// A stream's writer has something to say.
    Write(usize),
}

/// A network nodes sit in.
pub(crate) struct Site {
    pub(crate) nat: Nat,
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    /// Lost datagrams, per thousand.
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    /// Largest IP packet that leaves or enters.
    pub(crate) mtu: usize,
    /// Bits per second of the line.
    pub(crate) rate: u64,
    free_at: Instant,
    pub(crate) udp: bool,
    pub(crate) relay: bool,
}

#[derive(Default)]
struct Relay {
    up: bool,
    conns: BTreeMap<NodePublic, (usize, u64)>,
    last_conn: u64,
}

#[derive(Default)]
struct Coordinator {
    up: bool,
    known: BTreeMap<usize, Published>,
    grants: BTreeSet<(usize, usize)>,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) rng: StdRng,
    pub(crate) sites: Vec<Site>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) streams: Vec<Stream>,
    /// Sites that do not reach each other over UDP.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    relay: Relay,
    coordinator: Coordinator,
    queue: BTreeMap<(Instant, u64), Happening>,
    seq: u64,
    /// Probe packets that arrived: receiver, content.
    pub(crate) probes: Vec<(usize, u32)>,
    /// What happened, folded: equal for equal seeds.
    pub(crate) digest: u64,
    pub(crate) datagrams: u64,
}

pub(crate) fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = Self {
            now,
            start: now,
            sites: Vec::new(),
            nodes: Vec::new(),
            streams: Vec::new(),
            cut: BTreeSet::new(),
            relay: Relay {
                up: true,
                ..Relay::default()
            },
            coordinator: Coordinator {
                up: true,
                ..Coordinator::default()
            },
            queue: BTreeMap::new(),
            seq: 0,
            probes: Vec::new(),
            digest: 0,
            datagrams: 0,
            rng: StdRng::seed_from_u64(seed ^ 0xd1_6e57),
        };
        let count = if rng.random_ratio(1, 4) { 3 } else { 2 };
        // One site more than nodes, to move to.
        for n in 0..=count {
            let kind = Kind::ALL[rng.random_range(0..4)];
            world.sites.push(Site {
                nat: Nat::new(kind, Ipv4Addr::new(203, 0, 113, n + 1)),
                delay: MS(rng.random_range(1..50)),
                jitter: MS(if rng.random() {
                    0
                } else {
                    rng.random_range(0..5)
                }),
                loss: if rng.random() {
                    0
                } else {
                    rng.random_range(0..20)
                },
                duplicate: if rng.random() {
                    0
                } else {
                    rng.random_range(0..20)
                },
                mtu: [1400, 1500, 1500, 9000][rng.random_range(0..4)],
                rate: [5, 20, 100, 500][rng.random_range(0..4)] * 1_000_000,
                free_at: now,
                udp: true,
                relay: true,
            });
        }
        for n in 0..count {
            let site = if rng.random_ratio(1, 8) {
                0
            } else {
                usize::from(n)
            };
            let addr = world.address(site);
            let node = Node::new(&mut world.rng, now, site, addr);
            world.nodes.push(node);
            world.start_node(usize::from(n));
        }
        for a in 0..world.nodes.len() {
            for b in a + 1..world.nodes.len() {
                if (a, b) == (0, 1) || rng.random() {
                    world.coordinator.grants.insert((a, b));
                }
            }
        }
        world
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// A fresh socket address inside a site.
    fn address(&mut self, site: usize) -> SocketAddr {
        let port = self.rng.random_range(1024..=u16::MAX);
        let host = self.rng.random_range(2..=250);
        let net = u8::try_from(site).unwrap();
        let ip = match self.sites[site].nat.kind {
            Kind::Open => Ipv4Addr::new(198, 51, 100 + net, host),
            _ => Ipv4Addr::new(10, net, 0, host),
        };
        SocketAddr::from((ip, port))
    }

    fn start_node(&mut self, n: usize) {
        let life = self.nodes[n].life;
        self.later(MS(5), Happening::TryRelay(n, life));
        self.later(MS(8), Happening::TryCoordinator(n, life));
        self.later(MS(10), Happening::Gather(n, life));
    }

    fn later(&mut self, wait: Duration, what: Happening) {
        self.seq += 1;
        self.queue.insert((self.now + wait, self.seq), what);
    }

    fn fold(&mut self, values: &[u64]) {
        for value in values {
            self.digest = (self.digest ^ value)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(7);
        }
    }

    pub(super) fn write_later(&mut self, number: usize) {
        self.later(WRITE_EVERY, Happening::Write(number));
    }

    // Changes from outside.

    pub(crate) fn restart_node(&mut self, n: usize) {
        self.drop_relay(n);
        let fresh = self.nodes[n].restarted(&mut self.rng, self.now);
        self.nodes[n] = fresh;
        self.start_node(n);
    }

    /// The node's machine is in another network from now on.
    pub(crate) fn move_node(&mut self, n: usize, site: usize, noticed: bool) {
        let addr = self.address(site);
        (self.nodes[n].site, self.nodes[n].addr) = (site, addr);
        self.drop_relay(n);
        if noticed && !self.nodes[n].asleep {
            let clock = self.nodes[n].clock(self.now);
            self.nodes[n].mesh.link_changed(clock);
            self.settle(n);
        }
        let life = self.nodes[n].life;
        let wait = if noticed { MS(40) } else { MS(1000) };
        self.later(wait, Happening::Gather(n, life));
    }

    pub(crate) fn set_relay(&mut self, up: bool) {
        self.relay.up = up;
        if !up {
            for n in 0..self.nodes.len() {
                self.drop_relay(n);
            }
        }
    }

    pub(crate) fn set_site_relay(&mut self, site: usize, up: bool) {
        self.sites[site].relay = up;
        if !up {
            for n in 0..self.nodes.len() {
                if self.nodes[n].site == site {
                    self.drop_relay(n);
                }
            }
        }
    }

    pub(crate) fn set_coordinator(&mut self, up: bool) {
        self.coordinator.up = up;
        if !up {
            self.coordinator.known.clear();
            for n in 0..self.nodes.len() {
                if std::mem::take(&mut self.nodes[n].coord) {
                    let life = self.nodes[n].life;
                    self.later(MS(100), Happening::TryCoordinator(n, life));
                }
            }
        }
    }

    pub(crate) fn granted(&self, a: usize, b: usize) -> bool {
        self.coordinator.grants.contains(&pair(a, b))
    }

    pub(crate) fn coordinates(&self, n: usize) -> bool {
        self.coordinator.up && self.nodes[n].coord && !self.nodes[n].asleep
    }

    pub(crate) fn grant(&mut self, a: usize, b: usize) {
        self.coordinator.grants.insert(pair(a, b));
        for (to, about) in [(a, b), (b, a)] {
            if let Some(info) = self.coordinator.known.get(&about).cloned() {
                self.tell(to, about, Some(info));
            }
        }
    }

    pub(crate) fn revoke(&mut self, a: usize, b: usize) {
        self.coordinator.grants.remove(&pair(a, b));
        self.tell(a, b, None);
        self.tell(b, a, None);
    }

    pub(crate) fn set_blocked(&mut self, n: usize, blocked: bool) {
        let clock = self.nodes[n].clock(self.now);
        self.nodes[n].blocked = blocked;
        self.nodes[n].mesh.set_blocked(clock, blocked);
        self.publish(n);
        self.settle(n);
    }

    pub(crate) fn set_asleep(&mut self, n: usize, asleep: bool) {
        self.nodes[n].asleep = asleep;
        if !asleep {
            for arrival in std::mem::take(&mut self.nodes[n].kept) {
                self.arrive(n, arrival);
            }
            let life = self.nodes[n].life;
            for (about, info) in std::mem::take(&mut self.nodes[n].told) {
                self.update(n, life, about, info);
            }
            self.settle(n);
        }
    }

    fn arrive(&mut self, n: usize, arrival: Arrival) {
        if self.nodes[n].asleep {
            self.nodes[n].keep(arrival);
            return;
        }
        let clock = self.nodes[n].clock(self.now);
        let mut out = [0; BUFFER_LEN];
        let (received, size) = match &arrival {
            Arrival::Udp { from, data } => (
                self.nodes[n].mesh.handle_udp(clock, *from, data, &mut out),
                data.len(),
            ),
            Arrival::Derp { from, data } => (
                self.nodes[n]
                    .mesh
                    .handle_derp(clock, REGION, *from, data, &mut out),
                data.len(),
            ),
        };
        let at = u64::try_from(self.elapsed().as_nanos()).unwrap();
        self.fold(&[at, n as u64, size as u64]);
        if let Received::Packet { len } = received {
            let packet = &out[..len];
            let source =
                (0..self.nodes.len()).find(|m| self.nodes[*m].ip.octets() == packet[8..24]);
            let source = source.expect("a packet from nowhere");
            assert!(
                self.nodes[n].installed.contains_key(&source),
                "node {n} took a packet from node {source}, which it was not granted"
            );
            if packet[6] == 59 {
                let content = u32::from_be_bytes(packet[40..44].try_into().unwrap());
                self.probes.push((n, content));
            } else {
                self.nodes[n].stack.handle_packet(clock, packet);
            }
        }
        self.settle(n);
    }

    fn carry(&mut self, n: usize, transmit: Transmit) {
        match transmit.via {
            Via::Udp(to) => self.send_udp(n, to, transmit.data),
            Via::Derp { key, .. } => {
                assert!(
                    self.nodes[n].installed.values().any(|k| *k == key),
                    "node {n} sends to a key it was not granted"
                );
                self.send_derp(n, key, transmit.data);
            }
        }
    }

    /// Seals and sends one inner packet.
    pub(crate) fn send_inner(&mut self, n: usize, to: usize, packet: &[u8]) {
        let dst = self.nodes[to].ip;
        let clock = self.nodes[n].clock(self.now);
        let mut out = [0; BUFFER_LEN];
        self.nodes[n].last_data = Some(self.now);
        let sealed = self.nodes[n].mesh.seal(clock, &dst, packet, &mut out);
        let granted = self.nodes[n].installed.get(&to).copied();
        if granted.is_none() {
            assert_eq!(
                sealed,
                Sealed::Dropped,
                "node {n} seals for node {to}, not granted"
            );
        }
        let Sealed::Ready { len, route } = sealed else {
            return;
        };
        let data = out[..len].to_vec();
        if let Some((region, key)) = route.relay {
            assert_eq!(Some(key), granted, "relayed to the wrong node");
            let via = Via::Derp { region, key };
            self.carry(
                n,
                Transmit {
                    via,
                    data: data.clone(),
                },
            );
        }
        if let Some(to) = route.direct {
            self.carry(
                n,
                Transmit {
                    via: Via::Udp(to),
                    data,
                },
            );
        }
    }

    /// Moves everything at node `n` that can move without time passing.
    pub(crate) fn settle(&mut self, n: usize) {
        if self.nodes[n].asleep {
            return;
        }
        let clock = self.nodes[n].clock(self.now);
        loop {
            let mut moved = false;
            while let Some(transmit) = self.nodes[n].mesh.poll_transmit() {
                moved = true;
                self.carry(n, transmit);
            }
            while let Some(event) = self.nodes[n].mesh.poll_event() {
                let (Event::Path { id, .. } | Event::Mtu { id, .. }) = event else {
                    continue;
                };
                let Some(peer) = (0..self.nodes.len()).find(|m| self.nodes[*m].id == id) else {
                    continue;
                };
                let ip = self.nodes[peer].ip;
                let stack = &mut self.nodes[n].stack;
                match event {
                    Event::Mtu { mtu, .. } => stack.set_path_mtu(ip, u16::try_from(mtu).unwrap()),
                    _ => stack.path_changed(clock, ip),
                }
            }
            let node = &mut self.nodes[n];
            if node.mesh.poll_timeout().is_some_and(|at| at <= clock) {
                node.mesh.handle_timeout(clock);
                moved = true;
            }
            if node.stack.poll_timeout().is_some_and(|at| at <= clock) {
                node.stack.handle_timeout(clock);
                moved = true;
            }
            moved |= self.use_streams(n);
            let mut buf = [0; BUFFER_LEN];
            while let Some(transmit) = self.nodes[n].stack.poll_transmit(clock, &mut buf) {
                moved = true;
                let to = (0..self.nodes.len()).find(|m| self.nodes[*m].ip == transmit.dst);
                self.send_inner(n, to.unwrap(), &buf[..transmit.len]);
            }
            if !moved {
                break;
            }
        }
        let due = self.nodes[n]
            .last_gathered
            .is_none_or(|at| self.now >= at + GATHER_EVERY);
        if due && self.busy(n) {
            self.nodes[n].last_gathered = Some(self.now);
            let life = self.nodes[n].life;
            self.later(MS(30), Happening::Gather(n, life));
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Udp {
                from,
                to,
                lan,
                data,
            } => self.udp(from, to, lan, data),
            Happening::ToRelay {
                conn,
                from,
                to,
                data,
            } => self.relayed(conn, from, to, data),
            Happening::FromRelay {
                node,
                conn,
                from,
                data,
            } => {
                if self.nodes[node].relay == Some(conn) {
                    self.arrive(node, Arrival::Derp { from, data });
                }
            }
            Happening::TryRelay(n, life) => self.try_relay(n, life),
            Happening::TryCoordinator(n, life) => self.try_coordinator(n, life),
            Happening::Publish(n, life) => self.published(n, life),
            Happening::Update {
                node,
                life,
                about,
                info,
            } => self.update(node, life, about, info),
            Happening::Gather(n, life) => self.gather(n, life),
            Happening::Write(number) => self.write_stream(number),
        }
    }

    /// Lets `span` pass, or less if `done` says so.
    pub(crate) fn run(&mut self, span: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now + span;
        while !done(self) {
            let packet = self.queue.keys().next().map(|k| k.0);
            let timer = (0..self.nodes.len())
                .filter_map(|n| self.nodes[n].timer(self.now).map(|at| (at, n)))
                .min();
            let next = packet.into_iter().chain(timer.map(|t| t.0)).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if packet.is_some_and(|at| at <= self.now) {
                let (_, what) = self.queue.pop_first().unwrap();
                self.happen(what);
            } else if let Some((_, n)) = timer {
                self.nodes[n].woken += 1;
                self.settle(n);
            }
        }
    }
}
