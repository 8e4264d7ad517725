//! Throughput and manners of transfers over a simulated bottleneck of
//! 100 Mbit/s. With the tunnel's overhead 90 Mbit/s of payload are possible.
//! `ADIT_TRACE=1` prints a line every 100 ms of virtual time.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use adit_netstack::CongestionControl;
use support::flows::{BBR, CUBIC, MBIT, Way, mbit, run, using};
use support::{LinkConfig, Sim};

fn sim(rtt: u64, loss: f64, queue: usize, seed: u64) -> Sim {
    Way::new(rtt, loss, queue).seed(seed).sim()
}

/// RTT, loss, queue, least Mbit/s.
const CASES: [(u64, f64, usize, f64); 15] = [
    (40, 0.0, 512, 87.0),
    (40, 0.001, 512, 85.0),
    (40, 0.01, 512, 80.0),
    (100, 0.0, 512, 82.0),
    (100, 0.005, 512, 75.0),
    (40, 0.0, 32, 74.0),
    (40, 0.001, 32, 72.0),
    (40, 0.01, 32, 68.0),
    (100, 0.0, 32, 70.0),
    (100, 0.005, 32, 64.0),
    (40, 0.0, 10_000, 87.0),
    (40, 0.001, 10_000, 85.0),
    (40, 0.01, 10_000, 80.0),
    (100, 0.0, 10_000, 82.0),
    (100, 0.005, 10_000, 70.0),
];

#[test]
fn one_flow_fills_the_link_whatever_its_loss_and_queue() {
    let slow: Vec<_> = CASES
        .into_iter()
        .filter(|&(rtt, loss, queue, least)| Way::new(rtt, loss, queue).goodput(BBR) < least)
        .collect();
    assert!(slow.is_empty(), "{slow:?}");
}

/// Late wake-ups let a flow believe in a little too much; the queue that it then
/// builds itself is nobody else's, and what a burst loses says little of the
/// volume that fits.
#[test]
fn a_flow_alone_on_a_long_link_yields_to_nobody() {
    for (loss, queue, least) in [(0.0, 512, 80.0), (0.005, 512, 76.0), (0.005, 32, 62.0)] {
        for seed in [2, 5, 7, 8] {
            let way = Way::new(100, loss, queue).seed(seed).slack(2000);
            let got = way.goodput(BBR);
            assert!(got > least, "{way:?}: {got}");
        }
    }
}

#[test]
fn cubic_fills_a_link_without_loss() {
    assert!(Way::new(40, 0.0, 512).goodput(CUBIC) >= 86.0);
    assert!(Way::new(100, 0.0, 512).goodput(CUBIC) >= 80.0);
    assert!(Way::new(40, 0.0, 32).goodput(CUBIC) >= 70.0);
    // The bound of any such flow is 1.22 · MSS / (RTT · √loss) = 9.4.
    assert!(Way::new(40, 0.001, 512).goodput(CUBIC) >= 9.0);
}

/// Median share of the first flow and median sum, of three runs.
fn shares(way: Way, flows: [CongestionControl; 2], later: u64) -> (f64, f64) {
    let mut runs = [5, 6, 7].map(|seed| way.seed(seed).share(flows, later));
    runs.sort_by(|a, b| a.1.total_cmp(&b.1));
    let sum = runs[1].1;
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    (runs[1].0, sum)
}

#[test]
fn two_flows_share_the_link() {
    for (rtt, queue, delay) in [
        (40, 512, 10),
        (40, 512, 2000),
        (40, 64, 10),
        (40, 32, 10),
        (40, 32, 2000),
        (40, 10_000, 2000),
        (20, 512, 2000),
    ] {
        let (part, sum) = shares(Way::new(rtt, 0.0, queue), [BBR, BBR], delay);
        assert!((0.35..=0.65).contains(&part), "{part}");
        // Where both see the other's queue, both may yield at once.
        let least = if queue == 64 { 77.0 } else { 80.0 };
        assert!(sum > least, "{sum}");
    }
}

#[test]
fn a_flow_leaves_room_for_cubic() {
    let mut crowded = Vec::new();
    for (queue, later) in [
        (32, 10),
        (32, 2000),
        (64, 2000),
        (128, 2000),
        (512, 10),
        (512, 2000),
        (10_000, 2000),
    ] {
        let (part, sum) = shares(Way::new(40, 0.0, queue), [BBR, CUBIC], later);
        assert!(part > 0.1, "{part}");
        assert!(sum > 80.0, "{sum}");
        if part > 0.7 {
            crowded.push((queue, later, part));
        }
    }
    assert!(crowded.is_empty(), "{crowded:?}");
}

