//! Recorded bytes through the codec, and hostile ones.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use adit_derp::frame::{self, Decoder, FrameError, Policy, RawFrame, kind};
use adit_derp::handshake::{ClientInfo, HandshakeError, ServerInfo};
use adit_derp::{Frame, PeerGoneReason};
use adit_keys::{NodePrivate, NodePublic};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use support::{Step, bytes, encoded, fixed_key, records, steps};

fn decode_in_pieces(bytes: &[u8], piece: usize) -> Vec<RawFrame> {
    let mut decoder = Decoder::for_client();
    let mut frames = Vec::new();
    for part in bytes.chunks(piece) {
        decoder.buffer().extend_from_slice(part);
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push(frame);
        }
    }
    frames
}

fn recorded_frame(name: &str) -> (Vec<u8>, Option<String>) {
    let record = records("derp-boxes")
        .into_iter()
        .find(|record| record["frame"] == name)
        .unwrap();
    (
        bytes(&record["hex"]),
        record["json"].as_str().map(str::to_owned),
    )
}

fn counting(start: u8) -> [u8; 24] {
    std::array::from_fn(|at| start + at as u8)
}

#[test]
fn handshake_frames_match_byte_for_byte() {
    let [client, server] = ["client_private", "server_private"].map(fixed_key);
    let mut out = BytesMut::new();
    frame::put_server_key(&mut out, &server.public());
    assert_eq!(out, recorded_frame("ServerKey").0);

    let mut out = BytesMut::new();
    ClientInfo::ours().put(&mut out, &client, &server.public(), &counting(0xa0));
    let (recorded, json) = recorded_frame("ClientInfo");
    assert_eq!(out, recorded);
    assert_eq!(
        serde_json::to_string(&ClientInfo::ours()).unwrap(),
        json.unwrap()
    );
    let opened = ClientInfo::open(&recorded[5..], &server).unwrap();
    assert_eq!(opened, (client.public(), ClientInfo::ours()));

    let mut out = BytesMut::new();
    ServerInfo::ours().put(&mut out, &server, &client.public(), &counting(0xc0));
    let (recorded, json) = recorded_frame("ServerInfo");
    assert_eq!(out, recorded);
    assert_eq!(
        serde_json::to_string(&ServerInfo::ours()).unwrap(),
        json.unwrap()
    );
    let opened = ServerInfo::open(&recorded[5..], &client, &server.public());
    assert_eq!(opened, Ok(ServerInfo::ours()));
}

#[test]
fn optional_keys_of_the_boxed_json_are_known() {
    let all = r#"{"version":3,"meshKey":"m","CanAckPings":false,"IsProber":true,"x":1}"#;
    let info: ClientInfo = serde_json::from_str(all).unwrap();
    assert_eq!(info.mesh_key, "m");
    assert!(info.is_prober && !info.can_ack_pings && info.version == 3);
    assert_eq!(
        serde_json::to_string(&ClientInfo::default()).unwrap(),
        r#"{"CanAckPings":false}"#
    );
    let limits = r#"{"version":2,"TokenBucketBytesPerSecond":7,"TokenBucketBytesBurst":9}"#;
    let info: ServerInfo = serde_json::from_str(limits).unwrap();
    assert_eq!((info.bytes_per_second, info.bytes_burst), (7, 9));
}

