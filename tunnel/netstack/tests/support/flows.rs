//! One flow, or two, over a simulated link of 100 Mbit/s.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use adit_netstack::{CongestionControl, StackConfig};

use super::{LinkConfig, Sim};

pub(crate) const MBIT: u64 = 1_000_000;
pub(crate) const BBR: CongestionControl = CongestionControl::Bbr;
pub(crate) const CUBIC: CongestionControl = CongestionControl::Cubic;

/// Between runs of the state printed by a trace.
const TRACE: Duration = Duration::from_millis(100);

/// A path of 100 Mbit/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Way {
    /// Round trip in milliseconds.
    pub(crate) rtt: u64,
    /// Part of the packets lost each way.
    pub(crate) loss: f64,
    /// Packets that may wait for the bottleneck.
    pub(crate) queue: usize,
    pub(crate) seed: u64,
    /// Microseconds that hosts wake up late at most.
    pub(crate) slack: u64,
}

impl Way {
    pub(crate) fn new(rtt: u64, loss: f64, queue: usize) -> Self {
        Self {
            rtt,
            loss,
            queue,
            seed: 1,
            slack: 0,
        }
    }

    pub(crate) fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    pub(crate) fn slack(self, slack: u64) -> Self {
        Self { slack, ..self }
    }

    pub(crate) fn sim(self) -> Sim {
        let link = LinkConfig {
            rate: 100 * MBIT,
            delay: Duration::from_micros(self.rtt * 500),
            loss: self.loss,
            queue: self.queue,
            ..LinkConfig::default()
        };
        let mut sim = Sim::new(self.seed, link.clone(), link);
        sim.slack = Duration::from_micros(self.slack);
        sim
    }

    /// Mbit/s of payload that one flow gets in ten seconds from its SYN.
    pub(crate) fn goodput(self, congestion: CongestionControl) -> f64 {
        let mut sim = self.sim();
        let from = sim.host(using(congestion));
        let to = sim.host(using(congestion));
        let transfer = sim.transfer(from, to, u64::MAX);
        let time = Duration::from_secs(10);
        run(&mut sim, time);
        let got = mbit(sim.transfers[transfer].read, time);
        println!("{congestion:?}, {self:?}: {got:.1} Mbit/s");
        got
    }

    /// Part of the payload that the first of two flows gets, and Mbit/s of both,
    /// over twenty seconds that begin ten seconds after the first flow. The
    /// second begins `later` milliseconds after the first.
    pub(crate) fn share(self, flows: [CongestionControl; 2], later: u64) -> (f64, f64) {
        let mut sim = self.sim();
        let hosts = flows.map(|flow| [(); 2].map(|()| sim.host(using(flow))));
        sim.transfer(hosts[0][0], hosts[0][1], u64::MAX);
        run(&mut sim, Duration::from_millis(later));
        sim.transfer(hosts[1][0], hosts[1][1], u64::MAX);
        let settled = Duration::from_secs(10);
        run(&mut sim, settled);
        let before: Vec<u64> = sim.transfers.iter().map(|t| t.read).collect();
        let time = Duration::from_secs(20);
        run(&mut sim, settled + time);
        let got: Vec<f64> = sim
            .transfers
            .iter()
            .zip(before)
            .map(|(t, before)| mbit(t.read - before, time))
            .collect();
        let part = got[0] / (got[0] + got[1]);
        println!("{flows:?}, {self:?}, {later} ms later: {part:.2} of {got:.1?}");
        (part, got[0] + got[1])
    }
}

pub(crate) fn using(congestion: CongestionControl) -> impl Fn(&mut StackConfig) {
    move |config| config.tcp.congestion = congestion
}

pub(crate) fn mbit(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / time.as_secs_f64() / 1e6
}

/// Runs until a time; with `ADIT_TRACE` set, prints what the senders know every
/// 100 ms.
pub(crate) fn run(sim: &mut Sim, until: Duration) {
    if std::env::var_os("ADIT_TRACE").is_some() {
        let mut since: Vec<u64> = sim.transfers.iter().map(|t| t.read).collect();
        while sim.now < until {
            sim.run_until(until.min(sim.now + TRACE));
            trace(sim, &mut since);
        }
    }
    sim.run_until(until);
}

fn trace(sim: &Sim, since: &mut [u64]) {
    for (transfer, since) in sim.transfers.iter().zip(since) {
        let Some(id) = transfer.sender else { continue };
        let s = sim.hosts[transfer.from].tcp_stats(id).unwrap();
        println!(
            "{:7.1?} {:6.1} Mbit/s cwnd {:7} flight {:7} paced {:6.1} rate {:6.1} rtt {:.1?}/{:.1?} \
             repeats {} timeouts {} probes {} spurious {} queued {} drops {:?}",
            sim.now,
            mbit(transfer.read - *since, TRACE),
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
            s.send_queued,
            sim.drops(),
        );
        *since = transfer.read;
    }
}
