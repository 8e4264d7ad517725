//! Scripts for acknowledgements, loss recovery and windows.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use adit_netstack::{CloseReason, CongestionControl, Event, TcpError};
use support::wire::{PEER, Script, Seg};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);
const MSS: u32 = 1208;

/// A connection with a measured RTT of 50 ms, past its first quick answers.
fn warmed(script: Script) -> Script {
    let mut s = script;
    s.write(1);
    s.expect();
    s.now += 50 * MS;
    s.inject(&s.seg(".", 1, 2));
    s
}

fn paceless(c: &mut adit_netstack::StackConfig) {
    c.tcp.pacing = false;
    c.tcp.congestion = CongestionControl::Cubic;
}

fn unpaced() -> Script {
    let mut s = Script::with(paceless);
    s.open(&s.syn());
    warmed(s)
}

/// Sends `count` full segments, all at once, from offset 2.
fn flight(s: &mut Script, count: u32) {
    s.write((count * MSS) as usize);
    let sent = s.drain();
    let offsets: Vec<u32> = sent.iter().map(|seg| s.relative(seg).0).collect();
    let expected: Vec<u32> = (0..count).map(|i| 2 + i * MSS).collect();
    assert_eq!(offsets, expected);
}

fn sack(s: &Script, ack: u32, blocks: &[(u32, u32)]) -> Seg {
    let absolute = |n: u32| s.iss.wrapping_add(n);
    Seg {
        sacks: blocks
            .iter()
            .map(|&(l, r)| (absolute(l), absolute(r)))
            .collect(),
        ..s.seg(".", 1, ack)
    }
}

#[test]
fn early_segments_are_acknowledged_at_once_and_later_ones_in_pairs() {
    let mut s = Script::established();
    let mut at = 1;
    for _ in 0..16 {
        s.inject(&s.data(at, 1, 100));
        at += 100;
        assert_eq!(s.expect_at(), (1, at));
    }
    s.inject(&s.data(at, 1, 100));
    at += 100;
    let (after, ack) = s.expect_within(SEC);
    assert_eq!((after, s.relative(&ack).1), (5 * MS, at));
    for _ in 0..4 {
        s.inject(&s.data(at, 1, 1208));
        s.inject(&s.data(at + 1208, 1, 1208));
        at += 2416;
        assert_eq!(s.expect_at(), (1, at));
        s.quiet(20 * MS);
    }
}

#[test]
fn a_batch_is_answered_once() {
    let mut s = Script::established();
    for i in 0..10 {
        s.inject(&s.data(1 + i * 1000, 1, 1000));
    }
    assert_eq!(s.expect_at(), (1, 10_001));
    s.quiet(SEC);
}

#[test]
fn data_carries_the_acknowledgement() {
    let mut s = Script::established();
    s.inject(&s.data(1, 1, 10));
    s.write(10);
    let seg = s.expect();
    assert_eq!((seg.data.len(), s.relative(&seg)), (10, (1, 11)));
    s.quiet(100 * MS);
}

#[test]
fn gaps_are_reported_most_recent_first() {
    let mut s = Script::established();
    let mut report = |at: u32| {
        s.inject(&s.data(at, 1, 100));
        let ack = s.expect();
        assert_eq!(s.relative(&ack), (1, 1));
        s.sacks(&ack)
    };
    assert_eq!(report(201), [(201, 301)]);
    assert_eq!(report(401), [(401, 501), (201, 301)]);
    assert_eq!(report(301), [(201, 501)]);
    assert_eq!(report(701), [(701, 801), (201, 501)]);
    assert_eq!(report(901), [(901, 1001), (701, 801), (201, 501)]);
    assert_eq!(report(1101).len(), 3);
    // The gap closes: acknowledged at once, up to the next one.
    s.inject(&s.data(1, 1, 200));
    let ack = s.expect();
    assert_eq!(s.relative(&ack), (1, 501));
    assert_eq!(s.read().len(), 500);
}

#[test]
fn every_range_of_a_batch_is_reported() {
    let mut s = Script::established();
    for i in 0..10 {
        s.inject(&s.data(201 + 200 * i, 1, 100));
    }
    let acks = s.drain();
    assert_eq!(acks.len(), 4);
    let mut told: Vec<(u32, u32)> = acks.iter().flat_map(|ack| s.sacks(ack)).collect();
    assert_eq!(told[0], (2001, 2101), "the latest first");
    told.sort_unstable();
    told.dedup();
    let all: Vec<(u32, u32)> = (0..10).map(|i| (201 + 200 * i, 301 + 200 * i)).collect();
    assert_eq!(told, all);
    s.quiet(SEC);
}

