//! Two meshes talking: grants, handshakes, paths and their failures.
#![allow(clippy::unwrap_used, reason = "test")]

mod common;

use std::time::Duration;

use adit_mesh::{Event, NotDirect, Received, Sealed};
use common::{Link, Net, packet};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn pair(seed: u64) -> Net {
    let mut net = Net::new(seed, 2);
    net.grant(1, 0, false);
    net.grant(0, 1, true);
    net
}

#[test]
fn first_packet_goes_over_the_relay_and_then_direct() {
    let mut net = pair(1);
    net.run(MS(100));
    assert!(
        net.nodes[0]
            .events
            .iter()
            .any(|e| matches!(e, Event::Established { .. }))
    );
    net.send(0, 1, b"hello");
    net.run(MS(100));
    assert_eq!(net.take(1), [b"hello".to_vec()]);
    assert_eq!(net.direct(0, 1), Some(net.addr(1)));
    net.send(1, 0, b"back");
    net.run(MS(100));
    assert_eq!(net.take(0), [b"back".to_vec()]);
    assert_eq!(net.direct(1, 0), Some(net.addr(0)));
    let relayed = net.nodes[0].sent_derp;
    for _ in 0..20 {
        net.send(0, 1, b"x");
        net.send(1, 0, b"y");
        net.run(MS(20));
    }
    assert_eq!(
        net.nodes[0].sent_derp, relayed,
        "nothing more over the relay"
    );
    assert_eq!(net.take(1).len(), 20);
}

#[test]
fn queued_packets_arrive_after_the_handshake() {
    let mut net = Net::new(2, 2);
    net.grant(0, 1, false);
    net.grant(1, 0, false);
    for n in 0..10u8 {
        assert_eq!(net.send(0, 1, &[n]), Sealed::Queued);
    }
    net.run(MS(200));
    assert_eq!(net.take(1), (0..10u8).map(|n| vec![n]).collect::<Vec<_>>());
}

#[test]
fn a_peer_without_grant_reaches_nothing() {
    let mut net = Net::new(3, 3);
    net.grant(1, 0, false);
    net.grant(0, 1, true);
    // The intruder knows everything about node 1, but node 1 was not told of it.
    net.grant(2, 1, true);
    net.run(MS(500));
    net.send(2, 1, b"let me in");
    net.run(Duration::from_secs(20));
    assert!(net.take(1).is_empty());
    assert!(net.direct(2, 1).is_none(), "not even a pong");
    assert!(
        !net.nodes[2]
            .events
            .iter()
            .any(|e| matches!(e, Event::Established { .. }))
    );
    assert_eq!(net.nodes[1].sent_udp, 0, "no answer of any kind");

    // And after a grant is taken back nothing passes any more.
    net.send(0, 1, b"ok");
    net.run(MS(200));
    assert_eq!(net.take(1).len(), 1);
    let id = net.nodes[0].id;
    net.nodes[1].mesh.remove_peer(id);
    net.send(0, 1, b"gone");
    net.run(Duration::from_secs(5));
    assert!(net.take(1).is_empty());
}

#[test]
fn a_forged_source_address_is_dropped() {
    let mut net = pair(4);
    net.run(MS(200));
    let forged = packet(net.nodes[1].ip, net.nodes[1].ip, b"forged");
    let dst = net.nodes[1].ip;
    net.send_raw(0, dst, &forged);
    net.run(MS(200));
    assert!(net.take(1).is_empty());
}

#[test]
fn an_address_stays_with_its_first_holder() {
    let mut net = Net::new(5, 3);
    net.grant(1, 0, false);
    net.grant(0, 1, false);
    let stolen = net.nodes[0].ip;
    let mut thief = net.nodes[2].config.clone();
    thief.allowed_ips = vec![stolen];
    let now = net.now;
    net.nodes[1].mesh.upsert_peer(now, thief).unwrap();
    net.send(1, 0, b"secret");
    net.run(MS(300));
    assert_eq!(net.take(0).len(), 1);
    assert!(net.take(2).is_empty());
}