#[test]
fn a_keystroke_beside_a_bulk_flow_is_not_delayed_much() {
    for queue in [512, 10_000] {
        let mut sim = sim(40, 0.0, queue, 3);
        let (from, to) = (sim.host(using(BBR)), sim.host(using(BBR)));
        sim.transfer(from, to, u64::MAX);
        sim.run_until(Duration::from_secs(2));
        let mut delays = Vec::new();
        for _ in 0..40 {
            sim.run_until(sim.now + Duration::from_millis(197));
            let start = sim.now;
            let ping = sim.transfer(from, to, 1);
            sim.run_while(start + Duration::from_secs(2), |s| {
                s.transfers[ping].read == 0
            });
            // SYN, SYN-ACK, data: one and a half round trips.
            delays.push(sim.now - start);
        }
        delays.sort();
        let median = delays[delays.len() / 2];
        println!(
            "queue {queue}: median {median:?}, worst {:?}",
            delays.last()
        );
        // At most one and a half round trips more.
        assert!(delays.iter().all(|d| *d <= Duration::from_millis(60 + 60)));
        assert!(median < Duration::from_millis(60 + 10), "{median:?}");
    }
}

#[test]
fn an_outage_is_overcome_as_soon_as_the_path_is_said_to_be_back() {
    let mut sim = sim(40, 0.0, 512, 1);
    let (from, to) = (sim.host(using(BBR)), sim.host(using(BBR)));
    let transfer = sim.transfer(from, to, u64::MAX);
    sim.run_until(Duration::from_secs(2));
    sim.set_down(true);
    sim.run_until(Duration::from_secs(7));
    sim.set_down(false);
    for (host, peer) in [(from, to), (to, from)] {
        let now = sim.instant();
        sim.hosts[host].path_changed(now, support::address(peer));
        sim.pump(host);
    }
    let before = sim.transfers[transfer].read;
    sim.run_until(Duration::from_millis(7100));
    assert!(
        sim.transfers[transfer].read > before,
        "data flows after two round trips"
    );
    sim.run_until(Duration::from_secs(10));
    let got = mbit(
        sim.transfers[transfer].read - before,
        Duration::from_secs(3),
    );
    assert!(got > 70.0, "{got}");
}

#[test]
fn buffers_grow_to_fill_a_long_fast_path() {
    let link = LinkConfig {
        rate: 1000 * MBIT,
        delay: Duration::from_millis(50),
        queue: 4000,
        ..LinkConfig::default()
    };
    let mut sim = Sim::new(5, link.clone(), link);
    let (from, to) = (sim.host(using(BBR)), sim.host(using(BBR)));
    let transfer = sim.transfer(from, to, u64::MAX);
    run(&mut sim, Duration::from_secs(3));
    let before = sim.transfers[transfer].read;
    run(&mut sim, Duration::from_secs(5));
    let got = mbit(
        sim.transfers[transfer].read - before,
        Duration::from_secs(2),
    );
    println!(
        "{got:.0} Mbit/s, {} bytes of budget",
        sim.hosts[to].memory_used()
    );
    assert!(got > 800.0, "{got}");
}

#[test]
fn an_outage_nobody_tells_of_is_overcome_by_retransmission() {
    let mut sim = sim(40, 0.0, 512, 1);
    let (from, to) = (sim.host(using(BBR)), sim.host(using(BBR)));
    let transfer = sim.transfer(from, to, u64::MAX);
    sim.run_until(Duration::from_secs(2));
    sim.set_down(true);
    sim.run_until(Duration::from_millis(2800));
    sim.set_down(false);
    sim.run_until(Duration::from_millis(4800));
    let before = sim.transfers[transfer].read;
    sim.run_until(Duration::from_millis(6800));
    let got = mbit(
        sim.transfers[transfer].read - before,
        Duration::from_secs(2),
    );
    assert!(got > 80.0, "{got}");
}

