//! A node that knows ten thousand peers and talks to a hundred: what that
//! costs, in counts; how long it takes is printed.
#![allow(clippy::unwrap_used, reason = "test")]

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use adit_keys::{DiscoPrivate, NodePrivate};
use adit_mesh::{BUFFER_LEN, Mesh, MeshConfig, PeerConfig, Received, Sealed, Via};
use uuid::Uuid;

const KNOWN: usize = 10_000;
const ACTIVE: usize = 100;
const PACKETS: usize = 20_000;

struct Member {
    mesh: Mesh,
    config: PeerConfig,
}

/// What the coordinator says about peer `number`, with its keys.
fn describe(number: usize) -> (NodePrivate, DiscoPrivate, PeerConfig) {
    let (node_key, disco_key) = (NodePrivate::generate(), DiscoPrivate::generate());
    let id = Uuid::from_u128(number as u128 + 1);
    let config = PeerConfig {
        id,
        node_key: node_key.public(),
        disco_key: disco_key.public(),
        home_region: 1,
        endpoints: Vec::new(),
        allowed_ips: vec![adit_keys::addr::tailnet_ip(id)],
        keepalive: false,
    };
    (node_key, disco_key, config)
}

impl Member {
    fn new(number: usize) -> Self {
        let (node_key, disco_key, config) = describe(number);
        let mesh = Mesh::new(MeshConfig {
            node_key,
            disco_key,
            seed: std::array::from_fn(|n| (number >> (n % 8 * 8)) as u8),
            clock: adit_mesh::Clock::new(Instant::now(), Duration::from_secs(1_800_000_000)),
        });
        Self { mesh, config }
    }

    fn ip(&self) -> Ipv6Addr {
        self.config.allowed_ips[0]
    }
}

fn packet(src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    out.extend_from_slice(&src.octets());
    out.extend_from_slice(&dst.octets());
    out
}

/// Carries what both have to say until nothing is left.
fn exchange(now: Instant, hub: &mut Mesh, hub_config: &PeerConfig, other: &mut Member) {
    let mut out = vec![0; BUFFER_LEN];
    loop {
        let mut moved = false;
        while let Some(transmit) = hub.poll_transmit() {
            moved = true;
            if matches!(transmit.via, Via::Derp { key, .. } if key == other.config.node_key) {
                other
                    .mesh
                    .handle_derp(now, 1, hub_config.node_key, &transmit.data, &mut out);
            }
        }
        while let Some(transmit) = other.mesh.poll_transmit() {
            moved = true;
            hub.handle_derp(now, 1, other.config.node_key, &transmit.data, &mut out);
        }
        if !moved {
            return;
        }
    }
}

/// Resident memory of this process in kB, where that is known.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Lets `span` pass at the hub; how often it woke.
fn sleep(hub: &mut Mesh, now: &mut Instant, span: Duration) -> usize {
    let end = *now + span;
    let mut woken = 0;
    while let Some(at) = hub.poll_timeout().filter(|at| *at <= end) {
        *now = at.max(*now);
        hub.handle_timeout(*now);
        woken += 1;
        while hub.poll_transmit().is_some() {}
    }
    *now = end;
    woken
}

#[test]
fn ten_thousand_known_peers_cost_little() {
    let mut now = Instant::now();
    let mut hub = Member::new(0);
    let before = resident();
    let mut active: Vec<_> = (1..=ACTIVE).map(Member::new).collect();
    for peer in &active {
        hub.mesh.upsert_peer(now, peer.config.clone()).unwrap();
    }
    let clock = Instant::now();
    for number in ACTIVE + 1..=KNOWN {
        let peer = describe(number).2;
        hub.mesh.upsert_peer(now, peer).unwrap();
    }
    println!("{KNOWN} peers granted in {:?}", clock.elapsed());
    let load = hub.mesh.load();
    assert_eq!(load.peers, KNOWN);
    assert_eq!(load.timers, 0, "who was never heard needs no timer");
    assert_eq!(hub.mesh.poll_timeout(), None);

    let mut out = vec![0; BUFFER_LEN];
    for peer in &mut active {
        peer.mesh.upsert_peer(now, hub.config.clone()).unwrap();
        let inner = packet(hub.ip(), peer.ip());
        let sealed = hub.mesh.seal(now, &peer.ip(), &inner, &mut out);
        assert_eq!(sealed, Sealed::Queued);
        exchange(now, &mut hub.mesh, &hub.config, peer);
    }
    let clock = Instant::now();
    let mut plain = vec![0; BUFFER_LEN];
    for n in 0..PACKETS {
        let peer = &mut active[n % ACTIVE];
        now += Duration::from_micros(100);
        let inner = packet(hub.ip(), peer.ip());
        let sealed = hub.mesh.seal(now, &peer.ip(), &inner, &mut out);
        let Sealed::Ready { len, .. } = sealed else {
            panic!("no session: {sealed:?}");
        };
        let got = peer
            .mesh
            .handle_derp(now, 1, hub.config.node_key, &out[..len], &mut plain);
        assert!(matches!(got, Received::Packet { .. }));
    }
    println!("{PACKETS} packets there in {:?}", clock.elapsed());
    for peer in &mut active {
        let inner = packet(peer.ip(), hub.ip());
        let sealed = peer.mesh.seal(now, &hub.ip(), &inner, &mut out);
        let Sealed::Ready { len, .. } = sealed else {
            panic!("no session: {sealed:?}");
        };
        let got = hub
            .mesh
            .handle_derp(now, 1, peer.config.node_key, &out[..len], &mut plain);
        assert!(matches!(got, Received::Packet { .. }));
    }
    let load = hub.mesh.load();
    assert!(
        load.timers <= 2 * ACTIVE,
        "only active peers have timers: {load:?}"
    );
    if let (Some(before), Some(after)) = (before, resident()) {
        let each = (after - before) / KNOWN as u64;
        println!("{each} kB for each known peer");
        assert!(each <= 20, "{each} kB for each known peer");
    }

    // Nothing is said any more: after the last keepalives there is silence.
    sleep(&mut hub.mesh, &mut now, Duration::from_secs(60));
    let woken = sleep(&mut hub.mesh, &mut now, Duration::from_secs(3600));
    println!("{woken} wake-ups in an idle hour");
    assert!(woken <= 4 * ACTIVE, "{woken} wake-ups in an idle hour");
    assert!(hub.mesh.load().timers <= 2 * ACTIVE);
}

#[test]
fn grants_that_come_and_go_leave_nothing() {
    let now = Instant::now();
    let mut hub = Member::new(0);
    for round in 0..4 {
        for number in 1..200 {
            let mut peer = describe(round * 1000 + number).2;
            peer.keepalive = true;
            hub.mesh.upsert_peer(now, peer).unwrap();
        }
        while hub.mesh.poll_transmit().is_some() {}
        for number in 1..200 {
            hub.mesh
                .remove_peer(Uuid::from_u128(round as u128 * 1000 + number + 1));
        }
    }
    let load = hub.mesh.load();
    assert_eq!(load.peers, 0);
    assert!(load.timers <= 64, "{load:?}");
}
