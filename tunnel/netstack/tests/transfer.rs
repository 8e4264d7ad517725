//! Throughput and behaviour of transfers over a simulated bottleneck.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use adit_netstack::CongestionControl;
use support::{LinkConfig, Sim};

const MBIT: u64 = 1_000_000;

fn link(rtt_ms: u64, loss: f64, queue: usize) -> (LinkConfig, LinkConfig) {
    let forward = LinkConfig {
        rate: 100 * MBIT,
        delay: Duration::from_micros(rtt_ms * 500),
        loss,
        queue,
        ..LinkConfig::default()
    };
    let back = LinkConfig {
        loss,
        ..forward.clone()
    };
    (forward, back)
}

/// Mbit/s of payload that one flow gets in ten seconds.
fn goodput(cc: CongestionControl, rtt_ms: u64, loss: f64, queue: usize, seed: u64) -> f64 {
    let (forward, back) = link(rtt_ms, loss, queue);
    let mut sim = Sim::new(seed, forward, back);
    let a = sim.host(|c| c.tcp.congestion = cc);
    let b = sim.host(|c| c.tcp.congestion = cc);
    let t = sim.transfer(a, b, u64::MAX);
    let mut last = 0;
    if std::env::var_os("ADIT_TRACE").is_some() {
        for tenth in 1..100 {
            sim.run_until(Duration::from_millis(100 * tenth));
            let s = sim.hosts[a]
                .tcp_stats(sim.transfers[t].sender.unwrap())
                .unwrap();
            let r = sim.transfers[t].read;
            println!(
                "{:4} {:6.1} Mbit/s cwnd {:7} flight {:7} rate {:9.1} bw {:6.1} srtt {:?} min {:?} rtx {} rto {} tlp {} spur {} rbuf {} unsent {} {:?}",
                tenth * 100,
                (r - last) as f64 * 8.0 / 1e5,
                s.cwnd,
                s.in_flight,
                s.pacing_rate as f64 * 8e-6,
                s.delivery_rate as f64 * 8e-6,
                s.srtt,
                s.min_rtt,
                s.retransmits,
                s.timeouts,
                s.tail_probes,
                s.spurious,
                s.recv_buffer,
                s.send_queued,
                sim.drops()
            );
            last = r;
        }
    }
    sim.run_until(Duration::from_secs(10));
    sim.transfers[t].read as f64 * 8.0 / 10.0 / 1e6
}

#[test]
fn table() {
    for cc in [CongestionControl::Bbr, CongestionControl::Cubic] {
        for (rtt, loss, queue) in [
            (40, 0.0, 512),
            (40, 0.001, 512),
            (40, 0.01, 512),
            (40, 0.0, 32),
            (40, 0.001, 32),
            (40, 0.01, 32),
            (40, 0.0, 10_000),
            (40, 0.001, 10_000),
            (40, 0.01, 10_000),
            (100, 0.0, 512),
            (100, 0.005, 512),
            (100, 0.0, 32),
            (100, 0.005, 32),
            (100, 0.0, 10_000),
            (100, 0.005, 10_000),
        ] {
            let got: Vec<String> = (1..4)
                .map(|seed| format!("{:.1}", goodput(cc, rtt, loss, queue, seed)))
                .collect();
            println!("{cc:?} {rtt} ms {loss} queue {queue}: {got:?}");
        }
    }
}

#[test]
fn one() {
    let env = |n: &str, d: f64| {
        std::env::var(n)
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(d)
    };
    let cc = if env("CUBIC", 0.0) > 0.0 {
        CongestionControl::Cubic
    } else {
        CongestionControl::Bbr
    };
    println!(
        "{:.1}",
        goodput(
            cc,
            env("RTT", 40.0) as u64,
            env("LOSS", 0.0),
            env("QUEUE", 512.0) as usize,
            env("SEED", 1.0) as u64
        )
    );
}