#[test]
fn late_wake_ups_cost_little() {
    for (rate, rtt_us, queue, least) in [
        (100, 40_000, 512, 85.0),
        (100, 40_000, 32, 70.0),
        (1000, 200, 2000, 800.0),
        (2500, 100, 5000, 1800.0),
        (100, 20_000, 512, 60.0),
    ] {
        let slacks = if rtt_us == 20_000 {
            [8000, 20_000]
        } else {
            [200, 2000]
        };
        for slack in slacks {
            let link = LinkConfig {
                rate: rate * MBIT,
                delay: Duration::from_micros(rtt_us / 2),
                queue,
                ..LinkConfig::default()
            };
            let mut sim = Sim::new(5, link.clone(), link);
            sim.slack = Duration::from_micros(slack);
            let (from, to) = (sim.host(using(BBR)), sim.host(using(BBR)));
            let transfer = sim.transfer(from, to, u64::MAX);
            run(&mut sim, Duration::from_millis(500));
            let before = sim.transfers[transfer].read;
            let time = Duration::from_secs(2);
            run(&mut sim, Duration::from_millis(500) + time);
            let got = mbit(sim.transfers[transfer].read - before, time);
            println!(
                "{rate} Mbit/s, {rtt_us} us, up to {slack} us late: {got:.0} Mbit/s {:?}",
                sim.drops()
            );
            assert!(got > least, "{got}");
        }
    }
}

#[test]
fn an_idle_connection_sleeps_for_hours_and_holds_no_buffers() {
    let mut sim = sim(40, 0.001, 512, 4);
    let (from, to) = (sim.host(using(BBR)), sim.host(using(BBR)));
    let transfer = sim.transfer(from, to, u64::MAX);
    sim.transfers[transfer].limit = 20_000_000;
    sim.run_until(Duration::from_secs(60));
    assert_eq!(sim.transfers[transfer].read, 20_000_000);
    let steps = sim.steps;
    sim.run_until(sim.now + Duration::from_secs(3600));
    for host in [from, to] {
        assert_eq!(sim.hosts[host].socket_count(), 1);
        assert_eq!(sim.hosts[host].memory_used(), 0);
    }
    assert!(
        sim.steps - steps <= 4,
        "{} wake-ups in an hour",
        sim.steps - steps
    );
}

#[test]
fn a_thousand_connections_leave_nothing_behind() {
    let mut sim = sim(10, 0.001, 512, 4);
    let (from, to) = (sim.host(using(BBR)), sim.host(using(BBR)));
    for round in 0..10 {
        for _ in 0..100 {
            sim.transfer(from, to, 20_000);
        }
        let done = sim.run_while(sim.now + Duration::from_secs(30), |s| {
            s.transfers.iter().any(|t| !t.fin_seen)
        });
        assert!(done, "round {round}");
        assert!(sim.transfers.iter().all(|t| t.read == 20_000));
    }
    sim.run_until(sim.now + Duration::from_secs(100));
    for host in [from, to] {
        assert_eq!(sim.hosts[host].socket_count(), 0);
        assert_eq!(sim.hosts[host].memory_used(), 0);
        assert_eq!(sim.hosts[host].poll_timeout(), None);
    }
}

#[test]
fn a_slow_way_back_for_acknowledgements_costs_little() {
    let there = LinkConfig {
        rate: 100 * MBIT,
        delay: Duration::from_millis(20),
        ..LinkConfig::default()
    };
    let mut back = there.clone();
    back.rate = 2 * MBIT;
    back.queue = 100;
    let mut sim = Sim::new(5, there, back);
    let (from, to) = (sim.host(using(BBR)), sim.host(using(BBR)));
    let transfer = sim.transfer(from, to, u64::MAX);
    run(&mut sim, Duration::from_secs(10));
    let got = mbit(sim.transfers[transfer].read, Duration::from_secs(10));
    println!("{got:.1} Mbit/s");
    assert!(got > 70.0, "{got}");
}

/// A run in which the first flight times out.
#[test]
fn a_bad_start_is_made_good() {
    assert!(Way::new(100, 0.005, 512).seed(14).goodput(BBR) > 70.0);
}

#[test]
fn duplicates_and_reordering_cost_little() {
    for congestion in [BBR, CUBIC] {
        let link = LinkConfig {
            rate: 100 * MBIT,
            delay: Duration::from_millis(10),
            loss: if congestion == BBR { 0.01 } else { 0.0 },
            duplicate: 0.01,
            reorder: 0.02,
            reorder_by: Duration::from_millis(5),
            ..LinkConfig::default()
        };
        let mut sim = Sim::new(5, link.clone(), link);
        let (from, to) = (sim.host(using(congestion)), sim.host(using(congestion)));
        let transfer = sim.transfer(from, to, u64::MAX);
        let time = Duration::from_secs(5);
        run(&mut sim, time);
        let got = mbit(sim.transfers[transfer].read, time);
        println!("{congestion:?}: {got:.1} Mbit/s");
        assert!(got > 60.0, "{got}");
    }
}
