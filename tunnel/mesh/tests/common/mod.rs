//! Two or more meshes on a virtual network with virtual time.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_keys::{DiscoPrivate, NodePrivate, NodePublic};
use adit_mesh::{BUFFER_LEN, Event, Mesh, MeshConfig, PeerConfig, Received, Sealed, Transmit, Via};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

pub(crate) const REGION: u32 = 999;

/// How one kind of link treats datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    /// Lost datagrams, per thousand.
    pub(crate) loss: u32,
    /// Datagrams delivered twice, per thousand.
    pub(crate) duplicate: u32,
    pub(crate) up: bool,
}

impl Link {
    pub(crate) fn clean(delay_ms: u64) -> Self {
        Self {
            delay: Duration::from_millis(delay_ms),
            jitter: Duration::ZERO,
            loss: 0,
            duplicate: 0,
            up: true,
        }
    }
}

pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) id: Uuid,
    pub(crate) ip: Ipv6Addr,
    pub(crate) key: NodePublic,
    pub(crate) config: PeerConfig,
    pub(crate) inbox: Vec<(Instant, Vec<u8>)>,
    pub(crate) events: Vec<Event>,
    pub(crate) sent_udp: u64,
    pub(crate) sent_derp: u64,
    /// Stopped: its clock goes on, and its sockets keep what fits into them.
    pub(crate) asleep: bool,
    kept: Vec<Delivery>,
}

/// Datagrams that wait in the sockets of a node that is asleep.
const ASLEEP: usize = 200;

#[derive(Clone)]
enum Delivery {
    Udp {
        from: SocketAddr,
        to: SocketAddr,
        data: Vec<u8>,
    },
    Derp {
        from: NodePublic,
        to: NodePublic,
        data: Vec<u8>,
    },
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) udp: Link,
    pub(crate) derp: Link,
    /// Every node sits behind a translator that lets in only what comes from
    /// where something was sent to.
    pub(crate) filter: bool,
    /// Largest datagram that gets through over UDP.
    pub(crate) largest: usize,
    opened: HashSet<(usize, SocketAddr)>,
    /// Addresses nothing gets through to.
    pub(crate) black_holes: HashSet<SocketAddr>,
    rng: StdRng,
    queue: BTreeMap<(Instant, u64), Delivery>,
    seq: u64,
    by_addr: HashMap<SocketAddr, usize>,
    by_key: HashMap<NodePublic, usize>,
    pub(crate) wakeups: u64,
}

impl Net {
    pub(crate) fn new(seed: u64, count: u8) -> Self {
        let now = Instant::now();
        let mut net = Self {
            now,
            start: now,
            nodes: Vec::new(),
            udp: Link::clean(5),
            derp: Link::clean(20),
            filter: false,
            largest: usize::MAX,
            opened: HashSet::new(),
            black_holes: HashSet::new(),
            rng: StdRng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            seq: 0,
            by_addr: HashMap::new(),
            by_key: HashMap::new(),
            wakeups: 0,
        };
        for n in 0..count {
            net.add(n);
        }
        net
    }

    fn add(&mut self, n: u8) {
        let node_key = NodePrivate::generate_with(&mut self.rng);
        let disco_key = DiscoPrivate::generate_with(&mut self.rng);
        let id = Uuid::from_bytes(self.rng.random());
        let ip = adit_keys::addr::tailnet_ip(id);
        let addr: SocketAddr = format!("192.0.2.{}:41641", n + 1).parse().unwrap();
        let key = node_key.public();
        let config = PeerConfig {
            id,
            node_key: key,
            disco_key: disco_key.public(),
            home_region: REGION,
            endpoints: vec![addr],
            allowed_ips: vec![ip],
            keepalive: false,
        };
        let mut mesh = Mesh::new(MeshConfig {
            node_key,
            disco_key,
            seed: self.rng.random(),
            clock: adit_mesh::Clock::new(self.now, Duration::from_secs(1_800_000_000)),
        });
        mesh.set_endpoints(self.now, vec![addr]);
        self.by_addr.insert(addr, self.nodes.len());
        self.by_key.insert(key, self.nodes.len());
        self.nodes.push(Node {
            mesh,
            id,
            ip,
            key,
            config,
            inbox: Vec::new(),
            events: Vec::new(),
            sent_udp: 0,
            sent_derp: 0,
            asleep: false,
            kept: Vec::new(),
        });
    }

    /// `to` learns of `who`.
    pub(crate) fn grant(&mut self, to: usize, who: usize, keepalive: bool) {
        let config = PeerConfig {
            keepalive,
            ..self.nodes[who].config.clone()
        };
        let now = self.now;
        self.nodes[to].mesh.upsert_peer(now, config).unwrap();
        self.flush(to);
    }

