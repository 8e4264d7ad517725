//! Hostile packets: no panic, no endless answering, bounded memory.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddrV6;
use std::time::Duration;

use adit_netstack::{Event, SocketId, Stack};
use support::Rng;
use support::wire::{OWN, PEER, Script, Seg, packet};

const FLAGS: [&str; 10] = ["S", "S.", ".", "F.", "R", "R.", "P.", "", "FSRP.", "F"];

fn near(rng: &mut Rng, around: u32) -> u32 {
    match rng.below(4) {
        0 => around,
        1 => around.wrapping_add(rng.below(3000) as u32),
        2 => around.wrapping_sub(rng.below(3000) as u32),
        _ => around.wrapping_add(rng.next() as u32),
    }
}

/// A segment that is nearly right for the flow of the script.
fn segment(script: &Script, rng: &mut Rng) -> Seg {
    let mut seg = Seg {
        flags: FLAGS[rng.below(FLAGS.len() as u64) as usize],
        sport: script.peer_port + rng.below(3) as u16,
        dport: script.own_port + rng.below(2) as u16,
        seq: near(rng, script.irs.wrapping_add(1)),
        ack: near(rng, script.iss.wrapping_add(1)),
        win: [0, 1, 65_535, rng.next() as u16][rng.below(4) as usize],
        data: vec![1; [0, 0, 1, 1208, rng.below(1220) as usize][rng.below(5) as usize]],
        ..Seg::default()
    };
    if rng.below(2) == 0 {
        seg.ts = Some((near(rng, script.peer_ts()), near(rng, script.last_value)));
    }
    if rng.below(3) == 0 {
        for _ in 0..1 + rng.below(2) {
            let left = near(rng, seg.ack);
            seg.sacks.push((left, near(rng, left)));
        }
    }
    if rng.below(4) == 0 {
        seg.mss = Some(rng.next() as u16);
        seg.scale = Some(rng.next() as u8);
        seg.sack_ok = rng.below(2) == 0;
    }
    if seg.sacks.len() == 2 {
        seg.mss = None;
        seg.scale = None;
    }
    seg
}

fn input(script: &Script, rng: &mut Rng) -> Vec<u8> {
    match rng.below(8) {
        0 => (0..rng.below(200)).map(|_| rng.next() as u8).collect(),
        1 => {
            let next = [6, 17, 58, 99, 0, 43, 44, 59][rng.below(8) as usize];
            let body: Vec<u8> = (0..rng.below(100)).map(|_| rng.next() as u8).collect();
            let at = (next == 6 && body.len() >= 18).then_some(16);
            let at = at.or((next == 58 && body.len() >= 4).then_some(2));
            packet(PEER, OWN, next, &body, at)
        }
        2 => {
            // An ICMPv6 error about some packet of ours.
            let mut quoted = segment(script, rng).encode();
            quoted.truncate(40 + rng.below(30) as usize);
            let kind = 1 + rng.below(4) as u8;
            let mut body = vec![kind, rng.below(6) as u8, 0, 0, 0, 0];
            body.extend((rng.below(3000) as u16).to_be_bytes());
            // Source and destination of the quoted one are ours.
            let (src, dst) = (OWN.octets(), PEER.octets());
            if quoted.len() >= 40 {
                quoted[8..24].copy_from_slice(&src);
                quoted[24..40].copy_from_slice(&dst);
            }
            body.extend(quoted);
            packet(PEER, OWN, 58, &body, Some(2))
        }
        3 => {
            let mut bytes = segment(script, rng).encode();
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
            bytes.truncate(bytes.len() - rng.below(4) as usize);
            bytes
        }
        _ => segment(script, rng).encode(),
    }
}

fn call(stack: &mut Stack, script_now: std::time::Instant, id: SocketId, rng: &mut Rng) {
    let mut buf = vec![0; rng.below(5000) as usize];
    match rng.below(12) {
        0 => {
            let _ = stack.shutdown_write(script_now, id);
        }
        1 if rng.below(10) == 0 => stack.close(script_now, id),
        2 if rng.below(20) == 0 => stack.abort(script_now, id),
        3 => stack.path_changed(script_now, PEER),
        4 => stack.set_path_mtu(PEER, 1000 + rng.below(9000) as u16),
        5..8 => {
            let _ = stack.write(script_now, id, &buf);
        }
        _ => {
            let _ = stack.read(script_now, id, &mut buf);
        }
    }
}