#[test]
fn a_relay_cannot_pass_one_peer_off_as_another() {
    let mut net = Net::new(6, 3);
    for (a, b) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        net.grant(a, b, a == 0);
    }
    net.run(MS(200));
    let mut out = vec![0; adit_mesh::BUFFER_LEN];
    let inner = packet(net.nodes[0].ip, net.nodes[1].ip, b"hi");
    let (now, dst) = (net.now, net.nodes[1].ip);
    let Sealed::Ready { len, .. } = net.nodes[0].mesh.seal(now, &dst, &inner, &mut out) else {
        panic!("no session")
    };
    let liar = net.nodes[2].key;
    let honest = net.nodes[0].key;
    let mut inner_out = vec![0; adit_mesh::BUFFER_LEN];
    let got = net.nodes[1]
        .mesh
        .handle_derp(now, common::REGION, liar, &out[..len], &mut inner_out);
    assert_eq!(got, Received::Nothing);
    let got =
        net.nodes[1]
            .mesh
            .handle_derp(now, common::REGION, honest, &out[..len], &mut inner_out);
    assert!(matches!(got, Received::Packet { .. }));
}

#[test]
fn blocked_endpoints_keep_everything_on_the_relay() {
    for blocker in 0..2 {
        let mut net = pair(7);
        let now = net.now;
        net.nodes[blocker].mesh.set_blocked(now, true);
        for _ in 0..10 {
            net.send(0, 1, b"x");
            net.send(1, 0, b"y");
            net.run(MS(300));
        }
        assert_eq!(net.take(1).len(), 10);
        assert!(net.direct(0, 1).is_none() && net.direct(1, 0).is_none());
    }
}

#[test]
fn blocking_at_run_time_drops_the_direct_path() {
    let mut net = pair(8);
    for _ in 0..5 {
        net.send(0, 1, b"x");
        net.run(MS(100));
    }
    assert!(net.direct(0, 1).is_some());
    let now = net.now;
    net.nodes[0].mesh.set_blocked(now, true);
    assert!(net.direct(0, 1).is_none());
    net.take(1);
    net.send(0, 1, b"relayed");
    net.run(MS(100));
    assert_eq!(net.take(1).len(), 1);
    let now = net.now;
    net.nodes[0].mesh.set_blocked(now, false);
    net.send(0, 1, b"again");
    net.run(MS(200));
    assert!(net.direct(0, 1).is_some(), "comes back when allowed again");
}

/// Sends both ways each 20 ms for `span`; returns the longest silence at
/// node 1.
fn longest_gap(net: &mut Net, span: Duration) -> Duration {
    let end = net.now + span;
    let mut last = net.now;
    let mut worst = Duration::ZERO;
    while net.now < end {
        net.send(0, 1, b"data");
        net.run(MS(10));
        net.send(1, 0, b"ack");
        net.run(MS(10));
        for (at, _) in net.nodes[1].inbox.drain(..) {
            worst = worst.max(at - last);
            last = at;
        }
        net.nodes[0].inbox.clear();
    }
    worst.max(net.now - last)
}

#[test]
fn a_black_holed_direct_path_is_silent_for_less_than_a_second() {
    for seed in 0..50 {
        let mut net = pair(100 + seed);
        net.udp.delay = MS(1 + seed);
        net.udp.jitter = MS(2);
        let _ = longest_gap(&mut net, Duration::from_secs(3));
        assert!(net.direct(0, 1).is_some());
        net.udp.up = false;
        let gap = longest_gap(&mut net, Duration::from_secs(10));
        assert!(gap < MS(700), "silent for {gap:?} with seed {seed}");
        assert!(net.direct(0, 1).is_none());
        let id = net.nodes[1].id;
        let info = net.nodes[0].mesh.peer(net.now, &id).unwrap();
        assert_eq!(info.not_direct, Some(NotDirect::Lost));
        // And it comes back once the network does.
        net.udp.up = true;
        let gap = longest_gap(&mut net, Duration::from_secs(7));
        assert!(gap < MS(200), "silent for {gap:?} on return");
        assert!(net.direct(0, 1).is_some());
    }
}