    pub(crate) fn addr(&self, n: usize) -> SocketAddr {
        self.nodes[n].config.endpoints[0]
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Sends an inner UDP-like packet; returns how it was routed.
    pub(crate) fn send(&mut self, from: usize, to: usize, payload: &[u8]) -> Sealed {
        let packet = packet(self.nodes[from].ip, self.nodes[to].ip, payload);
        self.send_raw(from, self.nodes[to].ip, &packet)
    }

    pub(crate) fn send_raw(&mut self, from: usize, dst: Ipv6Addr, packet: &[u8]) -> Sealed {
        let mut out = vec![0; BUFFER_LEN];
        let now = self.now;
        let sealed = self.nodes[from].mesh.seal(now, &dst, packet, &mut out);
        if let Sealed::Ready { len, route } = sealed {
            let data = out[..len].to_vec();
            if let Some((region, key)) = route.relay {
                self.carry(
                    from,
                    Transmit {
                        via: Via::Derp { region, key },
                        data: data.clone(),
                    },
                );
            }
            if let Some(addr) = route.direct {
                self.carry(
                    from,
                    Transmit {
                        via: Via::Udp(addr),
                        data,
                    },
                );
            }
        }
        self.flush(from);
        sealed
    }

    fn flush(&mut self, n: usize) {
        while let Some(transmit) = self.nodes[n].mesh.poll_transmit() {
            self.carry(n, transmit);
        }
        while let Some(event) = self.nodes[n].mesh.poll_event() {
            self.nodes[n].events.push(event);
        }
    }

    fn carry(&mut self, from: usize, transmit: Transmit) {
        let (link, delivery) = match transmit.via {
            Via::Udp(to) => {
                self.nodes[from].sent_udp += 1;
                self.opened.insert((from, to));
                if self.black_holes.contains(&to) || transmit.data.len() > self.largest {
                    return;
                }
                (
                    self.udp,
                    Delivery::Udp {
                        from: self.addr(from),
                        to,
                        data: transmit.data,
                    },
                )
            }
            Via::Derp { key, .. } => {
                self.nodes[from].sent_derp += 1;
                (
                    self.derp,
                    Delivery::Derp {
                        from: self.nodes[from].key,
                        to: key,
                        data: transmit.data,
                    },
                )
            }
        };
        if !link.up || self.rng.random_range(0..1000) < link.loss {
            return;
        }
        let copies = if self.rng.random_range(0..1000) < link.duplicate {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let jitter = self.rng.random_range(0..=link.jitter.as_micros() as u64);
            let at = self.now + link.delay + Duration::from_micros(jitter);
            self.seq += 1;
            self.queue.insert((at, self.seq), delivery.clone());
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let to = match &delivery {
            Delivery::Udp { to, .. } => self.by_addr.get(to),
            Delivery::Derp { to, .. } => self.by_key.get(to),
        };
        if let Some(node) = to.and_then(|n| self.nodes.get_mut(*n))
            && node.asleep
        {
            if node.kept.len() < ASLEEP {
                node.kept.push(delivery);
            }
            return;
        }
        let mut out = vec![0; BUFFER_LEN];
        let now = self.now;
        let (n, received) = match delivery {
            Delivery::Udp { from, to, data } => {
                if self.black_holes.contains(&to) {
                    return;
                }
                let Some(n) = self.by_addr.get(&to).copied() else {
                    return;
                };
                if self.filter && !self.opened.contains(&(n, from)) {
                    return;
                }
                (n, self.nodes[n].mesh.handle_udp(now, from, &data, &mut out))
            }
            Delivery::Derp { from, to, data } => {
                let Some(n) = self.by_key.get(&to).copied() else {
                    return;
                };
                (
                    n,
                    self.nodes[n]
                        .mesh
                        .handle_derp(now, REGION, from, &data, &mut out),
                )
            }
        };
        if let Received::Packet { len } = received {
            self.nodes[n].inbox.push((now, out[..len].to_vec()));
        }
        self.flush(n);
    }

    /// Stops node `n`, or lets it go on with what has arrived meanwhile.
    pub(crate) fn set_asleep(&mut self, n: usize, asleep: bool) {
        self.nodes[n].asleep = asleep;
        if !asleep {
            for delivery in std::mem::take(&mut self.nodes[n].kept) {
                self.deliver(delivery);
            }
        }
    }

    /// When a timer of a node that is awake is due.
    fn next_timer(&self) -> Option<Instant> {
        let awake = self.nodes.iter().filter(|n| !n.asleep);
        awake.filter_map(|n| n.mesh.poll_timeout()).min()
    }

    /// Lets `span` pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let packet = self.queue.keys().next().map(|k| k.0);
            let timer = self.next_timer();
            let Some(next) = packet.into_iter().chain(timer).min().filter(|t| *t <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if packet.is_some_and(|t| t <= self.now) {
                if let Some((_, delivery)) = self.queue.pop_first() {
                    self.deliver(delivery);
                }
                continue;
            }
            for n in 0..self.nodes.len() {
                let node = &self.nodes[n];
                if !node.asleep && node.mesh.poll_timeout().is_some_and(|t| t <= self.now) {
                    self.wakeups += 1;
                    let now = self.now;
                    self.nodes[n].mesh.handle_timeout(now);
                    self.flush(n);
                }
            }
        }
        self.now = end;
    }

    /// Node `n` has another address from now on; nothing reaches the old one.
    pub(crate) fn move_to(&mut self, n: usize, addr: &str) {
        let old = self.addr(n);
        self.by_addr.remove(&old);
        let new = addr.parse().unwrap();
        self.by_addr.insert(new, n);
        self.nodes[n].config.endpoints = vec![new];
    }

    /// When something happens next.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        let packet = self.queue.keys().next().map(|k| k.0);
        packet.into_iter().chain(self.next_timer()).min()
    }

    pub(crate) fn direct(&self, n: usize, peer: usize) -> Option<SocketAddr> {
        let id = self.nodes[peer].id;
        self.nodes[n]
            .mesh
            .peer(self.now, &id)
            .and_then(|p| p.direct)
    }

    /// Payloads `n` received since the last call.
    pub(crate) fn take(&mut self, n: usize) -> Vec<Vec<u8>> {
        self.nodes[n]
            .inbox
            .drain(..)
            .map(|(_, p)| p[40..].to_vec())
            .collect()
    }
}

/// An IPv6 packet with next header 59 (none) and `payload`.
pub(crate) fn packet(src: Ipv6Addr, dst: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0];
    out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    out.extend_from_slice(&[59, 64]);
    out.extend_from_slice(&src.octets());
    out.extend_from_slice(&dst.octets());
    out.extend_from_slice(payload);
    out
}