#[test]
fn duplicates_are_reported() {
    let mut s = Script::established();
    s.inject(&s.data(1, 1, 100));
    s.expect();
    s.inject(&s.data(1, 1, 100));
    let ack = s.expect();
    assert_eq!((s.relative(&ack).1, s.sacks(&ack)), (101, vec![(1, 101)]));
    s.inject(&s.data(301, 1, 100));
    s.expect();
    s.inject(&s.data(301, 1, 100));
    let ack = s.expect();
    assert_eq!(s.sacks(&ack), [(301, 401), (301, 401)]);
}

#[test]
fn an_overlapping_segment_adds_what_is_new() {
    let mut s = Script::established();
    s.inject(&s.data(1, 1, 100));
    s.inject(&s.data(51, 1, 100));
    assert_eq!(s.expect_at(), (1, 151));
    assert_eq!(s.read().len(), 150);
}

#[test]
fn old_timestamps_are_refused() {
    let mut s = Script::established();
    s.now += SEC;
    s.inject(&s.data(1, 1, 10));
    s.expect();
    s.inject(&Seg {
        ts: Some((500, s.last_value)),
        ..s.data(11, 1, 10)
    });
    assert_eq!(s.expect_at(), (1, 11));
    assert_eq!(s.read().len(), 10);
}

#[test]
fn the_timeout_starts_at_a_second_floors_at_200_ms_and_doubles() {
    let mut s = Script::new();
    // No sample: the answer to the SYN was repeated.
    s.inject(&s.syn());
    let events = s.events();
    let [Event::Incoming { id, .. }] = events[..] else {
        panic!()
    };
    let now = s.instant();
    s.stack.accept(now, id).unwrap();
    s.iss = s.expect().seq;
    s.expect_within(SEC);
    s.inject(&s.seg(".", 1, 1));
    s.id = Some(id);
    s.write(10);
    s.expect();
    assert!(s.expect_within(9 * SEC).0 >= SEC);

    let mut s = Script::plain();
    s.write(10);
    s.expect();
    s.now += 10 * MS;
    s.inject(&s.seg(".", 1, 11));
    s.write(10);
    s.expect();
    for wait in [200, 400, 800, 1600] {
        let (after, again) = s.expect_within(9 * SEC);
        assert_eq!((after, s.relative(&again).0), (wait * MS, 11));
    }
    s.inject(&s.seg(".", 1, 21));
    s.write(10);
    s.expect();
    assert_eq!(s.expect_within(9 * SEC).0, 200 * MS);
}

#[test]
fn a_silent_peer_ends_the_connection() {
    let mut s = warmed(Script::established());
    s.write(10);
    s.expect();
    let mut sent = 0;
    loop {
        let (_, seg) = s.expect_within(100 * SEC);
        if seg.flags == "R." {
            break;
        }
        sent += 1;
        assert!(sent < 50);
    }
    assert!(s.now > 300 * SEC && s.now < 330 * SEC, "{:?}", s.now);
    let id = s.id();
    assert!(s.events().contains(&Event::Closed {
        id,
        reason: CloseReason::TimedOut
    }));
    let now = s.instant();
    assert_eq!(
        s.stack.write(now, id, b"x"),
        Err(TcpError::Closed(CloseReason::TimedOut))
    );
}

#[test]
fn three_segments_reported_beyond_a_gap_repeat_it() {
    let mut s = unpaced();
    flight(&mut s, 6);
    s.now += 50 * MS;
    let end = 2 + 4 * MSS;
    s.inject(&sack(&s, 2, &[(2 + MSS, end)]));
    let again = s.expect();
    assert_eq!((s.relative(&again).0, again.data.len()), (2, MSS as usize));
    s.quiet(10 * MS);
}

#[test]
fn one_segment_reported_beyond_a_gap_repeats_it_a_quarter_rtt_later() {
    let mut s = unpaced();
    flight(&mut s, 2);
    s.now += 50 * MS;
    s.inject(&sack(&s, 2, &[(2 + MSS, 2 + 2 * MSS)]));
    let (after, again) = s.expect_within(SEC);
    assert_eq!(s.relative(&again).0, 2);
    assert!(after > 10 * MS && after < 20 * MS, "{after:?}");
}

