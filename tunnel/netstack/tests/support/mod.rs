//! Stacks joined by a simulated bottleneck in virtual time.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

pub(crate) mod flows;
pub(crate) mod lines;
pub(crate) mod wire;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use adit_netstack::{Event, SocketId, Stack, StackConfig, TcpError};

/// Bytes that tunnel and carrier add to an inner packet on the wire.
pub(crate) const OVERHEAD: usize = 60;

/// Age of the stacks when a simulation begins.
const AGE: Duration = Duration::from_secs(1000);

/// A small deterministic generator (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(crate) fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < p
    }
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub(crate) struct LinkConfig {
    /// Bits per second; 0 = unlimited.
    pub(crate) rate: u64,
    pub(crate) delay: Duration,
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    /// Part of the packets that are held back by up to `reorder_by`.
    pub(crate) reorder: f64,
    pub(crate) reorder_by: Duration,
    /// Packets that may wait for the bottleneck.
    pub(crate) queue: usize,
    /// Larger packets vanish.
    pub(crate) mtu: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            rate: 0,
            delay: Duration::from_millis(1),
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::ZERO,
            queue: 512,
            mtu: usize::MAX,
        }
    }
}

struct Direction {
    config: LinkConfig,
    free_at: Duration,
    /// Times at which queued packets leave the bottleneck.
    departures: std::collections::VecDeque<Duration>,
    lost: u64,
    overflowed: u64,
    carried: u64,
    down: bool,
}

impl Direction {
    fn new(config: LinkConfig) -> Self {
        Self {
            config,
            free_at: Duration::ZERO,
            departures: std::collections::VecDeque::new(),
            lost: 0,
            overflowed: 0,
            carried: 0,
            down: false,
        }
    }

    /// Arrival times of a packet sent now.
    fn send(&mut self, now: Duration, len: usize, rng: &mut Rng) -> Vec<Duration> {
        while self.departures.front().is_some_and(|&at| at <= now) {
            self.departures.pop_front();
        }
        if self.down || len > self.config.mtu || rng.chance(self.config.loss) {
            self.lost += 1;
            return Vec::new();
        }
        if self.departures.len() >= self.config.queue {
            self.overflowed += 1;
            return Vec::new();
        }
        self.carried += 1;
        let start = self.free_at.max(now);
        let bits = (len + OVERHEAD) as u64 * 8;
        let time = (bits * 1_000_000_000).checked_div(self.config.rate);
        let time = Duration::from_nanos(time.unwrap_or(0));
        self.free_at = start + time;
        self.departures.push_back(self.free_at);
        let mut arrival = self.free_at + self.config.delay;
        if rng.chance(self.config.reorder) {
            arrival += Duration::from_nanos(rng.below(self.config.reorder_by.as_nanos() as u64));
        }
        let mut arrivals = vec![arrival];
        if rng.chance(self.config.duplicate) {
            arrivals.push(arrival + Duration::from_micros(rng.below(2000)));
        }
        arrivals
    }
}

/// A transfer from one host to another.
pub(crate) struct Transfer {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) port: u16,
    pub(crate) total: u64,
    /// Bytes after which the sender falls silent.
    pub(crate) limit: u64,
    pub(crate) sender: Option<SocketId>,
    pub(crate) receiver: Option<SocketId>,
    pub(crate) written: u64,
    pub(crate) read: u64,
    pub(crate) fin_seen: bool,
    pub(crate) sender_error: Option<TcpError>,
    pub(crate) receiver_error: Option<TcpError>,
    pub(crate) finished_at: Option<Duration>,
    /// Longest time without received data while the transfer ran.
    pub(crate) last_data: Duration,
    pub(crate) longest_gap: Duration,
}

fn pattern(port: u16, offset: u64) -> u8 {
    let n = offset
        .wrapping_mul(0x9e37_79b9)
        .wrapping_add(u64::from(port));
    (n ^ (n >> 11) ^ (n >> 23)) as u8
}

type Arrival = Reverse<(Duration, u64, usize, Vec<u8>)>;

/// Hosts with even numbers are left of the bottleneck, odd ones right of it.
pub(crate) struct Sim {
    pub(crate) origin: Instant,
    pub(crate) now: Duration,
    pub(crate) hosts: Vec<Stack>,
    addresses: HashMap<Ipv6Addr, usize>,
    right: Direction,
    left: Direction,
    arrivals: BinaryHeap<Arrival>,
    count: u64,
    pub(crate) rng: Rng,
    pub(crate) transfers: Vec<Transfer>,
    /// Every packet put on the link, if recording.
    pub(crate) record: Option<Vec<(Duration, usize, Vec<u8>)>>,
    /// Events nobody else took.
    pub(crate) events: Vec<(usize, Event)>,
    pub(crate) steps: u64,
    /// Hosts wake up to this much late, as they do on a busy machine.
    pub(crate) slack: Duration,
}

