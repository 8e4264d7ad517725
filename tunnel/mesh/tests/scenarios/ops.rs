//! What is done to the world, and what must hold afterwards.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::nat::Kind;
use super::world::{MS, World, pair};

/// Longest way to a usable path once one is possible: a handshake that is
/// waiting for its next try, and the round trips.
const PATH: Duration = Duration::from_secs(7);
/// Longest way to a direct path while packets flow, where one is possible.
const DIRECT: Duration = Duration::from_secs(25);
/// Longest way of all streams to their end once nothing stands in the way.
const STREAMS: Duration = Duration::from_secs(240);
/// A connection that gets nothing through for so long may give up.
const CUT_OFF: Duration = Duration::from_secs(240);
/// The same while it opens.
const NEVER_OPENED: Duration = Duration::from_secs(25);
/// Most bytes all streams of a scenario bring.
const BYTES: usize = 3_000_000;

#[derive(Clone, Copy, Debug)]
enum Op {
    Wait(Duration),
    Stream {
        from: usize,
        to: usize,
        bytes: usize,
        rate: usize,
    },
    Rebind(usize),
    Move {
        node: usize,
        site: usize,
        noticed: bool,
    },
    Udp {
        site: usize,
        up: bool,
    },
    SiteRelay {
        site: usize,
        up: bool,
    },
    Cut {
        a: usize,
        b: usize,
        cut: bool,
    },
    Loss {
        site: usize,
        loss: u32,
    },
    Mtu {
        site: usize,
        mtu: usize,
    },
    Relay(bool),
    Coordinator(bool),
    Sleep(usize, bool),
    Jump(usize, Duration),
    Restart(usize),
    Revoke(usize, usize),
    Grant(usize, usize),
    Block(usize, bool),
    LinkChanged(usize),
    Probe,
    ProbeDirect,
}