#[test]
fn a_one_way_black_hole_is_noticed_too() {
    let mut net = pair(9);
    let _ = longest_gap(&mut net, Duration::from_secs(3));
    let target = net.addr(1);
    net.black_holes.insert(target);
    let gap = longest_gap(&mut net, Duration::from_secs(10));
    assert!(gap < MS(2000), "silent for {gap:?}");
}

#[test]
fn translators_are_opened_from_both_sides() {
    for seed in 0..20 {
        let mut net = pair(500 + seed);
        net.filter = true;
        net.udp = Link {
            loss: 50,
            ..Link::clean(1 + seed * 3)
        };
        let _ = longest_gap(&mut net, Duration::from_secs(4));
        assert_eq!(net.direct(0, 1), Some(net.addr(1)), "seed {seed}");
        assert_eq!(net.direct(1, 0), Some(net.addr(0)), "seed {seed}");
    }
}

#[test]
fn endpoints_found_late_are_told_at_once() {
    let mut net = Net::new(600, 2);
    let addrs = [net.addr(0), net.addr(1)];
    for n in 0..2 {
        let now = net.now;
        net.nodes[n].mesh.set_endpoints(now, Vec::new());
        let config = adit_mesh::PeerConfig {
            endpoints: Vec::new(),
            ..net.nodes[n].config.clone()
        };
        net.nodes[1 - n].mesh.upsert_peer(now, config).unwrap();
    }
    let _ = longest_gap(&mut net, MS(500));
    assert!(net.direct(0, 1).is_none() && net.direct(1, 0).is_none());
    let now = net.now;
    net.nodes[1].mesh.set_endpoints(now, vec![addrs[1]]);
    let _ = longest_gap(&mut net, MS(200));
    assert_eq!(net.direct(0, 1), Some(addrs[1]));
    assert_eq!(
        net.direct(1, 0),
        Some(addrs[0]),
        "learned from the other's ping"
    );
}

#[test]
fn a_move_is_followed_within_half_a_second() {
    for seed in 0..20 {
        for mover in 0..2 {
            let mut net = pair(300 + seed);
            net.udp = Link {
                jitter: MS(1),
                ..Link::clean(1 + seed * 2)
            };
            let _ = longest_gap(&mut net, Duration::from_secs(3));
            net.move_to(mover, "198.51.100.7:999");
            let (now, addr) = (net.now, net.addr(mover));
            net.nodes[mover].mesh.set_endpoints(now, vec![addr]);
            net.nodes[mover].mesh.link_changed(now);
            let gap = longest_gap(&mut net, Duration::from_secs(3));
            assert!(gap < MS(500), "silent for {gap:?} with seed {seed}");
            assert_eq!(net.direct(1 - mover, mover), Some(addr));
            assert!(net.direct(mover, 1 - mover).is_some());
        }
    }
}

#[test]
fn a_silent_change_of_the_translated_address_is_followed() {
    for seed in 0..20 {
        for mover in 0..2 {
            let mut net = pair(400 + seed);
            net.udp = Link {
                jitter: MS(1),
                ..Link::clean(1 + seed * 2)
            };
            let _ = longest_gap(&mut net, Duration::from_secs(3));
            net.move_to(mover, "192.0.2.77:1024");
            let gap = longest_gap(&mut net, Duration::from_secs(3));
            assert!(gap < MS(700), "silent for {gap:?} with seed {seed}");
            assert_eq!(net.direct(1 - mover, mover), Some(net.addr(mover)));
        }
    }
}

#[test]
fn the_direct_path_survives_the_relay() {
    let mut net = pair(10);
    let _ = longest_gap(&mut net, Duration::from_secs(2));
    net.derp.up = false;
    // Long enough for two rekeys.
    let gap = longest_gap(&mut net, Duration::from_secs(300));
    assert!(gap < MS(100), "silent for {gap:?}");
    let handshakes = net.nodes[0]
        .events
        .iter()
        .filter(|e| matches!(e, Event::Established { .. }))
        .count();
    assert!(handshakes >= 3, "rekeyed {handshakes} times");
}

