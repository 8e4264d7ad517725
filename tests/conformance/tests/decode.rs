//! Every recorded control connection decodes to its annotated packets, in
//! whatever pieces the bytes arrive.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod proto_json;
mod typed;

use std::collections::BTreeMap;

use adit_drpc::{
    Status,
    codec::{self, Kind, Packet},
};
use adit_tests_conformance::wire::{Dir, Drpc, Recording};
use adit_ws::{ByteStream, Message, Role, WebSocketStream, accept, config};
use adit_yamux::frame;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

/// Streams with deliberate violations, on which the decoder has to stop.
const BROKEN_STREAMS: &[(&str, u32)] = &[
    // Stream id 0.
    ("drpc-malformed-to-server", 35),
    // A message id that goes back.
    ("drpc-malformed-to-server", 37),
    // A number that does not end.
    ("drpc-malformed-to-server-2", 17),
];

/// What one direction of a connection decodes to.
#[derive(Debug, Default, PartialEq)]
struct Decoded {
    packets: BTreeMap<u32, Vec<Packet>>,
    broken: Vec<u32>,
    /// The yamux session itself ended with a violation.
    ended: bool,
}

/// Decodes a byte stream that arrives in the given pieces.
fn decode(input: &[u8], mut pieces: impl FnMut() -> usize) -> Decoded {
    let mut yamux = frame::Decoder::default();
    let mut streams: BTreeMap<u32, (BytesMut, codec::Decoder)> = BTreeMap::new();
    let mut decoded = Decoded::default();
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(pieces().clamp(1, rest.len()));
        rest = left;
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match yamux.next(&mut piece) {
                Ok(Some(frame::Item::Body { stream, data, .. })) => {
                    if decoded.broken.contains(&stream) {
                        continue;
                    }
                    let (buffer, drpc) = streams.entry(stream).or_default();
                    buffer.extend_from_slice(&data);
                    loop {
                        match drpc.decode(buffer) {
                            Ok(Some(packet)) => {
                                decoded.packets.entry(stream).or_default().push(packet);
                            }
                            Ok(None) => break,
                            Err(_) => {
                                decoded.broken.push(stream);
                                break;
                            }
                        }
                    }
                }
                Ok(Some(frame::Item::Header(_))) => {}
                Ok(None) => break,
                Err(_) => {
                    decoded.ended = true;
                    return decoded;
                }
            }
        }
    }
    decoded
}

/// Recorded messages, sent through a real WebSocket, come out as one byte
/// stream.
#[tokio::test]
async fn websocket_messages_become_the_byte_stream() {
    let recording = Recording::load("tailnet-ping-ssh").unwrap();
    for (conn, dir) in recording.drpc_flows() {
        let (near, far) = tokio::io::duplex(4096);
        let mut sender = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let frames = recording.ws_of(conn, dir).cloned().collect::<Vec<_>>();
        let send = async move {
            for frame in frames.iter().filter(|frame| frame.is_data()) {
                let message = Message::Binary(frame.payload.clone());
                sender.send(message).await.unwrap();
            }
            sender.close(None).await.unwrap();
            // The answer to the close frame.
            while sender.next().await.is_some() {}
        };
        let receive = async move {
            let mut stream = ByteStream::new(accept(far, config()).await);
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            received
        };
        let ((), received) = tokio::join!(send, receive);
        assert!(
            received == recording.ws_stream(conn, dir),
            "connection {conn}"
        );
    }
}

#[test]
fn recordings_decode_to_their_annotations() {
    let mut packets = 0;
    let mut broken = Vec::new();
    for name in Recording::names_with_drpc().unwrap() {
        let recording = Recording::load(&name).unwrap();
        for (conn, dir) in recording.drpc_flows() {
            let decoded = decode(&recording.ws_stream(conn, dir), || usize::MAX);
            packets += compare(&recording, conn, dir, &decoded);
            broken.extend(decoded.broken.iter().map(|stream| (name.clone(), *stream)));
        }
    }
    let expected = BROKEN_STREAMS
        .iter()
        .map(|(name, stream)| ((*name).to_owned(), *stream));
    broken.sort();
    assert!(
        broken.into_iter().eq(expected),
        "violations were not noticed"
    );
    // The recordings hold about two thousand packets; a reader that finds
    // none of them would pass everything else.
    assert!(packets > 1500, "only {packets} packets compared");
}