pub(crate) fn address(host: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, host as u16 + 1)
}

impl Sim {
    pub(crate) fn new(seed: u64, right: LinkConfig, left: LinkConfig) -> Self {
        Self {
            origin: Instant::now(),
            now: Duration::ZERO,
            hosts: Vec::new(),
            addresses: HashMap::new(),
            right: Direction::new(right),
            left: Direction::new(left),
            arrivals: BinaryHeap::new(),
            count: 0,
            rng: Rng(seed),
            transfers: Vec::new(),
            record: None,
            events: Vec::new(),
            steps: 0,
            slack: Duration::ZERO,
        }
    }

    /// Adds a host after adjusting its settings; returns its number.
    pub(crate) fn host(&mut self, adjust: impl FnOnce(&mut StackConfig)) -> usize {
        let number = self.hosts.len();
        let mut config = StackConfig::new(vec![address(number)], self.rng.next());
        adjust(&mut config);
        self.hosts.push(Stack::new(config, self.origin));
        self.addresses.insert(address(number), number);
        number
    }

    pub(crate) fn instant(&self) -> Instant {
        self.origin + AGE + self.now
    }

    pub(crate) fn set_down(&mut self, down: bool) {
        self.right.down = down;
        self.left.down = down;
    }

    pub(crate) fn set_right(&mut self, config: LinkConfig) {
        self.right.config = config;
    }

    pub(crate) fn drops(&self) -> (u64, u64) {
        (
            self.right.lost + self.left.lost,
            self.right.overflowed + self.left.overflowed,
        )
    }

    /// Starts a transfer of `total` bytes; returns its number.
    pub(crate) fn transfer(&mut self, from: usize, to: usize, total: u64) -> usize {
        let port = 1000 + self.transfers.len() as u16;
        let remote = SocketAddrV6::new(address(to), port, 0, 0);
        let now = self.instant();
        let id = self.hosts[from].connect(now, 0, remote).unwrap();
        self.transfers.push(Transfer {
            from,
            to,
            port,
            total,
            limit: u64::MAX,
            sender: Some(id),
            receiver: None,
            written: 0,
            read: 0,
            fin_seen: false,
            sender_error: None,
            receiver_error: None,
            finished_at: None,
            last_data: self.now,
            longest_gap: Duration::ZERO,
        });
        self.pump(from);
        self.transfers.len() - 1
    }

    /// Sends what a host has to send.
    pub(crate) fn pump(&mut self, host: usize) {
        let mut buf = [0; 9216];
        let now = self.instant();
        loop {
            while let Some(event) = self.hosts[host].poll_event() {
                self.on_event(host, event);
            }
            let Some(transmit) = self.hosts[host].poll_transmit(now, &mut buf) else {
                break;
            };
            let packet = buf[..transmit.len].to_vec();
            self.send(host, transmit.dst, &packet);
        }
    }

    pub(crate) fn send(&mut self, host: usize, dst: Ipv6Addr, packet: &[u8]) {
        let Some(&to) = self.addresses.get(&dst) else {
            return;
        };
        if let Some(record) = &mut self.record {
            record.push((self.now, host, packet.to_vec()));
        }
        let direction = if host.is_multiple_of(2) {
            &mut self.right
        } else {
            &mut self.left
        };
        for at in direction.send(self.now, packet.len(), &mut self.rng) {
            self.count += 1;
            self.arrivals
                .push(Reverse((at, self.count, to, packet.to_vec())));
        }
    }

    fn on_event(&mut self, host: usize, event: Event) {
        let now = self.instant();
        match event {
            Event::Incoming { id, local, .. } => {
                let known = self
                    .transfers
                    .iter_mut()
                    .find(|t| t.to == host && t.port == local.port() && t.receiver.is_none());
                match known {
                    Some(transfer) => {
                        transfer.receiver = Some(id);
                        self.hosts[host].accept(now, id).unwrap();
                    }
                    None => self.events.push((host, event)),
                }
            }
            Event::Connected(id) | Event::Writable(id) | Event::Readable(id) => {
                if !self.drive(host, id) {
                    self.events.push((host, event));
                }
            }
            Event::Closed { id, .. } => {
                if !self.drive(host, id) {
                    self.events.push((host, event));
                }
            }
            other => self.events.push((host, other)),
        }
    }

