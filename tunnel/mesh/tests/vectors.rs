//! Bytes recorded from other implementations of WireGuard and of the inner
//! stack.
#![allow(clippy::unwrap_used, reason = "test")]

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_keys::{DiscoPrivate, NodePrivate};
use adit_mesh::{BUFFER_LEN, Event, Mesh, MeshConfig, PeerConfig, Received, Transmit, Via};
use adit_netstack::{Event as StackEvent, Stack, StackConfig};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use serde_json::Value;
use uuid::Uuid;

fn records(text: &str, kind: &str) -> Vec<Value> {
    text.lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .filter(|r| r["type"] == kind)
        .collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array(value: &Value) -> [u8; 32] {
    bytes(value).try_into().unwrap()
}

const WIREGUARD: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/vectors/wire/wireguard.jsonl"
));
const INNER: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/vectors/wire/inner-packets.jsonl"
));

/// The recorded responder, knowing the recorded initiator.
fn responder() -> Mesh {
    let keys = &records(WIREGUARD, "keys")[0];
    let disco_key = DiscoPrivate::generate();
    let mut mesh = Mesh::new(MeshConfig {
        node_key: NodePrivate::from_bytes(array(&keys["b_static_private"])),
        disco_key,
        seed: [1; 32],
        clock: adit_mesh::Clock::new(Instant::now(), Duration::from_secs(1_800_000_000)),
    });
    let initiator = NodePrivate::from_bytes(array(&keys["a_static_private"])).public();
    assert_eq!(initiator.as_bytes(), &array(&keys["a_static_public"]));
    let config = PeerConfig {
        id: Uuid::nil(),
        node_key: initiator,
        disco_key: DiscoPrivate::generate().public(),
        home_region: 1,
        endpoints: Vec::new(),
        allowed_ips: vec![keys["a_overlay"].as_str().unwrap().parse().unwrap()],
        keepalive: false,
    };
    mesh.upsert_peer(Instant::now(), config).unwrap();
    mesh
}

#[test]
fn a_recorded_initiation_is_answered_once() {
    let initiation = bytes(&records(WIREGUARD, "wg")[0]["packet"]);
    let mut mesh = responder();
    let from: SocketAddr = "192.0.2.1:5".parse().unwrap();
    let mut out = [0; BUFFER_LEN];
    let now = Instant::now();
    assert_eq!(
        mesh.handle_udp(now, from, &initiation, &mut out),
        Received::Nothing
    );
    let Some(Transmit {
        via: Via::Udp(to),
        data,
    }) = mesh.poll_transmit()
    else {
        panic!("no answer")
    };
    assert_eq!(to, from);
    assert_eq!((data.len(), &data[..4]), (92, &[2, 0, 0, 0][..]));
    assert_eq!(
        data[8..12],
        initiation[4..8],
        "receiver index is the initiator's"
    );
    assert!(matches!(mesh.poll_event(), Some(Event::Established { .. })));
    // The address it came from is tried as a path.
    assert!(mesh.poll_transmit().is_some_and(|t| is_disco(&t.data)));
    // Replayed it carries an old time stamp; altered it fails its MAC.
    mesh.handle_udp(now, from, &initiation, &mut out);
    let mut altered = initiation;
    altered[20] ^= 1;
    mesh.handle_udp(now, from, &altered, &mut out);
    assert_eq!(mesh.poll_transmit(), None);
}

/// Starts with the disco magic.
fn is_disco(data: &[u8]) -> bool {
    data.starts_with(&[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac])
}

#[test]
fn a_recorded_initiation_for_another_node_is_ignored() {
    let initiation = bytes(&records(WIREGUARD, "wg")[0]["packet"]);
    let mut mesh = Mesh::new(MeshConfig {
        node_key: NodePrivate::generate(),
        disco_key: DiscoPrivate::generate(),
        seed: [1; 32],
        clock: adit_mesh::Clock::new(Instant::now(), Duration::from_secs(1_800_000_000)),
    });
    let mut out = [0; BUFFER_LEN];
    mesh.handle_udp(
        Instant::now(),
        "192.0.2.1:5".parse().unwrap(),
        &initiation,
        &mut out,
    );
    assert_eq!(mesh.poll_transmit(), None);
}

