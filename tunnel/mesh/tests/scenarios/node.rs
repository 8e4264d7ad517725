//! One node: mesh core, stack, and what a driver keeps around them.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_keys::{DiscoPrivate, DiscoPublic, NodePrivate, NodePublic};
use adit_mesh::{Mesh, MeshConfig, PeerConfig};
use adit_netstack::{Stack, StackConfig};
use rand::Rng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::world::Arrival;

pub(crate) const REGION: u32 = 999;
/// Packets a node keeps for a relay that is not connected.
const BACKLOG: usize = 128;
/// Older ones are not worth sending any more.
pub(crate) const FRESH: Duration = Duration::from_secs(3);
/// Arrivals a sleeping node's sockets hold.
const ASLEEP: usize = 2048;

/// What a node tells the coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) key: NodePublic,
    pub(crate) disco: DiscoPublic,
    pub(crate) endpoints: Vec<SocketAddr>,
}

pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) stack: Stack,
    pub(crate) id: Uuid,
    pub(crate) ip: Ipv6Addr,
    pub(crate) key: NodePublic,
    pub(crate) disco: DiscoPublic,
    /// Counts restarts.
    pub(crate) life: u32,
    pub(crate) site: usize,
    pub(crate) addr: SocketAddr,
    /// How far this node's clock is ahead.
    pub(crate) ahead: Duration,
    pub(crate) asleep: bool,
    pub(crate) kept: VecDeque<Arrival>,
    /// What the coordinator said meanwhile.
    pub(crate) told: VecDeque<(usize, Option<Published>)>,
    pub(crate) blocked: bool,
    /// Granted peers in force here, with their keys.
    pub(crate) installed: BTreeMap<usize, NodePublic>,
    pub(crate) endpoints: Vec<SocketAddr>,
    /// Number of the connection to the relay, `None` while there is none.
    pub(crate) relay: Option<u64>,
    pub(crate) backlog: VecDeque<(Instant, NodePublic, Vec<u8>)>,
    pub(crate) coord: bool,
    pub(crate) last_data: Option<Instant>,
    pub(crate) last_gathered: Option<Instant>,
    pub(crate) sent: u64,
    pub(crate) woken: u64,
}

impl Node {
    pub(crate) fn new(rng: &mut StdRng, now: Instant, site: usize, addr: SocketAddr) -> Self {
        let id = Uuid::from_bytes(rng.random());
        Self::with_id(rng, now, id, 0, site, addr)
    }

    fn with_id(
        rng: &mut StdRng,
        now: Instant,
        id: Uuid,
        life: u32,
        site: usize,
        addr: SocketAddr,
    ) -> Self {
        let node_key = NodePrivate::generate_with(rng);
        let disco_key = DiscoPrivate::generate_with(rng);
        let ip = adit_keys::addr::tailnet_ip(id);
        let (key, disco) = (node_key.public(), disco_key.public());
        let mut stack = StackConfig::new(vec![ip], rng.random());
        stack.max_mtu = adit_mesh::MAX_MTU;
        Self {
            mesh: Mesh::new(MeshConfig {
                node_key,
                disco_key,
                seed: rng.random(),
                clock: adit_mesh::Clock::new(now, Duration::from_secs(1_800_000_000)),
            }),
            stack: Stack::new(stack, now),
            id,
            ip,
            key,
            disco,
            life,
            site,
            addr,
            ahead: Duration::ZERO,
            asleep: false,
            kept: VecDeque::new(),
            told: VecDeque::new(),
            blocked: false,
            installed: BTreeMap::new(),
            endpoints: Vec::new(),
            relay: None,
            backlog: VecDeque::new(),
            coord: false,
            last_data: None,
            last_gathered: None,
            sent: 0,
            woken: 0,
        }
    }

    /// The program ends and starts again: other keys under the same name.
    pub(crate) fn restarted(&self, rng: &mut StdRng, now: Instant) -> Self {
        Self::with_id(rng, now, self.id, self.life + 1, self.site, self.addr)
    }

    pub(crate) fn published(&self) -> Published {
        Published {
            key: self.key,
            disco: self.disco,
            endpoints: if self.blocked {
                Vec::new()
            } else {
                self.endpoints.clone()
            },
        }
    }

    /// This node's own idea of the time.
    pub(crate) fn clock(&self, now: Instant) -> Instant {
        now + self.ahead
    }

    /// Next timer in the world's time.
    pub(crate) fn timer(&self, now: Instant) -> Option<Instant> {
        if self.asleep {
            return None;
        }
        [self.mesh.poll_timeout(), self.stack.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.checked_sub(self.ahead).map_or(now, |at| at.max(now)))
    }

    pub(crate) fn keep(&mut self, arrival: Arrival) {
        if self.kept.len() < ASLEEP {
            self.kept.push_back(arrival);
        }
    }

    pub(crate) fn keep_for_relay(&mut self, now: Instant, to: NodePublic, data: Vec<u8>) {
        if self.backlog.len() == BACKLOG {
            self.backlog.pop_front();
        }
        self.backlog.push_back((now, to, data));
    }
}

pub(crate) fn peer_config(id: Uuid, info: &Published, keepalive: bool) -> PeerConfig {
    PeerConfig {
        id,
        node_key: info.key,
        disco_key: info.disco,
        home_region: REGION,
        endpoints: info.endpoints.clone(),
        allowed_ips: vec![adit_keys::addr::tailnet_ip(id)],
        keepalive,
    }
}
