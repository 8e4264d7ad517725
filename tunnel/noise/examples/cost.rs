//! What a packet costs, beside another implementation.
//!
//! `cost [adit|boringtun] [packets]`: seals and opens as many packets of 1280
//! bytes and prints nanoseconds for each of the two.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_noise::{Clock, Identity, Peer, PublicKey, Random, StaticSecret};
use boringtun::noise::{Tunn, TunnResult};

/// Packets sealed before they are opened.
const BATCH: usize = 64;

fn report(name: &str, packets: usize, seal: Duration, open: Duration) {
    let each = |time: Duration| time.as_nanos() / packets as u128;
    println!("{name}: seal {} ns, open {} ns", each(seal), each(open));
}

fn packet() -> Vec<u8> {
    let mut packet = vec![7; 1280];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&1240u16.to_be_bytes());
    packet
}

fn adit(packets: usize) {
    let now = Instant::now();
    let (one, two) = (StaticSecret::from([3; 32]), StaticSecret::from([4; 32]));
    let peer = |own: &StaticSecret, other: &StaticSecret| {
        let clock = Clock::new(now, Duration::from_secs(1));
        let identity = Arc::new(Identity::new(own.clone(), clock));
        (
            Peer::new(Arc::clone(&identity), PublicKey::from(other), 1),
            identity,
        )
    };
    let (mut a, _) = peer(&one, &two);
    let (mut b, identity) = peer(&two, &one);
    let mut random = Random::new([1; 32]);
    let first = a.initiate(now, &mut random).unwrap();
    let incoming = identity.examine(&first).unwrap();
    let answer = b.respond(now, incoming, &mut random).unwrap();
    a.finish(now, &answer, &mut random).unwrap();
    let packet = packet();
    let mut sealed = vec![[0; 1312]; BATCH];
    let mut out = [0; 1312];
    let (mut seal, mut open) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..packets / BATCH {
        let start = Instant::now();
        for slot in &mut sealed {
            a.seal(now, &packet, 1280, slot).unwrap();
        }
        let middle = Instant::now();
        for slot in &sealed {
            b.open(now, slot, &mut out).unwrap();
        }
        seal += middle - start;
        open += middle.elapsed();
    }
    assert_eq!(out[..1280], packet);
    report("adit", packets, seal, open);
}

fn boringtun(packets: usize) {
    let (one, two) = (StaticSecret::from([3; 32]), StaticSecret::from([4; 32]));
    let (to_one, to_two) = (PublicKey::from(&one), PublicKey::from(&two));
    let mut a = Tunn::new(one, to_two, None, None, 1, None);
    let mut b = Tunn::new(two, to_one, None, None, 2, None);
    let (mut x, mut y) = (vec![0; 2048], vec![0; 2048]);
    let TunnResult::WriteToNetwork(first) = a.format_handshake_initiation(&mut x, true) else {
        panic!("no initiation")
    };
    let TunnResult::WriteToNetwork(answer) = b.decapsulate(None, first, &mut y) else {
        panic!("no answer")
    };
    let TunnResult::WriteToNetwork(keepalive) = a.decapsulate(None, answer, &mut x) else {
        panic!("no keepalive")
    };
    b.decapsulate(None, keepalive, &mut y);
    let packet = packet();
    let mut sealed = vec![[0; 1312]; BATCH];
    let (mut seal, mut open) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..packets / BATCH {
        let start = Instant::now();
        for slot in &mut sealed {
            assert!(matches!(
                a.encapsulate(&packet, slot),
                TunnResult::WriteToNetwork(_)
            ));
        }
        let middle = Instant::now();
        for slot in &sealed {
            let opened = b.decapsulate(None, slot, &mut y);
            assert!(matches!(opened, TunnResult::WriteToTunnelV6(..)));
        }
        seal += middle - start;
        open += middle.elapsed();
    }
    report("boringtun", packets, seal, open);
}

fn main() {
    let mut args = std::env::args().skip(1);
    let which = args.next();
    let packets = args.next().and_then(|n| n.parse().ok()).unwrap_or(640_000);
    if which.as_deref() != Some("boringtun") {
        adit(packets);
    }
    if which.as_deref() != Some("adit") {
        boringtun(packets);
    }
}