pub(crate) struct Scenario {
    pub(crate) world: World,
    pub(crate) verbose: bool,
    rng: StdRng,
    bytes: usize,
    marks: u32,
    /// What clocks jumped in sum.
    jumped: Duration,
    path: Duration,
    direct: Duration,
    streams: Duration,
}

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            world: World::new(seed),
            verbose: false,
            rng: StdRng::seed_from_u64(seed ^ 0x0b5),
            bytes: 0,
            marks: 0,
            jumped: Duration::ZERO,
            path: Duration::ZERO,
            direct: Duration::ZERO,
            streams: Duration::ZERO,
        }
    }

    pub(crate) fn spans(&self) -> [Duration; 3] {
        [self.path, self.direct, self.streams]
    }

    pub(crate) fn play(&mut self) {
        self.world.run(MS(500), |_| false);
        for _ in 0..self.rng.random_range(8..25) {
            let op = self.choose();
            if self.verbose {
                println!("{:?} {op:?}", self.world.elapsed());
            }
            self.apply(op);
            let pause = match self.rng.random_range(0..10) {
                0 => 15_000,
                1..4 => 3000,
                _ => 400,
            };
            let pause = MS(self.rng.random_range(0..pause));
            self.world.run(pause, |_| false);
            self.check();
            self.note_outages();
        }
        self.heal();
        if self.verbose {
            println!("{:?} all is well again", self.world.elapsed());
        }
        self.probe();
        self.finish_streams();
        self.be_idle();
    }

    fn choose(&mut self) -> Op {
        let rng = &mut self.rng;
        let nodes = self.world.nodes.len();
        let node = rng.random_range(0..nodes);
        let other = (node + rng.random_range(1..nodes)) % nodes;
        let site = rng.random_range(0..self.world.sites.len());
        let home = self.world.nodes[node].site;
        match rng.random_range(0..46) {
            0..2 => Op::Wait(MS(rng.random_range(10_000..60_000))),
            2 => Op::Wait(MS(rng.random_range(100_000..200_000))),
            3 => Op::Wait(Duration::from_secs(rng.random_range(200..600))),
            4..10 => Op::Stream {
                from: node,
                to: other,
                bytes: rng.random_range(1..600_000),
                rate: if rng.random() {
                    usize::MAX
                } else {
                    rng.random_range(2_000..100_000)
                },
            },
            10..12 => Op::Rebind(home),
            12..14 => Op::Move {
                node,
                site,
                noticed: rng.random_ratio(3, 4),
            },
            14..16 => Op::Udp {
                site: home,
                up: false,
            },
            16..18 => Op::Udp {
                site: home,
                up: true,
            },
            18 => Op::SiteRelay {
                site: home,
                up: false,
            },
            19 => Op::SiteRelay {
                site: home,
                up: true,
            },
            20 => Op::Cut {
                a: home,
                b: self.world.nodes[other].site,
                cut: true,
            },
            21 => Op::Cut {
                a: home,
                b: self.world.nodes[other].site,
                cut: false,
            },
            22 => Op::Loss {
                site,
                loss: [0, 0, 20, 100, 300][rng.random_range(0..5)],
            },
            23 => Op::Relay(false),
            24..26 => Op::Relay(true),
            26 => Op::Coordinator(false),
            27..29 => Op::Coordinator(true),
            29 => Op::Sleep(node, true),
            30..32 => Op::Sleep(node, false),
            32 => Op::Jump(node, MS(rng.random_range(0..400_000))),
            33 => Op::Restart(node),
            34 => Op::Revoke(node, other),
            35..37 => Op::Grant(node, other),
            37 => Op::Block(node, rng.random()),
            38 => Op::LinkChanged(node),
            39..41 => Op::Mtu {
                site,
                mtu: [1340, 1400, 1500, 9000][rng.random_range(0..4)],
            },
            41..44 => Op::Probe,
            _ => Op::ProbeDirect,
        }
    }

    fn apply(&mut self, op: Op) {
        let world = &mut self.world;
        match op {
            Op::Wait(span) => world.run(span, |_| false),
            Op::Stream {
                from,
                to,
                bytes,
                rate,
            } => {
                let bytes = bytes.min(BYTES - self.bytes);
                let ready = |a: usize, b: usize| {
                    world.nodes[a].installed.contains_key(&b) && !world.nodes[a].asleep
                };
                if bytes > 0 && ready(from, to) && ready(to, from) {
                    self.bytes += bytes;
                    world.open_stream(from, to, bytes, rate);
                }
            }
            Op::Rebind(site) => world.sites[site].nat.rebind(),
            Op::Move {
                node,
                site,
                noticed,
            } => world.move_node(node, site, noticed),
            Op::Udp { site, up } => world.sites[site].udp = up,
            Op::SiteRelay { site, up } => world.set_site_relay(site, up),
            Op::Cut { a, b, cut: true } => {
                world.cut.insert(pair(a, b));
            }
            Op::Cut { a, b, cut: false } => {
                world.cut.remove(&pair(a, b));
            }
            Op::Loss { site, loss } => world.sites[site].loss = loss,
            Op::Mtu { site, mtu } => world.sites[site].mtu = mtu,
            Op::Relay(up) => world.set_relay(up),
            Op::Coordinator(up) => world.set_coordinator(up),
            Op::Sleep(node, asleep) => world.set_asleep(node, asleep),
            Op::Jump(node, span) => {
                world.nodes[node].ahead += span;
                self.jumped += span;
                let world = &mut self.world;
                world.settle(node);
            }
            Op::Restart(node) => {
                if !world.nodes[node].asleep {
                    world.excuse(|s| s.from == node || s.to == node);
                    world.restart_node(node);
                }
            }
            Op::Revoke(a, b) => {
                if world.granted(a, b) && world.coordinates(a) && world.coordinates(b) {
                    world.excuse(|s| pair(s.from, s.to) == pair(a, b));
                    world.revoke(a, b);
                }
            }
            Op::Grant(a, b) => {
                if !world.granted(a, b) {
                    world.grant(a, b);
                }
            }
            Op::Block(node, blocked) => {
                if !world.nodes[node].asleep {
                    world.set_blocked(node, blocked);
                }
            }
            Op::LinkChanged(node) => {
                if !world.nodes[node].asleep {
                    let clock = world.nodes[node].clock(world.now);
                    world.nodes[node].mesh.link_changed(clock);
                    world.settle(node);
                }
            }
            Op::Probe => self.probe(),
            Op::ProbeDirect => self.probe_direct(),
        }
    }

    /// A connection may give up when nothing gets through for minutes.
    fn note_outages(&mut self) {
        let now = self.world.now;
        for number in 0..self.world.streams.len() {
            let stream = &self.world.streams[number];
            let open = self.relayed(stream.from, stream.to);
            let stream = &mut self.world.streams[number];
            if open && std::mem::replace(&mut stream.was_open, open) {
                stream.way_seen = now;
            }
            stream.was_open = open;
        }
    }

    /// What must hold at any time.
    fn check(&self) {
        for (number, stream) in self.world.streams.iter().enumerate() {
            let limit = if stream.is_open() {
                CUT_OFF
            } else {
                NEVER_OPENED
            };
            let cut_off = stream.cut_off + self.jumped > limit;
            assert!(
                stream.excused || stream.failed.is_none() || cut_off,
                "stream {number} fails: {:?}",
                stream.failed
            );
        }
        for (n, node) in self.world.nodes.iter().enumerate() {
            let load = node.mesh.load();
            assert_eq!(
                load.peers,
                node.installed.len(),
                "node {n} knows other peers"
            );
            assert!(load.timers <= 2 * load.peers + 64, "node {n}: {load:?}");
            assert!(load.candidates <= 100 * load.peers, "node {n}: {load:?}");
            assert!(load.pings <= 256 * load.peers, "node {n}: {load:?}");
            assert!(load.queued <= 4096, "node {n}: {load:?}");
        }
    }

    /// Both know each other's present keys, are awake and reach the relay.
    fn relayed(&self, a: usize, b: usize) -> bool {
        let (x, y) = (&self.world.nodes[a], &self.world.nodes[b]);
        x.installed.get(&b) == Some(&y.key)
            && y.installed.get(&a) == Some(&x.key)
            && [x, y].iter().all(|n| !n.asleep && n.relay.is_some())
    }

    /// The network allows a direct path, and both may use it.
    fn straight(&self, a: usize, b: usize) -> bool {
        let (x, y) = (&self.world.nodes[a], &self.world.nodes[b]);
        let (here, there) = (&self.world.sites[x.site], &self.world.sites[y.site]);
        self.relayed(a, b)
            && [x, y].iter().all(|n| !n.blocked && n.coord)
            && (x.site == y.site && here.nat.kind != Kind::Open
                || here.udp
                    && there.udp
                    && here.loss + there.loss <= 60
                    && x.site != y.site
                    && here.nat.kind.meets(there.nat.kind)
                    && !self.world.cut.contains(&pair(x.site, y.site)))
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.world.nodes.len();
        (0..count)
            .flat_map(|a| (0..count).map(move |b| (a, b)))
            .filter(|(a, b)| a != b)
            .collect()
    }

    fn send(&mut self, a: usize, b: usize) -> u32 {
        self.marks += 1;
        let mark = self.marks;
        let (from, to) = (self.world.nodes[a].ip, self.world.nodes[b].ip);
        let mut packet = vec![0x60, 0, 0, 0, 0, 4, 59, 64];
        packet.extend_from_slice(&from.octets());
        packet.extend_from_slice(&to.octets());
        packet.extend_from_slice(&mark.to_be_bytes());
        self.world.send_inner(a, b, &packet);
        self.world.settle(a);
        mark
    }

    /// What node `a` thinks of node `b`.
    fn info(&self, a: usize, b: usize) -> Option<adit_mesh::PeerInfo> {
        let clock = self.world.nodes[a].clock(self.world.now);
        let node = &self.world.nodes[a];
        node.mesh.peer(clock, &self.world.nodes[b].id)
    }

    /// Where packets can get through they do, soon.
    fn probe(&mut self) {
        for (a, b) in self.pairs() {
            if !self.relayed(a, b) {
                continue;
            }
            self.world.probes.clear();
            let start = self.world.now;
            let first = self.send(a, b);
            loop {
                self.world.run(MS(100), |w| {
                    w.probes.iter().any(|(n, mark)| *n == b && *mark >= first)
                });
                if !self.world.probes.is_empty() || !self.relayed(a, b) {
                    break;
                }
                let took = self.world.now - start;
                assert!(
                    took < PATH,
                    "no path from node {a} to node {b} within {took:?}: {:?}",
                    [self.info(a, b), self.info(b, a)]
                );
                self.send(a, b);
            }
            let took = self.world.now - start;
            if self.verbose {
                println!(
                    "{:?} path from {a} to {b} after {took:?}",
                    self.world.elapsed()
                );
            }
            self.path = self.path.max(took);
        }
    }

    /// While packets flow a direct path is found where there can be one.
    fn probe_direct(&mut self) {
        for (a, b) in self.pairs() {
            if a > b || !self.straight(a, b) {
                continue;
            }
            let start = self.world.now;
            let direct = |world: &World, a: usize, b: usize| {
                let clock = world.nodes[a].clock(world.now);
                let info = world.nodes[a].mesh.peer(clock, &world.nodes[b].id);
                info.is_some_and(|p| p.direct.is_some())
            };
            while !(direct(&self.world, a, b) && direct(&self.world, b, a)) {
                let took = self.world.now - start;
                assert!(
                    took < DIRECT,
                    "no direct path between nodes {a} and {b} within {took:?}"
                );
                self.send(a, b);
                self.send(b, a);
                self.world.run(MS(100), |_| false);
            }
            self.direct = self.direct.max(self.world.now - start);
        }
    }

    fn heal(&mut self) {
        let world = &mut self.world;
        world.cut.clear();
        for site in 0..world.sites.len() {
            world.sites[site].udp = true;
            world.sites[site].loss = world.sites[site].loss.min(20);
            world.set_site_relay(site, true);
        }
        world.set_relay(true);
        world.set_coordinator(true);
        for n in 0..world.nodes.len() {
            world.set_asleep(n, false);
            if world.nodes[n].blocked {
                world.set_blocked(n, false);
            }
        }
        for (a, b) in self.pairs() {
            if !self.world.granted(a, b) {
                self.world.grant(a, b);
            }
        }
        // The relay and the coordinator are tried again after so long.
        self.world.run(Duration::from_secs(6), |_| false);
        for (a, b) in self.pairs() {
            assert!(
                self.relayed(a, b),
                "nodes {a} and {b} do not know each other"
            );
        }
    }

    /// Nothing that was sent is lost.
    fn finish_streams(&mut self) {
        let start = self.world.now;
        self.world.run(STREAMS, |w| {
            w.streams.iter().all(|s| s.over() || s.failed.is_some())
        });
        self.check();
        for (number, stream) in self.world.streams.iter().enumerate() {
            assert!(
                stream.over() || stream.failed.is_some(),
                "stream {number} has {} of {} bytes after {STREAMS:?}",
                stream.read,
                stream.total
            );
        }
        self.streams = self.world.now - start;
        if self.verbose {
            println!(
                "{:?} streams over after {:?}",
                self.world.elapsed(),
                self.streams
            );
        }
    }

    /// Nothing to do makes no noise.
    fn be_idle(&mut self) {
        self.world.excuse(|_| true);
        self.world.abort_streams();
        self.world.run(Duration::from_secs(75), |_| false);
        let before: Vec<_> = self.world.nodes.iter().map(|n| (n.sent, n.woken)).collect();
        const SPAN: u64 = 600;
        self.world.run(Duration::from_secs(SPAN), |_| false);
        for (n, (sent, woken)) in before.into_iter().enumerate() {
            let node = &self.world.nodes[n];
            let peers = node.installed.len() as u64;
            let (sent, woken) = (node.sent - sent, node.woken - woken);
            assert!(
                sent <= peers * SPAN / 5,
                "node {n} sends {sent} datagrams in {SPAN} idle seconds"
            );
            assert!(
                woken <= peers * SPAN / 5,
                "node {n} wakes {woken} times in {SPAN} idle seconds"
            );
        }
    }
}
