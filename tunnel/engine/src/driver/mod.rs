//! The core task: one future that owns all protocol state of a node.
//!
//! Each poll runs rounds of: commands, stream doorbells, relay batches, UDP
//! batches, timers, stack events, transmission. It stops when a round moved
//! nothing, and yields after [`ROUNDS`] so that a busy node does not starve
//! the other tasks of its thread.

mod announce;
mod commands;
mod datagrams;
mod endpoints;
mod flows;
mod input;
mod link;
mod map;
mod netcheck;
mod output;
mod relay_task;
mod relays;
mod sockets;
mod tcp;

use std::collections::HashMap;
use std::future::Future;
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use adit_keys::{DiscoPublic, NodePublic};
use adit_mesh::{BUFFER_LEN, Mesh, MeshConfig};
use adit_messages::tailnet;
use adit_netstack::{PingId, Stack, StackConfig};
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;

use crate::command::{Command, Reply};
use crate::config::NodeConfig;
use crate::error::Error;
use crate::status::PingResult;
use announce::Announcer;
use datagrams::Datagrams;
use endpoints::Endpoints;
use flows::Flows;
use link::LinkWatch;
use map::Map;
use netcheck::Netcheck;
use relays::Relays;
use sockets::{Batch, Sockets};
use tcp::Tcp;

/// Rounds before other tasks get a turn.
const ROUNDS: usize = 8;
/// Traffic within this time makes the node watch its network.
const ACTIVE: Duration = Duration::from_secs(45);
/// Time between network checks of an active node.
const CHECK_EVERY: Duration = Duration::from_secs(23);
/// Time between measurements of all relays.
const FULL_EVERY: Duration = Duration::from_secs(300);
/// A home region is announced once its relay is connected, or after this; at
/// once by a node that speaks first.
const RELAY_GRACE: Duration = Duration::from_millis(1500);

/// Counters of inner packets.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
}

/// Owner of all protocol state of a node.
pub(crate) struct Core {
    inbox: mpsc::Receiver<Command>,
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,

    key: NodePublic,
    disco: DiscoPublic,
    http: adit_http::Client,
    addresses: Vec<Ipv6Addr>,
    blocked: bool,

    mesh: Mesh,
    stack: Stack,
    tcp: Tcp,
    datagrams: Datagrams,
    tsmp: HashMap<PingId, Reply<Result<Duration, Error>>>,
    pings: HashMap<u64, Reply<Result<PingResult, Error>>>,

    sockets: Sockets,
    batch: Batch,
    /// A sealed datagram that did not fit a blocked batch.
    held: Option<(std::net::SocketAddr, Vec<u8>)>,
    relays: Relays,

    map: Map,
    netcheck: Netcheck,
    endpoints: Endpoints,
    link: LinkWatch,
    announcer: Announcer,
    home: u32,
    home_since: Option<Instant>,
    speaks_first: bool,
    last_data: Option<Instant>,

    counters: Counters,
    /// For nodes that report them.
    flows: Option<Flows>,
    plain: Vec<u8>,
    inner: Vec<u8>,
    closing: Option<Reply<()>>,
}

