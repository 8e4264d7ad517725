//! Two nodes with their inner stacks on a virtual network: streams through
//! loss, reordering, duplication and outages, on virtual time. One seed is one
//! run.
#![allow(clippy::unwrap_used, reason = "test")]

mod common;

use std::net::SocketAddrV6;
use std::time::{Duration, Instant};

use adit_netstack::{Event, SocketId, Stack, StackConfig, TcpError};
use common::{Link, Net};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const PORT: u16 = 80;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// One end of the stream: what it sends and what it got.
#[derive(Default)]
struct End {
    socket: Option<SocketId>,
    to_send: Vec<u8>,
    sent: usize,
    finished: bool,
    got: Vec<u8>,
    eof: bool,
    failed: Option<TcpError>,
    last_progress: Option<Instant>,
    longest_gap: Duration,
}

/// Bytes each end writes in a millisecond when it is slow.
const SLOW: u128 = 200;

/// The same for an end that is mostly idle.
const TRICKLE: u128 = 4;

struct Sim {
    /// Bytes to write in a millisecond instead of all at once.
    rate: Option<u128>,
    net: Net,
    stacks: Vec<Stack>,
    ends: Vec<End>,
}

impl Sim {
    fn new(seed: u64, len: usize) -> Self {
        let mut net = Net::new(seed, 2);
        net.grant(1, 0, false);
        net.grant(0, 1, true);
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        let stacks = (0..2)
            .map(|n| {
                Stack::new(
                    StackConfig::new(vec![net.nodes[n].ip], rng.random()),
                    net.now,
                )
            })
            .collect();
        let ends = (0..2)
            .map(|_| End {
                to_send: (0..len).map(|_| rng.random()).collect(),
                ..End::default()
            })
            .collect();
        Self {
            rate: None,
            net,
            stacks,
            ends,
        }
    }

    fn dial(&mut self) {
        let remote = SocketAddrV6::new(self.net.nodes[1].ip, PORT, 0, 0);
        let socket = self.stacks[0].connect(self.net.now, 0, remote).unwrap();
        self.ends[0].socket = Some(socket);
        self.pump();
    }