/// Largest inner packet that node `n` may send to the other.
fn mtu(net: &Net, n: usize) -> usize {
    let id = net.nodes[1 - n].id;
    net.nodes[n].mesh.peer(net.now, &id).unwrap().mtu
}

#[test]
fn larger_packets_go_where_they_fit() {
    for (largest, inner) in [
        (1311, 1280),
        (1400, 1360),
        (1472, 1440),
        (9000, 8920),
        (65_000, 9216),
    ] {
        let mut net = pair(700);
        net.largest = largest;
        let _ = longest_gap(&mut net, MS(100));
        assert_eq!(mtu(&net, 0), 1280, "nothing is tried for a few packets");
        let _ = longest_gap(&mut net, Duration::from_secs(2));
        assert_eq!([mtu(&net, 0), mtu(&net, 1)], [inner; 2], "{largest}");
        net.take(1);
        let payload = vec![7; inner - 40];
        net.send(0, 1, &payload);
        net.run(MS(50));
        if inner > 1280 {
            assert_eq!(net.take(1), [payload]);
        }
    }
}

#[test]
fn a_path_that_shrinks_is_noticed_and_one_that_grows_is_found() {
    for seed in 0..10 {
        let mut net = pair(720 + seed);
        net.udp = Link {
            jitter: MS(2),
            ..Link::clean(1 + seed * 4)
        };
        net.largest = 9000;
        let _ = longest_gap(&mut net, Duration::from_secs(3));
        assert_eq!(mtu(&net, 0), 8920, "seed {seed}");
        net.largest = 1472;
        net.nodes[0].events.clear();
        let start = net.now;
        while mtu(&net, 0) != 1280 {
            let _ = longest_gap(&mut net, MS(20));
            assert!(net.now - start < MS(2000), "seed {seed}");
        }
        assert!(net.direct(0, 1).is_some(), "the path itself is fine");
        let told = net.nodes[0]
            .events
            .iter()
            .any(|e| matches!(e, Event::Mtu { mtu: 1280, .. }));
        assert!(told);
        let _ = longest_gap(&mut net, Duration::from_secs(60));
        assert_eq!(mtu(&net, 0), 1440, "seed {seed}");
        // The system says so itself: nothing to wait for.
        let (now, addr) = (net.now, net.addr(1));
        net.nodes[0].mesh.send_too_long(now, addr, 1472);
        assert_eq!(mtu(&net, 0), 1280);
    }
}

#[test]
fn a_path_given_up_takes_its_size_along() {
    let mut net = pair(740);
    let _ = longest_gap(&mut net, Duration::from_secs(2));
    assert_eq!(mtu(&net, 0), 9216);
    net.udp.up = false;
    net.nodes[0].events.clear();
    while net.direct(0, 1).is_some() {
        let _ = longest_gap(&mut net, MS(20));
    }
    assert_eq!(
        mtu(&net, 0),
        1280,
        "what the relay carries is not known yet"
    );
    assert_eq!(told(&mut net, 0), [1280]);
}

/// The MTUs node `n` was told since the last call.
fn told(net: &mut Net, n: usize) -> Vec<usize> {
    let told = |event| match event {
        Event::Mtu { mtu, .. } => Some(mtu),
        _ => None,
    };
    net.nodes[n].events.drain(..).filter_map(told).collect()
}

#[test]
fn a_relay_carries_larger_packets_too() {
    let mut net = pair(750);
    let now = net.now;
    net.nodes[1].mesh.set_blocked(now, true);
    let _ = longest_gap(&mut net, MS(300));
    assert_eq!(mtu(&net, 0), 1280, "nothing is tried for a few packets");
    let relayed = net.nodes[0].sent_derp;
    let _ = longest_gap(&mut net, Duration::from_secs(2));
    assert_eq!([mtu(&net, 0), mtu(&net, 1)], [9216; 2]);
    assert_eq!([told(&mut net, 0), told(&mut net, 1)], [[9216], [9216]]);
    // Packets of both directions, a question and an answer, signs of life.
    assert!(net.nodes[0].sent_derp - relayed <= 100 + 2 + 5);
    net.take(1);
    let payload = vec![7; 9216 - 40];
    net.send(0, 1, &payload);
    net.run(MS(50));
    assert_eq!(net.take(1), [payload]);
}