#[test]
fn a_lost_repetition_is_repeated_without_a_timeout() {
    let mut s = unpaced();
    flight(&mut s, 5);
    s.now += 50 * MS;
    s.inject(&sack(&s, 2, &[(2 + MSS, 2 + 5 * MSS)]));
    assert_eq!(s.expect_at().0, 2);
    // New data sent after the repetition is delivered, the repetition not.
    s.write(4 * MSS as usize);
    let new = s.drain();
    assert!(!new.is_empty());
    s.now += 50 * MS;
    let right = 2 + 5 * MSS + new.len() as u32 * MSS;
    s.inject(&sack(&s, 2, &[(2 + MSS, right)]));
    let again = s.drain();
    assert_eq!(s.relative(&again[0]).0, 2);
    assert_eq!(s.stack.tcp_stats(s.id()).unwrap().timeouts, 0);
}

#[test]
fn reordering_is_learnt() {
    let mut s = unpaced();
    for round in 0..20u32 {
        s.write(2 * MSS as usize);
        let sent = s.drain();
        let start = s.relative(&sent[0]).0;
        s.now += 50 * MS;
        s.inject(&sack(&s, start, &[(start + MSS, start + 2 * MSS)]));
        s.quiet(5 * MS);
        s.inject(&s.seg(".", 1, start + 2 * MSS));
        assert!(round > 0 || s.drain().is_empty());
    }
    assert_eq!(s.stack.tcp_stats(s.id()).unwrap().retransmits, 0);
}

#[test]
fn the_tail_is_probed_after_two_rtts() {
    let mut s = unpaced();
    flight(&mut s, 3);
    let (after, probe) = s.expect_within(SEC);
    assert_eq!(s.relative(&probe).0, 2 + 2 * MSS);
    assert!(after >= 60 * MS && after <= 110 * MS, "{after:?}");
    s.now += 50 * MS;
    // The probe shows that the two before it are lost.
    s.inject(&sack(&s, 2, &[(2 + 2 * MSS, 2 + 3 * MSS)]));
    assert_eq!(s.expect_at().0, 2);
    s.now += 50 * MS;
    s.inject(&sack(&s, 2 + MSS, &[(2 + 2 * MSS, 2 + 3 * MSS)]));
    assert_eq!(s.expect_at().0, 2 + MSS);
    let stats = s.stack.tcp_stats(s.id()).unwrap();
    assert_eq!((stats.timeouts, stats.tail_probes), (0, 1));
}

#[test]
fn a_tail_probe_prefers_new_data() {
    let mut s = unpaced();
    // The window lets nothing more pass than the first ten.
    s.write(20 * MSS as usize);
    let sent = s.drain();
    assert_eq!(sent.len(), 10);
    let (_, probe) = s.expect_within(SEC);
    assert_eq!(s.relative(&probe).0, 2 + 10 * MSS);
}

#[test]
fn three_duplicates_repeat_without_sack() {
    let mut s = Script::with(paceless);
    s.timestamps = false;
    let syn = Seg {
        sack_ok: false,
        ..s.syn()
    };
    s.open(&syn);
    let mut s = warmed(s);
    s.write(8 * 1220);
    assert_eq!(s.drain().len(), 8);
    s.now += 50 * MS;
    s.inject(&s.seg(".", 1, 2));
    s.inject(&s.seg(".", 1, 2));
    s.quiet(10 * MS);
    s.inject(&s.seg(".", 1, 2));
    assert_eq!(s.expect_at().0, 2);
    // A partial acknowledgement repeats the next (RFC 6582).
    s.inject(&s.seg(".", 1, 2 + 3 * 1220));
    assert_eq!(s.expect_at().0, 2 + 3 * 1220);
    s.inject(&s.seg(".", 1, 2 + 8 * 1220));
    s.quiet(150 * MS);
}

#[test]
fn after_a_spurious_timeout_nothing_more_is_repeated() {
    let mut s = unpaced();
    flight(&mut s, 8);
    let stamp = s.last_value;
    // Tail probe, then the timeout.
    let mut all = Vec::new();
    while s.stack.tcp_stats(s.id()).unwrap().timeouts == 0 {
        all.push(s.expect_within(SEC).1);
    }
    s.drain();
    s.now += 5 * MS;
    // The acknowledgement of the original flight was only late.
    s.inject(&Seg {
        ts: Some((s.peer_ts(), stamp)),
        ..s.seg(".", 1, 2 + 4 * MSS)
    });
    let stats = s.stack.tcp_stats(s.id()).unwrap();
    assert!(stats.cwnd >= 8 * MSS as usize, "{stats:?}");
    s.quiet(20 * MS);
}