    /// Lets the applications of a socket work.
    fn drive(&mut self, host: usize, id: SocketId) -> bool {
        let now = self.instant();
        let stack = &mut self.hosts[host];
        let mut buf = vec![0; 64 << 10];
        for t in &mut self.transfers {
            if t.from == host && t.sender == Some(id) {
                while t.written < t.total.min(t.limit) {
                    let len = (t.total.min(t.limit) - t.written).min(buf.len() as u64) as usize;
                    for (i, byte) in buf[..len].iter_mut().enumerate() {
                        *byte = pattern(t.port, t.written + i as u64);
                    }
                    match stack.write(now, id, &buf[..len]) {
                        Ok(n) => t.written += n as u64,
                        Err(TcpError::WouldBlock) => break,
                        Err(error) => {
                            t.sender_error = Some(error);
                            break;
                        }
                    }
                }
                if t.written == t.total && t.sender_error.is_none() {
                    let _ = stack.shutdown_write(now, id);
                }
                match stack.read(now, id, &mut buf) {
                    Ok(0) => {
                        stack.close(now, id);
                        t.sender = None;
                    }
                    Ok(_) => panic!("data nobody sent"),
                    Err(TcpError::WouldBlock) => {}
                    Err(error) => {
                        t.sender_error = Some(error);
                        stack.close(now, id);
                        t.sender = None;
                    }
                }
                return true;
            }
            if t.to == host && t.receiver == Some(id) {
                loop {
                    match stack.read(now, id, &mut buf) {
                        Ok(0) => {
                            t.fin_seen = true;
                            t.finished_at.get_or_insert(self.now);
                            stack.close(now, id);
                            t.receiver = None;
                            break;
                        }
                        Ok(n) => {
                            for (i, byte) in buf[..n].iter().enumerate() {
                                assert_eq!(*byte, pattern(t.port, t.read + i as u64));
                            }
                            t.read += n as u64;
                            t.longest_gap = t.longest_gap.max(self.now - t.last_data);
                            t.last_data = self.now;
                        }
                        Err(TcpError::WouldBlock) => break,
                        Err(error) => {
                            t.receiver_error = Some(error);
                            stack.close(now, id);
                            t.receiver = None;
                            break;
                        }
                    }
                }
                return true;
            }
        }
        false
    }

    /// Time of the next thing to happen.
    pub(crate) fn next_time(&self) -> Option<Duration> {
        let arrival = self.arrivals.peek().map(|Reverse((at, ..))| *at);
        let timeout = self
            .hosts
            .iter()
            .filter_map(Stack::poll_timeout)
            .map(|at| at.saturating_duration_since(self.origin + AGE))
            .min();
        match (arrival, timeout) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Runs until `end` or until nothing is left to happen.
    pub(crate) fn run_until(&mut self, end: Duration) {
        while let Some(at) = self.next_time() {
            if at > end {
                break;
            }
            self.step(at);
        }
        self.now = self.now.max(end);
    }

    /// Runs until `done` says so or `end` is reached; whether it did.
    pub(crate) fn run_while(
        &mut self,
        end: Duration,
        mut go_on: impl FnMut(&Self) -> bool,
    ) -> bool {
        while go_on(self) {
            match self.next_time() {
                Some(at) if at <= end => self.step(at),
                _ => return false,
            }
        }
        true
    }

    fn step(&mut self, at: Duration) {
        self.steps += 1;
        assert!(self.steps < 50_000_000, "simulation does not come to rest");
        let late = self.rng.below(1 + self.slack.as_nanos() as u64);
        self.now = self.now.max(at) + Duration::from_nanos(late);
        let now = self.instant();
        let mut touched = vec![false; self.hosts.len()];
        while self
            .arrivals
            .peek()
            .is_some_and(|Reverse((at, ..))| *at <= self.now)
        {
            if let Some(Reverse((_, _, to, packet))) = self.arrivals.pop() {
                self.hosts[to].handle_packet(now, &packet);
                touched[to] = true;
            }
        }
        for (host, touched) in touched.into_iter().enumerate() {
            let due = self.hosts[host].poll_timeout().is_some_and(|at| at <= now);
            if due {
                self.hosts[host].handle_timeout(now);
            }
            if touched || due {
                self.pump(host);
            }
        }
    }
}