    /// Moves everything that can move without time passing.
    fn pump(&mut self) {
        loop {
            let mut moved = false;
            for n in 0..2 {
                if self.net.nodes[n].asleep {
                    continue;
                }
                let now = self.net.now;
                for (_, packet) in std::mem::take(&mut self.net.nodes[n].inbox) {
                    self.stacks[n].handle_packet(now, &packet);
                    moved = true;
                }
                for event in std::mem::take(&mut self.net.nodes[n].events) {
                    if let adit_mesh::Event::Path { .. } = event {
                        let ip = self.net.nodes[1 - n].ip;
                        self.stacks[n].path_changed(now, ip);
                    }
                }
                if self.stacks[n].poll_timeout().is_some_and(|at| at <= now) {
                    self.stacks[n].handle_timeout(now);
                    moved = true;
                }
                while let Some(event) = self.stacks[n].poll_event() {
                    moved = true;
                    if let Event::Incoming { id, .. } = event {
                        self.stacks[n].accept(now, id).unwrap();
                        self.ends[n].socket = Some(id);
                    }
                }
                self.use_stream(n);
                let mut buf = [0; 1280];
                while let Some(transmit) = self.stacks[n].poll_transmit(now, &mut buf) {
                    moved = true;
                    let packet = buf[..transmit.len].to_vec();
                    self.net.send_raw(n, transmit.dst, &packet);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn use_stream(&mut self, n: usize) {
        let (stack, end, now) = (&mut self.stacks[n], &mut self.ends[n], self.net.now);
        let limit = self.rate.map_or(end.to_send.len(), |rate| {
            usize::try_from(self.net.elapsed().as_millis() * rate)
                .unwrap_or(usize::MAX)
                .min(end.to_send.len())
        });
        let Some(socket) = end.socket.filter(|_| end.failed.is_none()) else {
            return;
        };
        while end.sent < limit {
            match stack.write(now, socket, &end.to_send[end.sent..limit]) {
                Ok(0) | Err(TcpError::WouldBlock | TcpError::InvalidState) => break,
                Ok(n) => end.sent += n,
                Err(error) => {
                    end.failed = Some(error);
                    return;
                }
            }
        }
        if end.sent == end.to_send.len()
            && !end.finished
            && stack.shutdown_write(now, socket).is_ok()
        {
            end.finished = true;
        }
        let mut buf = [0; 16 * 1024];
        while !end.eof {
            match stack.read(now, socket, &mut buf) {
                Ok(0) => end.eof = true,
                Ok(n) => {
                    end.got.extend_from_slice(&buf[..n]);
                    if let Some(last) = end.last_progress.replace(now) {
                        end.longest_gap = end.longest_gap.max(now - last);
                    }
                }
                Err(TcpError::WouldBlock | TcpError::InvalidState) => break,
                Err(error) => {
                    end.failed = Some(error);
                    return;
                }
            }
        }
    }

    /// Runs until `done` or for `span`.
    fn run(&mut self, span: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end = self.net.now + span;
        while !done(self) {
            let awake = (0..2).filter(|n| !self.net.nodes[*n].asleep);
            let stack = awake.filter_map(|n| self.stacks[n].poll_timeout()).min();
            let next = self
                .net
                .next_event()
                .into_iter()
                .chain(stack)
                .min()
                .unwrap_or(end);
            if next > end {
                let left = end - self.net.now;
                self.net.run(left);
                return;
            }
            let step = next.saturating_duration_since(self.net.now);
            self.net.run(step);
            self.pump();
        }
    }

    fn complete(&self) -> bool {
        self.ends.iter().all(|e| e.eof && e.finished)
            || self.ends.iter().any(|e| e.failed.is_some())
    }

    fn check(&self, seed: u64) {
        for (n, end) in self.ends.iter().enumerate() {
            let other = &self.ends[1 - n];
            let at = self.net.elapsed();
            assert_eq!(end.failed, None, "seed {seed}: end {n} failed after {at:?}");
            assert!(
                end.got == other.to_send[..end.got.len()],
                "seed {seed}: end {n} got other bytes"
            );
            assert!(
                end.eof && end.got.len() == other.to_send.len(),
                "seed {seed}: end {n} got {} of {} bytes after {at:?}",
                end.got.len(),
                other.to_send.len()
            );
        }
    }
}

fn rough_link(rng: &mut StdRng, loss: u32) -> Link {
    Link {
        delay: MS(rng.random_range(1..60)),
        jitter: MS(rng.random_range(0..10)),
        loss: rng.random_range(0..=loss),
        duplicate: rng.random_range(0..20),
        up: true,
    }
}

#[test]
fn streams_survive_rough_links_and_outages() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut sim = Sim::new(seed, rng.random_range(1..400_000));
        sim.net.udp = rough_link(&mut rng, 20);
        sim.net.derp = rough_link(&mut rng, 5);
        sim.dial();
        for _ in 0..60 {
            sim.run(MS(rng.random_range(50..3000)), Sim::complete);
            if sim.complete() {
                break;
            }
            // Never both for longer than a moment: that is for the next test.
            match rng.random_range(0..5) {
                0 => (sim.net.udp.up, sim.net.derp.up) = (false, true),
                1 => (sim.net.udp.up, sim.net.derp.up) = (true, false),
                2 => {
                    let now = sim.net.now;
                    sim.net.nodes[rng.random_range(0..2)].mesh.link_changed(now);
                }
                _ => (sim.net.udp.up, sim.net.derp.up) = (true, true),
            }
        }
        (sim.net.udp.up, sim.net.derp.up) = (true, true);
        sim.run(Duration::from_secs(120), Sim::complete);
        sim.check(seed);
    }
}

#[test]
fn a_stream_survives_a_total_outage() {
    for seed in 100..106 {
        let mut sim = Sim::new(seed, 1_000_000);
        sim.rate = Some(SLOW);
        sim.dial();
        sim.run(MS(300), Sim::complete);
        (sim.net.udp.up, sim.net.derp.up) = (false, false);
        sim.run(Duration::from_secs(20), Sim::complete);
        (sim.net.udp.up, sim.net.derp.up) = (true, true);
        sim.run(Duration::from_secs(60), Sim::complete);
        sim.check(seed);
    }
}

#[test]
fn a_stream_goes_on_at_once_after_a_sleep() {
    // Longer than a WireGuard session lives, too.
    let mut worst = Duration::ZERO;
    for seed in 300..340 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (sleeper, relayed) = (rng.random_range(0..2), rng.random_ratio(1, 3));
        let span = Duration::from_secs([60, 115, 150, 178, 200, 280][rng.random_range(0..6)]);
        let mut sim = Sim::new(seed, 1_500_000);
        sim.rate = Some(TRICKLE);
        sim.net.udp = Link::clean(rng.random_range(1..40));
        let now = sim.net.now;
        sim.net.nodes[0].mesh.set_blocked(now, relayed);
        sim.dial();
        sim.run(MS(rng.random_range(2000..5000)), |_| false);
        assert_eq!(sim.net.direct(0, 1).is_none(), relayed, "seed {seed}");
        sim.net.set_asleep(sleeper, true);
        sim.run(span, |_| false);
        sim.net.set_asleep(sleeper, false);
        sim.pump();
        // Both hear from each other again, each with what the other has sent
        // since: repetitions of what was lost come first.
        let (woke, got) = (sim.net.now, sim.ends[1 - sleeper].got.len());
        sim.run(Duration::from_secs(20), |sim| {
            sim.ends[1 - sleeper].got.len() > got
        });
        let silent = sim.net.now - woke;
        worst = worst.max(silent);
        let what = format!("seed {seed}, node {sleeper} for {span:?}, relayed {relayed}");
        assert!(silent < MS(500), "{what}: silent for {silent:?}");
        for end in &sim.ends {
            assert_eq!(end.failed, None, "{what}");
        }
        // Nothing is lost, and what piled up is made up for.
        sim.run(Duration::from_secs(20), |_| false);
        for (n, end) in sim.ends.iter().enumerate() {
            let other = &sim.ends[1 - n];
            assert!(end.got == other.to_send[..end.got.len()], "{what}");
            let behind = other.sent - end.got.len();
            assert!(behind < 10_000, "{what}: {behind} bytes behind");
        }
    }
    println!("longest silence after a sleep: {worst:?}");
}

#[test]
fn blocked_udp_is_bridged_by_the_relay_within_a_second() {
    let mut worst = Duration::ZERO;
    for seed in 200..240 {
        let mut sim = Sim::new(seed, 2_000_000);
        sim.rate = Some(SLOW);
        sim.net.udp = Link::clean(1 + seed % 40);
        sim.net.derp = Link::clean(20);
        sim.dial();
        sim.run(Duration::from_secs(2), Sim::complete);
        assert!(
            sim.net.direct(0, 1).is_some(),
            "seed {seed}: no direct path"
        );
        for end in &mut sim.ends {
            end.longest_gap = Duration::ZERO;
        }
        sim.net.udp.up = false;
        sim.run(Duration::from_secs(3), Sim::complete);
        for end in &sim.ends {
            assert_eq!(end.failed, None);
            worst = worst.max(end.longest_gap);
        }
        assert!(worst < MS(1000), "seed {seed}: silent for {worst:?}");
    }
}