#[test]
fn a_reneging_peer_gets_everything_again() {
    let mut s = unpaced();
    flight(&mut s, 4);
    s.now += 50 * MS;
    s.inject(&sack(&s, 2, &[(2, 2 + 4 * MSS)]));
    // Everything was reported, but never acknowledged.
    let (_, again) = s.expect_within(3 * SEC);
    assert_eq!(s.relative(&again).0, 2);
    s.inject(&s.seg(".", 1, 2 + MSS));
    let offsets: Vec<u32> = s.drain().iter().map(|x| s.relative(x).0).collect();
    assert_eq!(offsets[0], 2 + MSS);
}

#[test]
fn a_closed_window_is_probed() {
    let mut s = warmed(Script::established());
    s.inject(&Seg {
        win: 0,
        ..s.seg(".", 1, 2)
    });
    s.write(100);
    let mut last = Duration::ZERO;
    for _ in 0..6 {
        let (after, probe) = s.expect_within(100 * SEC);
        assert_eq!((probe.data.len(), s.relative(&probe).0), (0, 1));
        assert!(after >= 200 * MS && after >= last, "{after:?}");
        last = after;
        s.inject(&Seg {
            win: 0,
            ..s.seg(".", 1, 2)
        });
    }
    s.inject(&s.seg(".", 1, 2));
    assert_eq!(s.expect().data.len(), 100);
}

#[test]
fn a_window_too_small_for_a_segment_is_used_after_a_while() {
    let mut s = warmed(Script::established());
    s.inject(&Seg {
        win: 100,
        ..s.seg(".", 1, 2)
    });
    s.write(5000);
    let (after, seg) = s.expect_within(SEC);
    assert_eq!(seg.data.len(), 100);
    assert!(after >= 200 * MS);
}

#[test]
fn the_own_window_closes_and_opens_again() {
    let mut s = Script::established();
    let mut at = 1;
    loop {
        s.inject(&s.data(at, 1, 1208));
        at += 1208;
        let acks = s.drain();
        if let Some(ack) = acks.last() {
            let edge = s.relative(ack).1 + u32::from(ack.win) * 512;
            assert!(edge <= 65_537 + 512);
            if s.relative(ack).1 + 1208 > edge {
                break;
            }
        }
        assert!(at < 100_000);
    }
    s.drain();
    // Beyond the window: cut off and answered.
    s.inject(&s.data(at, 1, 1208));
    let ack = s.drain().pop().unwrap();
    let (next, left) = (s.relative(&ack).1, u32::from(ack.win) * 512);
    assert!(left < 1208);
    s.inject(&s.data(next + left, 1, 100));
    let answer = s.drain().pop().unwrap();
    assert_eq!(s.relative(&answer).1, next);
    s.now += 100 * MS;
    assert_eq!(s.read().len() as u32, next - 1);
    let update = s.expect();
    assert!(u32::from(update.win) * 512 >= 60_000);
}

#[test]
fn the_window_grows_with_demand_and_shrinks_when_idle() {
    let mut s = warmed(Script::established());
    let mut at = 1;
    for _ in 0..40 {
        for _ in 0..20 {
            s.inject(&s.data(at, 2, 1208));
            at += 1208;
            s.read();
        }
        s.drain();
        s.now += 50 * MS;
    }
    let grown = s.stack.tcp_stats(s.id()).unwrap().recv_buffer;
    assert!(grown > 65_536, "{grown}");
    assert!(s.stack.memory_used() > 0);
    s.next_packet(10 * SEC);
    assert_eq!(s.stack.memory_used(), 0);
}

#[test]
fn half_a_segment_may_be_acknowledged() {
    let mut s = unpaced();
    flight(&mut s, 2);
    s.now += 50 * MS;
    s.inject(&s.seg(".", 1, 2 + 600));
    let first = loop {
        let (_, seg) = s.expect_within(SEC);
        if s.relative(&seg).0 == 602 {
            break seg;
        }
    };
    assert_eq!(first.data.len(), 608);
    assert_eq!(first.data[0], (600 % 256) as u8);
}