fn compare(recording: &Recording, conn: u32, dir: Dir, decoded: &Decoded) -> usize {
    let mut expected: BTreeMap<u32, Vec<&Drpc>> = BTreeMap::new();
    for packet in recording.drpc_of(conn, dir) {
        expected.entry(packet.stream).or_default().push(packet);
    }
    let name = recording.name.as_str();
    let malformed = name.starts_with("drpc-malformed");
    assert!(malformed || !decoded.ended, "{name}: yamux violation");

    let mut compared = 0;
    for (stream, expected) in &expected {
        let actual = decoded.packets.get(stream).map_or(&[][..], Vec::as_slice);
        if decoded.broken.contains(stream) {
            assert!(actual.len() < expected.len(), "{name}: stream {stream}");
        } else {
            assert_eq!(actual.len(), expected.len(), "{name}: stream {stream}");
        }
        for (actual, expected) in actual.iter().zip(expected) {
            compare_packet(name, dir, actual, expected);
            compared += 1;
        }
    }
    let unexpected = decoded.packets.keys().find(|id| !expected.contains_key(id));
    assert_eq!(unexpected, None, "{name}: stream is not annotated");
    compared
}

fn compare_packet(name: &str, dir: Dir, actual: &Packet, expected: &Drpc) {
    let place = format!(
        "{name}: connection {} {dir:?} stream {} message {}",
        expected.conn, expected.stream, expected.mid
    );
    assert_eq!(actual.stream, expected.sid, "{place}");
    assert_eq!(actual.message, expected.mid, "{place}");
    assert_eq!(
        actual.control,
        expected.control || actual.kind == Kind::Cancel,
        "{place}"
    );
    let kind = match actual.kind {
        Kind::Unknown(_) => String::new(),
        kind => format!("{kind:?}"),
    };
    assert_eq!(kind, expected.kind, "{place}");
    match actual.kind {
        Kind::Invoke => assert_eq!(actual.data, expected.method, "{place}"),
        Kind::Error => {
            let status = Status::decode(&actual.data);
            assert_eq!(Some(status.code), expected.code, "{place}");
            assert_eq!(Some(status.message), expected.error, "{place}");
        }
        Kind::Message => compare_message(&place, dir, &actual.data, expected),
        _ => {}
    }
}

fn compare_message(place: &str, dir: Dir, data: &Bytes, expected: &Drpc) {
    let Some(json) = &expected.msg else {
        return;
    };
    let response = dir == Dir::ToClient;
    let Some(descriptor) = proto_json::message_of(&expected.method, response) else {
        assert!(
            expected.method.contains("Nope") || expected.method.is_empty(),
            "{place}"
        );
        return;
    };
    // What our types keep of the message is what is compared.
    let typed = typed::round_trip(&expected.method, response, data.clone());
    if json
        .as_str()
        .is_some_and(|text| text.starts_with("UNMARSHAL ERROR"))
    {
        assert!(typed.is_err(), "{place}: decodes");
        return;
    }
    let actual = proto_json::to_json(descriptor, &typed.expect(place));
    assert!(
        proto_json::same(&actual, json),
        "{place}:\n  decoded  {actual}\n  expected {json}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn pieces_do_not_matter(seed in 1..u64::MAX, largest in 1..400usize) {
        for name in ["drpc-malformed-to-server-2", "workspace-updates", "agent-peer-overwritten"] {
            let recording = Recording::load(name).unwrap();
            for (conn, dir) in recording.drpc_flows() {
                let input = recording.ws_stream(conn, dir);
                let mut state = seed;
                let pieces = || {
                    // xorshift, good enough to vary sizes.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    usize::try_from(state % largest as u64).unwrap() + 1
                };
                prop_assert_eq!(decode(&input, pieces), decode(&input, || usize::MAX));
            }
        }
    }

    #[test]
    fn damaged_recordings_end_in_an_error_or_decode(
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let recording = Recording::load("tailnet-ping-ssh").unwrap();
        for (conn, dir) in recording.drpc_flows() {
            let mut input = recording.ws_stream(conn, dir);
            let length = input.len();
            input[at.index(length)] ^= flip;
            input.truncate(cut.index(length) + 1);
            let decoded = decode(&input, || 64);
            for packet in decoded.packets.values().flatten() {
                for method in ["/coder.tailnet.v2.Tailnet/Coordinate", "/coder.agent.v2.Agent/GetManifest"] {
                    let _ = typed::round_trip(method, false, packet.data.clone());
                    let _ = typed::round_trip(method, true, packet.data.clone());
                }
            }
        }
    }
}