#[test]
fn recorded_transport_packets_have_the_layout_we_use() {
    let packets = records(WIREGUARD, "wg");
    let response = &packets[1];
    for packet in &packets[2..] {
        let data = bytes(&packet["packet"]);
        let key = if packet["from"] == "A" {
            "transport_key_a_to_b"
        } else {
            "transport_key_b_to_a"
        };
        let key =
            LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &array(&response[key])).unwrap());
        assert_eq!(u32::from_le_bytes(data[..4].try_into().unwrap()), 4);
        let receiver = u32::from_le_bytes(data[4..8].try_into().unwrap());
        assert_eq!(
            u64::from(receiver),
            packet["receiver_index_le"].as_u64().unwrap()
        );
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&data[8..16]);
        let mut body = data[16..].to_vec();
        let plain = key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut body)
            .unwrap();
        let want = bytes(&packet["plaintext"]);
        assert_eq!(plain.len() % 16, 0, "padded to 16 bytes");
        assert!(plain.starts_with(&want) && plain[want.len()..].iter().all(|b| *b == 0));
        assert_eq!(adit_mesh::OVERHEAD + plain.len(), data.len());
    }
}

/// A stack at the recorded agent's address, and a recorded packet towards it.
fn agent() -> (Stack, Ipv6Addr, Ipv6Addr) {
    let pong = bytes(
        &records(INNER, "inner")
            .iter()
            .find(|r| r["class"] == "TSMP o")
            .unwrap()["hex"],
    );
    let at = |n: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&pong[n..n + 16]).unwrap());
    let (agent, client) = (at(8), at(24));
    (
        Stack::new(StackConfig::new(vec![agent], 7), Instant::now()),
        agent,
        client,
    )
}

fn next(stack: &mut Stack) -> Option<Vec<u8>> {
    let mut buf = [0; 1280];
    let transmit = stack.poll_transmit(Instant::now(), &mut buf)?;
    Some(buf[..transmit.len].to_vec())
}

#[test]
fn tsmp_pongs_are_the_recorded_ones() {
    let (mut stack, agent, client) = agent();
    for record in records(INNER, "inner")
        .iter()
        .filter(|r| r["class"] == "TSMP o")
    {
        let pong = bytes(&record["hex"]);
        // The ping that was answered: addresses swapped, 'p' and the data.
        let mut ping = vec![0x60, 0, 0, 0, 0, 9, 99, 64];
        ping.extend(client.octets());
        ping.extend(agent.octets());
        ping.push(b'p');
        ping.extend(&pong[41..49]);
        stack.handle_packet(Instant::now(), &ping);
        let ours = next(&mut stack).unwrap();
        assert_eq!(ours[4..], pong[4..], "all but the flow label");
    }
}

#[test]
fn a_recorded_syn_is_answered_with_the_options_it_offers() {
    let (mut stack, agent, client) = agent();
    let syn = records(INNER, "inner")
        .into_iter()
        .find(|r| r["class"].as_str().unwrap().contains("flags 0x02"))
        .unwrap();
    stack.handle_packet(Instant::now(), &bytes(&syn["hex"]));
    let Some(StackEvent::Incoming { id, local, remote }) = stack.poll_event() else {
        panic!("no connection")
    };
    assert_eq!(
        (local.ip(), remote.ip(), local.port()),
        (&agent, &client, 1)
    );
    stack.accept(Instant::now(), id).unwrap();
    let answer = next(&mut stack).unwrap();
    let recorded = records(INNER, "inner")
        .into_iter()
        .find(|r| r["class"].as_str().unwrap().contains("flags 0x12"))
        .unwrap();
    let recorded = bytes(&recorded["hex"]);
    assert_eq!(
        kinds(&answer),
        kinds(&recorded),
        "the same set of TCP options"
    );
    assert_eq!(answer[40..44], recorded[40..44], "ports");
}

/// The TCP options of a packet, without padding, sorted.
fn kinds(packet: &[u8]) -> Vec<u8> {
    let end = 40 + usize::from(packet[52] >> 4) * 4;
    let mut options = &packet[60..end];
    let mut out = Vec::new();
    while let [kind, rest @ ..] = options {
        options = match kind {
            0 => break,
            1 => rest,
            _ => {
                out.push(*kind);
                &options[usize::from(rest[0])..]
            }
        };
    }
    out.sort_unstable();
    out
}