#[test]
fn a_changed_path_ends_the_back_off() {
    let mut s = warmed(Script::established());
    s.write(10);
    s.expect();
    for _ in 0..6 {
        s.expect_within(100 * SEC);
    }
    s.quiet(MS);
    let now = s.instant();
    s.stack.path_changed(now, PEER);
    assert_eq!(s.expect_within(MS).1.data.len(), 10);
}

/// A connection of a peer that can receive packets of 1400 bytes.
fn roomy() -> Script {
    let mut s = Script::with(paceless);
    let syn = Seg {
        mss: Some(1340),
        ..s.syn()
    };
    s.open(&syn);
    warmed(s)
}

fn sizes(s: &mut Script) -> Vec<usize> {
    s.drain().iter().map(|x| x.data.len()).collect()
}

#[test]
fn segments_follow_the_path_mtu_up_and_down() {
    let mut s = roomy();
    s.write(2 * 1208);
    assert_eq!(sizes(&mut s), [1208; 2]);
    s.stack.set_path_mtu(PEER, 1400);
    s.write(4 * 1328);
    assert_eq!(sizes(&mut s), [1328; 4]);
    // No further than the peer can take.
    s.stack.set_path_mtu(PEER, 1480);
    s.inject(&s.seg(".", 1, 2 + 2 * 1208));
    s.write(2 * 1328);
    assert_eq!(sizes(&mut s), [1328; 2]);
    s.stack.set_path_mtu(PEER, 1280);
    // What is in flight may still arrive: nothing is repeated at once.
    assert!(s.drain().is_empty());
    let from = 2 + 2 * 1208;
    s.inject(&s.seg(".", 1, from + 1328));
    s.write(2 * 1208);
    assert_eq!(sizes(&mut s), [1208; 2]);
    // It was lost: what is repeated fits, and leaves nothing out.
    let mut got = std::collections::BTreeMap::new();
    for _ in 0..20 {
        s.now += 50 * MS;
        let now = s.instant();
        s.stack.handle_timeout(now);
        for seg in s.drain() {
            assert!(seg.data.len() <= 1208);
            got.insert(s.relative(&seg).0, seg.data.len() as u32);
        }
        let mut ack = from + 1328;
        while let Some(len) = got.get(&ack) {
            ack += len;
        }
        s.inject(&s.seg(".", 1, ack));
    }
    let end: u32 = got.iter().next_back().map(|(at, len)| at + len).unwrap();
    assert_eq!(end, from + 6 * 1328 + 2 * 1208);
    assert_eq!(s.stack.tcp_stats(s.id()).unwrap().send_queued, 0);
}

#[test]
fn a_packet_reported_as_too_big_is_repeated_at_once_in_smaller_ones() {
    let mut s = roomy();
    s.stack.set_path_mtu(PEER, 1400);
    s.write(2 * 1328);
    assert_eq!(sizes(&mut s), [1328; 2]);
    let cwnd = s.stack.tcp_stats(s.id()).unwrap().cwnd;
    s.too_big(1300);
    assert_eq!(sizes(&mut s), [1228, 100, 1228, 100]);
    assert_eq!(s.stack.tcp_stats(s.id()).unwrap().cwnd, cwnd);
}

#[test]
fn large_packets_that_vanish_are_given_up_after_two_timeouts() {
    let mut s = roomy();
    s.stack.set_path_mtu(PEER, 1400);
    s.write(1328);
    assert_eq!(s.expect().data.len(), 1328);
    let mut tries = Vec::new();
    for _ in 0..3 {
        tries.push(s.expect_within(5 * SEC).1.data.len());
    }
    // A probe of the tail, a timeout, another one.
    assert_eq!(tries, [1328, 1328, 1208]);
    assert_eq!(s.expect().data.len(), 120);
    s.inject(&s.seg(".", 1, 2 + 1328));
    // The path proves itself again.
    s.stack.set_path_mtu(PEER, 1400);
    s.write(1328);
    assert_eq!(s.expect_within(SEC).1.data.len(), 1328);
}

#[test]
fn a_tiny_mss_is_not_obeyed_below_the_minimum() {
    let mut s = Script::new();
    s.open(&Seg {
        mss: Some(1),
        ..s.syn()
    });
    s.write(1000);
    assert!(s.drain().iter().all(|x| x.data.len() >= 100));
}
