//! What the open network and the relay bring to a node.

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use adit_keys::{DiscoPrivate, DiscoPublic, NONCE_LEN, NodePrivate, SharedKey};
use adit_mesh::{Mesh, MeshConfig, PeerConfig, Received};
use uuid::Uuid;

const REGION: u32 = 1;

/// A granted peer, as far as a node without its private keys can see it.
struct Peer {
    node: NodePrivate,
    disco: DiscoPublic,
    shared: SharedKey,
    overlay: Ipv6Addr,
    from: SocketAddr,
}

impl Peer {
    /// `plaintext` in a box that the node opens.
    fn sealed(&self, nonce: u8, plaintext: &[u8]) -> Vec<u8> {
        let mut datagram = adit_disco::MAGIC.to_vec();
        datagram.extend_from_slice(self.disco.as_bytes());
        datagram.extend_from_slice(&[nonce; NONCE_LEN]);
        self.shared
            .seal_into(&[nonce; NONCE_LEN], plaintext, &mut datagram);
        datagram
    }
}

/// Datagrams over UDP and through a relay, some of them sealed as a granted
/// peer would; each is an operation, a length and that many bytes, with time
/// passing in between.
pub fn mesh(data: &[u8]) {
    let mut now = Instant::now();
    let own_disco = DiscoPrivate::from_bytes([1; 32]);
    let peer_disco = DiscoPrivate::from_bytes([2; 32]);
    let peer = Peer {
        node: NodePrivate::from_bytes([4; 32]),
        disco: peer_disco.public(),
        shared: peer_disco.shared(&own_disco.public()),
        overlay: Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 2),
        from: SocketAddr::from(([127, 0, 0, 1], 41_641)),
    };
    let mut mesh = Mesh::new(MeshConfig {
        node_key: NodePrivate::from_bytes([3; 32]),
        disco_key: own_disco,
        seed: [1; 32],
        clock: adit_mesh::Clock::new(now, Duration::from_secs(1_800_000_000)),
    });
    mesh.upsert_peer(
        now,
        PeerConfig {
            id: Uuid::from_bytes([7; 16]),
            node_key: peer.node.public(),
            disco_key: peer.disco,
            home_region: REGION,
            endpoints: vec![peer.from],
            allowed_ips: vec![peer.overlay],
            keepalive: false,
        },
    )
    .expect("a valid peer");
    mesh.relay_up(now, REGION);

    let mut out = vec![0; 70_000];
    let mut rest = data;
    while let [operation, length, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let received = match operation % 6 {
            0 => mesh.handle_udp(now, peer.from, bytes, &mut out),
            1 => mesh.handle_udp(now, peer.from, &peer.sealed(*operation, bytes), &mut out),
            2 => mesh.handle_derp(now, REGION, peer.node.public(), bytes, &mut out),
            3 => mesh.handle_derp(
                now,
                REGION,
                peer.node.public(),
                &peer.sealed(*operation, bytes),
                &mut out,
            ),
            4 => {
                let _ = mesh.seal(now, &peer.overlay, bytes, &mut out);
                Received::Nothing
            }
            _ => {
                now += Duration::from_millis(u64::from(*length) * 20);
                mesh.handle_timeout(now);
                Received::Nothing
            }
        };
        assert!(
            !matches!(received, Received::Packet { .. }),
            "no packet without a session"
        );
        let mut sent = 0;
        while mesh.poll_transmit().is_some() {
            sent += 1;
        }
        assert!(sent < 256, "an answer is no flood");
        while mesh.poll_event().is_some() {}
    }
}
