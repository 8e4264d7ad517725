//! Whatever the link does, each byte stream arrives in order, once and
//! complete, or both ends get an error.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddrV6;
use std::time::Duration;

use adit_netstack::{CloseReason, CongestionControl, Event, SocketId, TcpError};
use support::{LinkConfig, Rng, Sim, address};

/// One end of a connection, with the model of what it has seen.
#[derive(Default)]
struct End {
    id: Option<SocketId>,
    to_write: u64,
    written: u64,
    shut: bool,
    read: u64,
    eof: bool,
    error: Option<CloseReason>,
    closed: Option<CloseReason>,
}

fn byte(side: usize, offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8) ^ (side as u64 * 0x55)) as u8
}

fn chaotic_link(rng: &mut Rng) -> LinkConfig {
    let pick = |rng: &mut Rng, max: u64| rng.below(max + 1) as f64 / 100.0;
    LinkConfig {
        rate: [0, 1_000_000, 10_000_000, 1_000_000_000][rng.below(4) as usize],
        delay: Duration::from_micros([10, 1000, 20_000, 150_000][rng.below(4) as usize]),
        loss: [0.0, pick(rng, 5), pick(rng, 25)][rng.below(3) as usize],
        duplicate: [0.0, pick(rng, 20)][rng.below(2) as usize],
        reorder: [0.0, pick(rng, 50)][rng.below(2) as usize],
        reorder_by: Duration::from_micros(1 + rng.below(100_000)),
        queue: [4, 32, 512][rng.below(3) as usize],
        mtu: [1280, 1380, usize::MAX][rng.below(3) as usize],
    }
}

struct Pair {
    sim: Sim,
    ends: [End; 2],
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let (right, left) = (chaotic_link(&mut rng), chaotic_link(&mut rng));
        let mut sim = Sim::new(seed, right, left);
        for _ in 0..2 {
            let cubic = rng.below(2) == 0;
            let pacing = rng.below(4) > 0;
            let small = rng.below(3) == 0;
            sim.host(|c| {
                if cubic {
                    c.tcp.congestion = CongestionControl::Cubic;
                }
                c.tcp.pacing = pacing;
                if small {
                    c.tcp.initial_buffer = 8 << 10;
                    c.tcp.max_buffer = 16 << 10;
                    c.memory_budget = 4096;
                }
                c.tcp.user_timeout = Duration::from_secs(600);
                c.tcp.connect_timeout = Duration::from_secs(120);
            });
        }
        let mut ends = [End::default(), End::default()];
        for end in &mut ends {
            end.to_write = [0, 1, 5000, 200_000][rng.below(4) as usize] + rng.below(1000);
        }
        let remote = SocketAddrV6::new(address(1), 80, 0, 0);
        let now = sim.instant();
        ends[0].id = Some(sim.hosts[0].connect(now, 0, remote).unwrap());
        sim.pump(0);
        Self { sim, ends }
    }

    fn note_events(&mut self) {
        for (host, event) in std::mem::take(&mut self.sim.events) {
            match event {
                Event::Incoming { id, .. } => {
                    assert!(self.ends[1].id.is_none(), "one SYN, one connection");
                    let now = self.sim.instant();
                    self.sim.hosts[host].accept(now, id).unwrap();
                    self.ends[1].id = Some(id);
                }
                Event::Closed { id, reason } => {
                    assert_eq!(self.ends[host].id, Some(id));
                    self.ends[host].closed = Some(reason);
                }
                _ => {}
            }
        }
    }

    /// A few calls of a random application.
    fn act(&mut self, host: usize, rng: &mut Rng) {
        let now = self.sim.instant();
        let stack = &mut self.sim.hosts[host];
        let end = &mut self.ends[host];
        let Some(id) = end.id else { return };
        let mut buf = vec![0; 1 + rng.below(20_000) as usize];
        if end.written < end.to_write {
            let len = (end.to_write - end.written).min(buf.len() as u64) as usize;
            for (i, b) in buf[..len].iter_mut().enumerate() {
                *b = byte(host, end.written + i as u64);
            }
            match stack.write(now, id, &buf[..len]) {
                Ok(n) => end.written += n as u64,
                Err(TcpError::WouldBlock) => {}
                Err(TcpError::Closed(reason)) => end.error = Some(reason),
                Err(error) => panic!("{error}"),
            }
        } else if !end.shut && end.closed.is_none() {
            end.shut = stack.shutdown_write(now, id).is_ok();
        }
        let len = 1 + rng.below(buf.len() as u64) as usize;
        match stack.read(now, id, &mut buf[..len]) {
            Ok(0) => end.eof = true,
            Ok(n) => {
                assert!(!end.eof, "data after the end");
                for (i, b) in buf[..n].iter().enumerate() {
                    assert_eq!(*b, byte(1 - host, end.read + i as u64));
                }
                end.read += n as u64;
            }
            Err(TcpError::WouldBlock) => {}
            Err(TcpError::Closed(reason)) => end.error = Some(reason),
            Err(error) => panic!("{error}"),
        }
        self.sim.pump(host);
    }

    fn done(&self) -> bool {
        self.ends.iter().all(|end| end.eof || end.error.is_some())
    }
}