#[test]
fn recorded_frames_are_named_right_and_encode_to_the_same_bytes() {
    for record in records("derp-upgrade") {
        if record["type"] != "derp" {
            continue;
        }
        let recorded = bytes(&record["hex"]);
        let [raw] = decode_in_pieces(&recorded, 7).try_into().unwrap();
        assert_eq!(encoded(&raw), recorded);
        let frame = Frame::parse(raw.clone());
        let mut out = BytesMut::new();
        let name = match &frame {
            Frame::ServerKey(key) => {
                frame::put_server_key(&mut out, key);
                "ServerKey"
            }
            Frame::ServerInfo(_) => "ServerInfo",
            Frame::RecvPacket { src, packet } => {
                frame::put_recv_packet(&mut out, src, packet);
                "RecvPacket"
            }
            Frame::KeepAlive => "KeepAlive",
            Frame::PeerGone { peer, reason } => {
                frame::put_peer_gone(&mut out, peer, *reason);
                "PeerGone"
            }
            Frame::Ping(data) => {
                frame::put_ping(&mut out, data);
                "Ping"
            }
            Frame::Pong(data) => {
                frame::put_pong(&mut out, data);
                "Pong"
            }
            Frame::Ignored(kind::CLIENT_INFO) => "ClientInfo",
            Frame::Ignored(kind::NOTE_PREFERRED) => {
                frame::put_note_preferred(&mut out, raw.body[0] == 1);
                "NotePreferred"
            }
            Frame::Ignored(kind::SEND_PACKET) => {
                let dst = NodePublic::from_bytes(*raw.body.first_chunk().unwrap());
                frame::put_send_packet(&mut out, &dst, &raw.body[32..]);
                "SendPacket"
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(name, record["frame"].as_str().unwrap());
        assert!(out.is_empty() || out == recorded, "{name}");
    }
}

#[test]
fn recorded_streams_decode_in_any_pieces() {
    for name in [
        "derp-upgrade",
        "derp-websocket",
        "derp-server-stop",
        "derp-forced-websocket",
    ] {
        let frames: Vec<_> = steps(name)
            .into_iter()
            .filter_map(|(_, step)| match step {
                Step::Client(frame) | Step::Server(frame) => Some(frame),
                _ => None,
            })
            .collect();
        assert!(frames.len() > 20, "{name}");
        let stream: Vec<u8> = frames.iter().flat_map(encoded).collect();
        for piece in [1, 3, 4096, stream.len()] {
            assert_eq!(decode_in_pieces(&stream, piece), frames, "{name}");
        }
    }
}

#[test]
fn recorded_websocket_messages_hold_the_annotated_frames() {
    let annotated = records("derp-websocket")
        .into_iter()
        .filter(|record| record["type"] == "derp")
        .count();
    let decoded = steps("derp-websocket")
        .into_iter()
        .filter(|(_, step)| matches!(step, Step::Client(_) | Step::Server(_)))
        .count();
    assert_eq!(decoded, annotated);
}

#[test]
fn frames_without_an_own_type_are_tolerated() {
    let parse = |kind, body: &[u8]| {
        Frame::parse(RawFrame {
            kind,
            body: Bytes::copy_from_slice(body),
        })
    };
    assert_eq!(parse(0x77, b"x"), Frame::Ignored(0x77));
    assert_eq!(
        parse(kind::RECV_PACKET, &[0; 31]),
        Frame::Ignored(kind::RECV_PACKET)
    );
    let key = NodePublic::from_bytes([7; 32]);
    let gone = |reason| Frame::PeerGone { peer: key, reason };
    assert_eq!(
        parse(kind::PEER_GONE, &[7; 32]),
        gone(PeerGoneReason::Disconnected)
    );
    let odd = [[7u8; 32].as_slice(), &[9]].concat();
    assert_eq!(parse(kind::PEER_GONE, &odd), gone(PeerGoneReason::Other(9)));
    assert_eq!(parse(kind::HEALTH, b"bad"), Frame::Health("bad".into()));
    let restarting = parse(kind::RESTARTING, &[0, 0, 0, 5, 0, 0, 1, 0]);
    assert_eq!(
        restarting,
        Frame::Restarting {
            reconnect_in_ms: 5,
            try_for_ms: 256
        }
    );
    let greeting = parse(kind::SERVER_KEY, &[[0u8; 8].as_slice(), &[7; 32]].concat());
    assert_eq!(greeting, Frame::Ignored(kind::SERVER_KEY));
}

#[test]
fn decoders_refuse_and_skip_by_the_header_alone() {
    let mut decoder = Decoder::for_client();
    decoder.buffer().extend_from_slice(&[5, 0, 0x10, 0, 1]);
    let refused = FrameError::TooLong {
        kind: 5,
        len: 0x10_0001,
    };
    assert_eq!(decoder.next_frame(), Err(refused));

    let mut decoder = Decoder::new(|kind, _| {
        if kind == 1 {
            Policy::Skip
        } else {
            Policy::Take
        }
    });
    decoder
        .buffer()
        .extend_from_slice(&[1, 0xff, 0xff, 0xff, 0xff, 9, 9, 9]);
    assert_eq!(decoder.next_frame(), Ok(None));
    assert!(decoder.buffer().is_empty());
}

proptest! {
    #[test]
    fn any_frames_round_trip_in_any_pieces(
        frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..20),
        piece in 1usize..64,
    ) {
        let frames: Vec<_> = frames
            .into_iter()
            .map(|(kind, body)| RawFrame { kind, body: body.into() })
            .collect();
        let stream: Vec<u8> = frames.iter().flat_map(encoded).collect();
        prop_assert_eq!(decode_in_pieces(&stream, piece), frames);
    }

    #[test]
    fn hostile_streams_never_panic(bytes: Vec<u8>, piece in 1usize..40) {
        let mut decoder = Decoder::for_client();
        'outer: for part in bytes.chunks(piece) {
            decoder.buffer().extend_from_slice(part);
            let _ = decoder.missing();
            loop {
                match decoder.next_frame() {
                    Ok(Some(raw)) => drop(Frame::parse(raw)),
                    Ok(None) => break,
                    Err(_) => break 'outer,
                }
            }
        }
    }

    #[test]
    fn hostile_bodies_never_panic(kind in 0u8..0x20, body: Vec<u8>) {
        let _ = Frame::parse(RawFrame { kind, body: body.into() });
    }

    #[test]
    fn hostile_boxes_are_refused(body: Vec<u8>) {
        let key = NodePrivate::from_bytes([1; 32]);
        prop_assert!(ClientInfo::open(&body, &key).is_err());
        prop_assert!(ServerInfo::open(&body, &key, &key.public()).is_err());
    }

    #[test]
    fn boxes_with_other_content_are_refused(content in ".*") {
        let key = NodePrivate::from_bytes([1; 32]);
        let nonce = [9; 24];
        let sealed = key.shared(&key.public()).seal(&nonce, content.as_bytes());
        let body = [nonce.as_slice(), &sealed].concat();
        let opened = ServerInfo::open(&body, &key, &key.public());
        prop_assert!(matches!(opened, Ok(_) | Err(HandshakeError::Json)));
    }
}