fn run(seed: u64) {
    let mut rng = Rng(seed);
    let budget = 300_000;
    let mut script = Script::with(|c| {
        c.verify_checksums = seed.is_multiple_of(2);
        c.memory_budget = budget;
        c.max_sockets = 20;
        c.backlog = 8;
        c.max_time_wait = 8;
    });
    script.stack.udp_accept_any(seed.is_multiple_of(3));
    if !seed.is_multiple_of(4) {
        script.open(&script.syn());
    }
    let mut ids: Vec<SocketId> = script.id.into_iter().collect();
    let mut sent = 0;
    for step in 0..400u64 {
        let bytes = input(&script, &mut rng);
        let now = script.instant();
        script.stack.handle_packet(now, &bytes);
        if rng.below(3) == 0 && !ids.is_empty() {
            let id = ids[rng.below(ids.len() as u64) as usize];
            call(&mut script.stack, now, id, &mut rng);
        }
        if rng.below(50) == 0 {
            let remote = SocketAddrV6::new(PEER, script.peer_port, 0, 0);
            let _ = script.stack.connect(now, script.own_port, remote);
        }
        for event in script.events() {
            if let Event::Incoming { id, .. } = event {
                let _ = match rng.below(4) {
                    0 => script.stack.reject(now, id),
                    1 => script.stack.ignore(now, id),
                    _ => script.stack.accept(now, id),
                };
                ids.push(id);
            }
        }
        let scale = 1 + rng.below(22);
        script.now += Duration::from_micros(rng.below(1 << scale));
        let now = script.instant();
        script.stack.handle_timeout(now);
        let mut buf = [0; 9216];
        while let Some(transmit) = script.stack.poll_transmit(now, &mut buf) {
            assert!(transmit.len <= 9216);
            sent += 1;
            assert!(sent < 200 * (step + 50), "seed {seed}: answers without end");
        }
        assert!(script.stack.memory_used() <= budget);
        assert!(script.stack.socket_count() <= 20);
    }
    // Time alone brings everything to an end or to rest.
    for id in ids {
        let now = script.instant();
        script.stack.close(now, id);
    }
    for _ in 0..20_000 {
        if script.next_any(Duration::from_secs(100_000)).is_none() {
            break;
        }
    }
    assert!(
        script.next_any(Duration::from_secs(1000)).is_none(),
        "seed {seed}: never quiet"
    );
}

#[test]
fn hostile_packets_do_no_harm() {
    let cases = std::env::var("ADIT_CASES")
        .ok()
        .and_then(|v| v.parse().ok());
    if let Some(seed) = std::env::var("ADIT_SEED").ok().and_then(|v| v.parse().ok()) {
        run(seed);
        return;
    }
    for seed in 0..cases.unwrap_or(500) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("failed with ADIT_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_window_full_of_holes_costs_no_more_than_the_window() {
    let mut s = Script::established();
    for i in 0..200_000u32 {
        // Every second byte.
        s.inject(&s.data(3 + 2 * (i % 32_000), 1, 1));
        if i % 64 == 0 {
            s.drain();
        }
    }
    assert!(s.stack.memory_used() <= 1 << 20);
    s.inject(&s.data(1, 1, 2));
    assert!(!s.read().is_empty());
}

#[test]
fn acknowledgements_of_every_second_segment_are_cheap() {
    let mut s = Script::with(|c| c.tcp.pacing = false);
    s.open(&s.syn());
    let mut acked = 1;
    for _ in 0..200 {
        let now = s.instant();
        let _ = s.stack.write(now, s.id(), &[7; 100_000]);
        let sent = s.drain();
        s.now += Duration::from_millis(20);
        for seg in sent.iter().skip(1).step_by(2) {
            let mut ack = s.seg(".", 1, acked);
            ack.sacks = vec![(seg.seq, seg.seq.wrapping_add(seg.data.len() as u32))];
            ack.win = 65_535;
            s.inject(&ack);
        }
        let stats = s.stack.tcp_stats(s.id()).unwrap();
        acked = 1 + stats.bytes_acked as u32;
    }
}