#[test]
fn between_relay_and_direct_path_nothing_is_too_large() {
    let mut net = pair(751);
    net.largest = 1472;
    let now = net.now;
    net.nodes[0].mesh.set_blocked(now, true);
    let _ = longest_gap(&mut net, Duration::from_secs(2));
    assert_eq!([mtu(&net, 0), mtu(&net, 1)], [9216; 2]);
    told(&mut net, 0);
    net.nodes[0].mesh.set_blocked(now, false);
    while net.direct(0, 1).is_none() {
        net.send(0, 1, b"data");
        net.run(MS(1));
        net.send(1, 0, b"ack");
        net.run(MS(1));
    }
    assert_eq!(mtu(&net, 0), 1280, "the direct path has proven nothing");
    let _ = longest_gap(&mut net, Duration::from_secs(3));
    assert_eq!(mtu(&net, 0), 1440);
    assert_eq!(told(&mut net, 0)[..2], [1280, 1360]);
    net.udp.up = false;
    while net.direct(0, 1).is_some() {
        let _ = longest_gap(&mut net, MS(20));
    }
    assert_eq!(mtu(&net, 0), 9216, "the relay is still the same");
    // Another connection to it may lead elsewhere.
    let now = net.now;
    net.nodes[0].mesh.relay_up(now, common::REGION);
    assert_eq!(mtu(&net, 0), 1280);
    let _ = longest_gap(&mut net, Duration::from_secs(2));
    assert_eq!(mtu(&net, 0), 9216);
}

#[test]
fn a_thousand_packets_may_overtake_one() {
    let mut net = pair(750);
    net.run(MS(200));
    let (now, dst) = (net.now, net.nodes[1].ip);
    let mut sealed = Vec::new();
    for n in 0..1001u32 {
        let inner = packet(net.nodes[0].ip, dst, &n.to_be_bytes());
        let mut out = vec![0; adit_mesh::BUFFER_LEN];
        let Sealed::Ready { len, .. } = net.nodes[0].mesh.seal(now, &dst, &inner, &mut out) else {
            panic!("no session");
        };
        out.truncate(len);
        sealed.push(out);
    }
    sealed.rotate_left(1);
    let (key, mut out) = (net.nodes[0].key, vec![0; adit_mesh::BUFFER_LEN]);
    for data in sealed {
        let mesh = &mut net.nodes[1].mesh;
        let got = mesh.handle_derp(now, common::REGION, key, &data, &mut out);
        assert!(matches!(got, Received::Packet { .. }));
        let again = mesh.handle_derp(now, common::REGION, key, &data, &mut out);
        assert_eq!(again, Received::Nothing, "once is enough");
    }
}

#[test]
fn rekeying_loses_nothing() {
    let mut net = pair(11);
    net.udp.jitter = MS(3);
    let mut sent = 0u32;
    let mut got = 0;
    for _ in 0..40_000 {
        net.send(0, 1, &sent.to_be_bytes());
        sent += 1;
        net.run(MS(10));
        got += net.take(1).len();
        net.send(1, 0, b"ack");
        net.take(0);
    }
    net.run(Duration::from_secs(1));
    got += net.take(1).len();
    assert_eq!(got, sent as usize);
}

#[test]
fn duplicates_of_two_paths_arrive_once() {
    let mut net = pair(12);
    net.udp = Link {
        duplicate: 300,
        jitter: MS(10),
        ..Link::clean(5)
    };
    net.derp = Link {
        duplicate: 300,
        jitter: MS(10),
        ..Link::clean(5)
    };
    let mut seen = std::collections::HashSet::new();
    for n in 0..2000u32 {
        net.send(0, 1, &n.to_be_bytes());
        if n % 50 == 0 {
            let now = net.now;
            net.nodes[0].mesh.link_changed(now);
        }
        net.run(MS(3));
        for payload in net.take(1) {
            assert!(seen.insert(payload), "delivered twice");
        }
    }
    net.run(MS(100));
    seen.extend(net.take(1));
    assert_eq!(seen.len(), 2000);
}