impl Core {
    pub(crate) fn new(
        config: NodeConfig,
        inbox: mpsc::Receiver<Command>,
        commands: mpsc::WeakSender<Command>,
        announce: watch::Sender<Option<tailnet::Node>>,
    ) -> Self {
        let now = Instant::now();
        let sockets = Sockets::bind(config.udp_port);
        let key = config.node_key.public();
        let disco = config.disco_key.public();
        let relays = Relays::new(
            config.node_key.clone(),
            config.http.clone(),
            config.force_websockets,
        );
        let mut mesh = Mesh::new(MeshConfig {
            node_key: config.node_key,
            disco_key: config.disco_key,
            seed: rand::random(),
            clock: adit_mesh::Clock::new(
                now,
                SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default(),
            ),
        });
        mesh.set_blocked(now, config.block_endpoints);
        let mut stack_config = StackConfig::new(config.addresses.clone(), rand::random());
        // What WireGuard opened cannot have been damaged on the way.
        stack_config.verify_checksums = false;
        stack_config.max_mtu = adit_mesh::MAX_MTU;
        let mut core = Self {
            inbox,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            key,
            disco,
            http: config.http,
            addresses: config.addresses,
            blocked: config.block_endpoints,
            mesh,
            stack: Stack::new(stack_config, now),
            tcp: Tcp::new(commands),
            datagrams: Datagrams::default(),
            tsmp: HashMap::new(),
            pings: HashMap::new(),
            sockets,
            batch: Batch::new(),
            held: None,
            relays,
            map: Map::default(),
            netcheck: Netcheck::default(),
            endpoints: Endpoints::default(),
            link: LinkWatch::new(),
            announcer: Announcer::new(announce, config.node_id),
            home: 0,
            home_since: None,
            speaks_first: config.speaks_first,
            last_data: None,
            counters: Counters::default(),
            flows: config.count_flows.then(Flows::default),
            plain: vec![0; BUFFER_LEN],
            inner: vec![0; BUFFER_LEN],
            closing: None,
        };
        core.endpoints.scan(core.sockets.ports());
        if let Some(map) = config.derp_map {
            core.set_map(now, &map);
        }
        core.refresh(now);
        core
    }

    /// One pass over everything; whether anything moved.
    fn round(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let mut moved = self.take_commands(cx, now);
        moved |= self.tcp.answer_doorbell(now, &mut self.stack, cx.waker());
        moved |= self.take_relay_events(cx, now);
        moved |= self.take_datagrams(cx, now, false);
        moved |= self.take_datagrams(cx, now, true);
        moved |= self.take_findings(cx, now);
        moved |= self.watch_link(cx, now);
        self.run_timers(now);
        moved |= self.take_stack_events(now);
        self.take_mesh_events(now);
        moved |= self.transmit(cx, now);
        moved
    }

    fn run_timers(&mut self, now: Instant) {
        if self.mesh.poll_timeout().is_some_and(|at| at <= now) {
            self.mesh.handle_timeout(now);
        }
        if self.stack.poll_timeout().is_some_and(|at| at <= now) {
            self.stack.handle_timeout(now);
        }
        if self.relays.poll_timeout().is_some_and(|at| at <= now) {
            self.relays.close_idle(now);
        }
        for (to, request) in self.netcheck.requests(now) {
            let _ = self.sockets.send(to, &request, request.len());
        }
        if self.check_at().is_some_and(|at| at <= now) {
            let full = self
                .netcheck
                .last_full
                .is_none_or(|at| now.duration_since(at) >= FULL_EVERY);
            self.check_network(now, full);
        }
        if self.announce_at().is_some_and(|at| at <= now) {
            self.home_since = None;
            self.refresh(now);
        }
    }

    /// When the network is looked at again.
    fn check_at(&self) -> Option<Instant> {
        let next = self.netcheck.last? + CHECK_EVERY;
        self.last_data
            .filter(|at| next < *at + ACTIVE)
            .map(|_| next)
    }

    /// When waiting for the home relay ends.
    fn announce_at(&self) -> Option<Instant> {
        self.home_since.map(|at| at + RELAY_GRACE)
    }

    fn next_timeout(&self, now: Instant) -> Option<Instant> {
        [
            self.mesh.poll_timeout(),
            self.stack.poll_timeout(),
            self.relays.poll_timeout(),
            self.relays.congested(now),
            self.netcheck.poll_timeout(),
            self.check_at(),
            self.announce_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Makes sure the task runs again in time. `false` when that is now.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let next = self.next_timeout(now);
        if next.is_some_and(|at| at <= now) {
            return false;
        }
        if next != self.armed {
            self.armed = next;
            if let Some(at) = next {
                self.sleep
                    .as_mut()
                    .reset(tokio::time::Instant::from_std(at));
            }
        }
        if self.armed.is_some() {
            return self.sleep.as_mut().poll(cx).is_pending();
        }
        true
    }
}

impl Future for Core {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let core = &mut *self;
        for _ in 0..ROUNDS {
            let moved = core.round(cx);
            if let Some(reply) = core.closing.take() {
                let _ = reply.send(());
                return Poll::Ready(());
            }
            if core.inbox.is_closed() && core.inbox.is_empty() {
                return Poll::Ready(());
            }
            if !moved && core.arm(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