fn run(seed: u64) {
    let mut pair = Pair::new(seed);
    let mut rng = Rng(seed ^ 0xabcd);
    let partition = rng.below(5) == 0;
    let partition_at = Duration::from_millis(rng.below(2000));
    let partition_for = Duration::from_millis(rng.below(20_000));
    while !pair.done() {
        if partition {
            let now = pair.sim.now;
            let cut = now >= partition_at && now < partition_at + partition_for;
            pair.sim.set_down(cut);
        }
        let nap = Duration::from_micros([10, 500, 20_000, 300_000][rng.below(4) as usize]);
        pair.sim.run_until(pair.sim.now + nap);
        pair.note_events();
        let host = rng.below(2) as usize;
        pair.act(host, &mut rng);
        if rng.below(50) == 0 {
            let peer = address(1 - host);
            let now = pair.sim.instant();
            pair.sim.hosts[host].path_changed(now, peer);
        }
        if rng.below(100) == 0 {
            // Whether or not it is true.
            let mtu = 1280 + rng.below(220) as u16;
            pair.sim.hosts[host].set_path_mtu(address(1 - host), mtu);
        }
        assert!(
            pair.sim.now < Duration::from_secs(3600),
            "seed {seed}: no end: {:?} {:?}",
            pair.sim.hosts[0].tcp_stats(pair.ends[0].id.unwrap()),
            pair.ends[1]
                .id
                .and_then(|id| pair.sim.hosts[1].tcp_stats(id)),
        );
    }
    let [a, b] = &pair.ends;
    if std::env::var_os("ADIT_VERBOSE").is_some() {
        println!(
            "{seed}: {:?} {} {} {:?} {:?}",
            pair.sim.now, a.read, b.read, a.error, b.error
        );
    }
    if a.error.is_none() && b.error.is_none() {
        assert_eq!((a.read, b.read), (b.to_write, a.to_write), "seed {seed}");
    }
    // Afterwards nothing is left and nothing moves.
    for host in 0..2 {
        let now = pair.sim.instant();
        if let Some(id) = pair.ends[host].id {
            pair.sim.hosts[host].close(now, id);
            pair.sim.pump(host);
        }
    }
    pair.sim.set_down(false);
    pair.sim.run_until(pair.sim.now + Duration::from_secs(900));
    for host in 0..2 {
        let stack = &pair.sim.hosts[host];
        assert_eq!(stack.socket_count(), 0, "seed {seed} host {host}");
        assert_eq!(stack.memory_used(), 0, "seed {seed} host {host}");
        assert_eq!(stack.poll_timeout(), None, "seed {seed} host {host}");
    }
}

#[test]
fn streams_arrive_in_order_once_and_complete() {
    let env = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(seed) = env("ADIT_SEED") {
        run(seed);
        return;
    }
    for seed in 0..env("ADIT_CASES").unwrap_or(200) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("failed with ADIT_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