#[test]
fn an_idle_pair_is_silent() {
    let mut net = pair(13);
    let _ = longest_gap(&mut net, Duration::from_secs(2));
    net.run(Duration::from_secs(60));
    let (udp, derp, wakeups) = (net.nodes[0].sent_udp, net.nodes[0].sent_derp, net.wakeups);
    net.run(Duration::from_secs(600));
    let sent = net.nodes[0].sent_udp + net.nodes[0].sent_derp - udp - derp;
    assert!(sent <= 120, "{sent} datagrams in ten idle minutes");
    let woke = net.wakeups - wakeups;
    assert!(woke <= 120, "{woke} wake-ups in ten idle minutes");
    net.take(1);
    net.send(0, 1, b"still there");
    net.run(MS(100));
    assert_eq!(net.take(1).len(), 1);
}

#[test]
fn handshake_completes_on_a_lossy_relay() {
    for seed in 0..200 {
        let mut net = Net::new(1000 + seed, 2);
        net.derp = Link {
            loss: 300,
            jitter: MS(30),
            ..Link::clean(20)
        };
        net.udp.up = false;
        net.grant(1, 0, false);
        net.grant(0, 1, true);
        net.run(Duration::from_secs(85));
        assert!(
            net.nodes[0]
                .events
                .iter()
                .any(|e| matches!(e, Event::Established { .. })),
            "no handshake with seed {seed}"
        );
    }
}

#[test]
fn a_restarted_peer_takes_over_its_name() {
    let mut net = pair(14);
    net.run(MS(200));
    // Node 0 restarts: another key under the same id and address.
    let mut fresh = Net::new(999, 1);
    let mut config = fresh.nodes[0].config.clone();
    config.id = net.nodes[0].id;
    config.allowed_ips = vec![net.nodes[0].ip];
    let now = net.now;
    net.nodes[1].mesh.upsert_peer(now, config).unwrap();
    let info: Vec<_> = net.nodes[1].mesh.peers(now).collect();
    assert_eq!(info.len(), 1);
    assert_eq!(info[0].node_key, fresh.nodes.remove(0).key);
    net.send(0, 1, b"from the old one");
    net.run(MS(200));
    assert!(net.take(1).is_empty());
}

#[test]
fn pings_report_both_paths() {
    let mut net = pair(15);
    net.run(MS(100));
    let (now, ip) = (net.now, net.nodes[1].ip);
    let token = net.nodes[0].mesh.ping(now, &ip).unwrap();
    net.send(0, 1, b"x");
    net.run(MS(200));
    let pongs: Vec<_> = net.nodes[0]
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Pong {
                token: t,
                latency,
                via,
            } if *t == token => Some((*latency, *via)),
            _ => None,
        })
        .collect();
    assert_eq!(pongs.len(), 2);
    assert_eq!(pongs[0].0, MS(10));
    assert_eq!(pongs[1].0, MS(40));
}

#[test]
fn arbitrary_datagrams_do_no_harm() {
    use rand::{Rng, SeedableRng};
    let mut net = pair(16);
    net.run(MS(200));
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let mut out = vec![0; adit_mesh::BUFFER_LEN];
    for _ in 0..20_000 {
        let most = if rng.random_ratio(1, 50) { 65_536 } else { 200 };
        let len = rng.random_range(0..most);
        let mut data: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        if rng.random() && data.len() > 8 {
            data[..4].copy_from_slice(&u32::to_le_bytes(rng.random_range(0..6)));
        }
        let (now, addr, key) = (net.now, net.addr(0), net.nodes[0].key);
        assert!(!matches!(
            net.nodes[1].mesh.handle_udp(now, addr, &data, &mut out),
            Received::Packet { .. }
        ));
        assert!(!matches!(
            net.nodes[1]
                .mesh
                .handle_derp(now, common::REGION, key, &data, &mut out),
            Received::Packet { .. }
        ));
    }
    net.send(0, 1, b"alive");
    net.run(MS(200));
    assert_eq!(net.take(1).len(), 1);
}
