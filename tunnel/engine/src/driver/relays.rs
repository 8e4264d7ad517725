//! Relay connections: one for each region in use.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use adit_derp::{Client, Memory};
use adit_keys::{NodePrivate, NodePublic};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::relay_task::{RelayConfig, RelayTask, Wish};

/// Batches of packets on their way to the core, over all regions.
const INBOX: usize = 64;
/// Packets kept for a region that is not connected yet; the oldest goes first.
const BACKLOG: usize = 128;
/// Older ones are repetitions of each other by then and would only keep a
/// returning peer busy: handshakes are tried again, streams repeat their data.
const FRESH: Duration = Duration::from_secs(3);
/// Bytes waiting at a connection from which the core stops producing.
const CONGESTED: usize = 256 * 1024;
/// Longest time the core waits for a congested relay before it goes on and
/// lets the connection's own bound drop.
const PATIENCE: Duration = Duration::from_millis(50);
/// A region used within this time is missed when it goes down.
const MISSED: Duration = Duration::from_secs(45);
/// A region that is not home is closed this long after the last packet to it.
const IDLE: Duration = Duration::from_secs(60);

/// A packet with the other node's key.
pub(crate) type Packet = (NodePublic, Bytes);

/// What region tasks report.
#[derive(Debug)]
pub(crate) enum RelayEvent {
    Up { region: u32, client: Arc<Client> },
    Down { region: u32, error: String },
    Packets { region: u32, packets: Vec<Packet> },
}

#[derive(Debug)]
struct Region {
    client: Option<Arc<Client>>,
    waiting: VecDeque<Packet>,
    /// When the packets of a region without connection were queued.
    queued: VecDeque<Instant>,
    congested_since: Option<Instant>,
    task: tokio::task::AbortHandle,
    last_sent: Instant,
    wish: watch::Sender<Wish>,
}

impl Region {
    fn congested_until(&self, now: Instant) -> Option<Instant> {
        self.congested_since
            .map(|at| at + PATIENCE)
            .filter(|at| *at > now)
    }

    fn set_busy(&self, busy: bool) {
        self.wish
            .send_if_modified(|wish| std::mem::replace(&mut wish.busy, busy) != busy);
    }
}

/// All relay connections of a node.
pub(crate) struct Relays {
    key: NodePrivate,
    http: adit_http::Client,
    memory: Memory,
    map: HashMap<u32, RelayConfig>,
    force_websockets: bool,
    regions: HashMap<u32, Region>,
    home: u32,
    link: u64,
    inbox: mpsc::Receiver<RelayEvent>,
    events: mpsc::Sender<RelayEvent>,
    tasks: JoinSet<()>,
    /// Why a region's client uses WebSockets although nobody asked for it.
    pub(crate) fell_back: HashMap<u32, String>,
    pub(crate) last_error: Option<String>,
}

impl Relays {
    pub(crate) fn new(key: NodePrivate, http: adit_http::Client, force_websockets: bool) -> Self {
        let (events, inbox) = mpsc::channel(INBOX);
        Self {
            key,
            http,
            memory: Memory::default(),
            map: HashMap::new(),
            force_websockets,
            regions: HashMap::new(),
            home: 0,
            link: 0,
            inbox,
            events,
            tasks: JoinSet::new(),
            fell_back: HashMap::new(),
            last_error: None,
        }
    }

    /// Replaces the map; connections of regions that changed or vanished are
    /// closed.
    pub(crate) fn set_map(&mut self, map: HashMap<u32, RelayConfig>, now: Instant) {
        let old = std::mem::replace(&mut self.map, map);
        let stale: Vec<_> = self
            .regions
            .keys()
            .copied()
            .filter(|id| self.map.get(id) != old.get(id))
            .collect();
        for id in stale {
            self.close(id);
        }
        if self.home != 0 {
            self.set_home(self.home, now);
        }
    }

    /// Holds for connections made from now on.
    pub(crate) fn set_force_websockets(&mut self, force: bool) {
        self.force_websockets = force;
    }

    /// Chooses the home region and keeps a connection to it.
    pub(crate) fn set_home(&mut self, home: u32, now: Instant) {
        self.home = home;
        self.open(home, now);
        self.publish_wishes();
    }

    /// The machine's network changed: connections have to prove themselves.
    pub(crate) fn link_changed(&mut self) {
        self.link += 1;
        self.memory.clear();
        self.publish_wishes();
    }

    fn publish_wishes(&self) {
        for (id, region) in &self.regions {
            region.wish.send_if_modified(|old| {
                let wish = Wish {
                    home: *id == self.home,
                    link: self.link,
                    ..*old
                };
                std::mem::replace(old, wish) != wish
            });
        }
    }

    pub(crate) fn is_up(&self, region: u32) -> bool {
        self.regions
            .get(&region)
            .is_some_and(|r| r.client.is_some())
    }

    /// Opens a region's connection if there is none.
    fn open(&mut self, id: u32, now: Instant) -> Option<&mut Region> {
        if !self.regions.contains_key(&id) {
            let (wish_sender, wish) = watch::channel(Wish {
                home: id == self.home,
                link: self.link,
                busy: false,
            });
            let task = RelayTask {
                config: self.map.get(&id)?.clone(),
                http: self.http.clone(),
                key: self.key.clone(),
                websocket_only: self.force_websockets,
                memory: self.memory.clone(),
                wish,
                events: self.events.clone(),
            };
            let region = Region {
                client: None,
                waiting: VecDeque::new(),
                queued: VecDeque::new(),
                congested_since: None,
                task: self.tasks.spawn(task.run()),
                last_sent: now,
                wish: wish_sender,
            };
            self.regions.insert(id, region);
        }
        self.regions.get_mut(&id)
    }

    fn close(&mut self, id: u32) {
        if let Some(region) = self.regions.remove(&id) {
            region.task.abort();
        }
        self.fell_back.remove(&id);
    }

    /// Closes regions not used for a while.
    pub(crate) fn close_idle(&mut self, now: Instant) {
        let home = self.home;
        let idle: Vec<_> = self
            .regions
            .iter()
            .filter(|(id, r)| **id != home && now.duration_since(r.last_sent) >= IDLE)
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.close(id);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// When [`close_idle`](Self::close_idle) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.regions
            .iter()
            .filter(|(id, _)| **id != self.home)
            .map(|(_, r)| r.last_sent + IDLE)
            .min()
    }

    /// Whether the map has the region.
    pub(crate) fn knows(&self, region: u32) -> bool {
        self.map.contains_key(&region)
    }

    /// Queues a packet; drops it when the region is unknown.
    pub(crate) fn send(&mut self, now: Instant, region: u32, key: NodePublic, packet: Bytes) {
        let Some(region) = self.open(region, now) else {
            return;
        };
        region.last_sent = now;
        if region.client.is_none() {
            region.set_busy(true);
            if region.waiting.len() == BACKLOG {
                region.waiting.pop_front();
                region.queued.pop_front();
            }
            region.queued.push_back(now);
        }
        region.waiting.push_back((key, packet));
    }

    /// Hands queued packets to the connections.
    pub(crate) fn flush(&mut self, cx: &Context<'_>, now: Instant) {
        for region in self.regions.values_mut() {
            let Some(client) = &region.client else {
                continue;
            };
            for at in region.queued.drain(..) {
                if now >= at + FRESH {
                    region.waiting.pop_front();
                }
            }
            if !region.waiting.is_empty() {
                client.send_batch(region.waiting.drain(..));
            }
            if client.poll_room(cx, CONGESTED).is_ready() {
                region.congested_since = None;
            } else if region.congested_since.is_none() {
                region.congested_since = Some(now);
            }
        }
    }

    /// Frees the room of the queues that a burst needed.
    pub(crate) fn shrink(&mut self) {
        for region in self.regions.values_mut() {
            region.waiting.shrink_to_fit();
            region.queued.shrink_to_fit();
            if let Some(client) = &region.client {
                client.shrink();
            }
        }
    }

    /// Whether new packets for some region should wait; then until when at
    /// most.
    pub(crate) fn congested(&self, now: Instant) -> Option<Instant> {
        self.regions
            .values()
            .filter_map(|r| r.congested_until(now))
            .min()
    }

    /// Whether new packets for this region should wait.
    pub(crate) fn is_congested(&self, now: Instant, region: u32) -> bool {
        self.regions
            .get(&region)
            .is_some_and(|r| r.congested_until(now).is_some())
    }

    /// Next report of a region.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<RelayEvent> {
        let Poll::Ready(Some(event)) = self.inbox.poll_recv(cx) else {
            return Poll::Pending;
        };
        match &event {
            RelayEvent::Up { region, client } => {
                match client.upgrade_refused() {
                    Some(reason) => self.fell_back.insert(*region, reason.to_owned()),
                    None => self.fell_back.remove(region),
                };
                if let Some(entry) = self.regions.get_mut(region) {
                    entry.client = Some(Arc::clone(client));
                    entry.set_busy(false);
                }
                self.last_error = None;
            }
            RelayEvent::Down { region, error } => {
                if let Some(entry) = self.regions.get_mut(region) {
                    if entry.client.take().is_some() && entry.last_sent.elapsed() < MISSED {
                        entry.set_busy(true);
                    }
                    entry.congested_since = None;
                }
                self.last_error = Some(error.clone());
            }
            RelayEvent::Packets { .. } => {}
        }
        Poll::Ready(event)
    }
}
