//! What the relay tolerates, refuses and keeps to.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use adit_derp::frame::{self, MAX_PACKET, kind};
use adit_derp::relay::SessionEnd;
use adit_derp::{CarrierKind, Frame, PeerGoneReason, Relay, RelayConfig};
use adit_keys::NodePrivate;
use bytes::BytesMut;
use support::Pipe;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;

fn relay() -> Relay {
    Relay::new(RelayConfig::new(NodePrivate::generate()))
}

async fn connect(relay: &Relay, key: &NodePrivate) -> (Pipe, JoinHandle<SessionEnd>) {
    connect_with(relay, key, CarrierKind::Upgrade, 1 << 20).await
}

async fn connect_with(
    relay: &Relay,
    key: &NodePrivate,
    carrier: CarrierKind,
    pipe: usize,
) -> (Pipe, JoinHandle<SessionEnd>) {
    let (ours, theirs) = tokio::io::duplex(pipe);
    let served = relay.clone();
    let session = tokio::spawn(async move { served.serve(theirs, carrier).await });
    let mut pipe = Pipe::new(ours, carrier).await;
    pipe.greet(key).await;
    assert!(matches!(pipe.frame().await, Frame::ServerInfo(_)));
    (pipe, session)
}

fn one(kind: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    frame::put(&mut out, kind, &[body]);
    out
}

#[tokio::test]
async fn forbidden_and_malformed_frames_end_the_session() {
    let key = NodePrivate::generate();
    for (kind, body) in [
        (kind::SEND_PACKET, vec![0; 31]),
        (kind::SEND_PACKET, vec![0; 33 + MAX_PACKET]),
        (kind::NOTE_PREFERRED, vec![]),
        (kind::NOTE_PREFERRED, vec![1, 1]),
        (kind::PING, vec![0; 7]),
        (kind::PING, vec![0; 1001]),
    ] {
        let (mut pipe, session) = connect(&relay(), &key).await;
        pipe.send(&one(kind, &body)).await;
        assert!(
            matches!(session.await.unwrap(), SessionEnd::Frame(_)),
            "{kind}"
        );
        assert!(pipe.recv().await.is_none());
    }
    for kind in [kind::WATCH_CONNS, kind::CLOSE_PEER, kind::FORWARD_PACKET] {
        let (mut pipe, session) = connect(&relay(), &key).await;
        pipe.send(&one(kind, &[])).await;
        assert_eq!(session.await.unwrap(), SessionEnd::MeshOnly(kind));
    }
}

#[tokio::test]
async fn frames_without_meaning_are_read_over() {
    let (mut pipe, _session) = connect(&relay(), &NodePrivate::generate()).await;
    for kind in [
        kind::SERVER_KEY,
        kind::RECV_PACKET,
        kind::PONG,
        kind::HEALTH,
        0x77,
    ] {
        pipe.send(&one(kind, &[7; 300])).await;
    }
    // Larger than anything that would be kept.
    pipe.send(&one(0x78, &vec![0; 300_000])).await;
    pipe.send(&one(kind::PING, b"12345678 and more")).await;
    assert_eq!(pipe.frame().await, Frame::Pong(*b"12345678"));
}

#[tokio::test]
async fn the_first_frame_must_prove_a_key() {
    for first in [
        one(kind::PING, &[0; 8]),
        one(kind::CLIENT_INFO, &[0; 55]),
        one(kind::CLIENT_INFO, &[1; 104]),
        one(kind::CLIENT_INFO, &vec![0; 262_145]),
    ] {
        let relay = relay();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let served = relay.clone();
        let session = tokio::spawn(async move { served.serve(theirs, CarrierKind::Upgrade).await });
        let mut pipe = Pipe::new(ours, CarrierKind::Upgrade).await;
        assert_eq!(pipe.frame().await, Frame::ServerKey(relay.public_key()));
        pipe.send(&first).await;
        assert!(matches!(session.await.unwrap(), SessionEnd::Handshake(_)));
        assert_eq!(relay.stats().connections, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn handshakes_have_ten_seconds() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let start = Instant::now();
    assert_eq!(
        relay().serve(theirs, CarrierKind::Upgrade).await,
        SessionEnd::TimedOut
    );
    assert_eq!(start.elapsed().as_secs(), 10);
    drop(ours);
}

#[tokio::test(start_paused = true)]
async fn idle_clients_hear_a_keep_alive_each_minute() {
    for carrier in [CarrierKind::Upgrade, CarrierKind::WebSocket] {
        let (mut pipe, _session) =
            connect_with(&relay(), &NodePrivate::generate(), carrier, 4096).await;
        for _ in 0..3 {
            let start = Instant::now();
            let frame = pipe.recv_patiently().await.unwrap();
            assert_eq!(Frame::parse(frame), Frame::KeepAlive);
            let waited = start.elapsed();
            assert!((59..=66).contains(&waited.as_secs()), "{waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_for_two_seconds_is_dropped() {
    let relay = relay();
    let (a, b) = (NodePrivate::generate(), NodePrivate::generate());
    let (mut sender, _session) = connect(&relay, &a).await;
    for carrier in [CarrierKind::Upgrade, CarrierKind::WebSocket] {
        let (mut stuck, session) = connect_with(&relay, &b, carrier, 4096).await;
        let mut out = BytesMut::new();
        frame::put_send_packet(&mut out, &a.public(), b"hello");
        stuck.send(&out).await;
        let hello = Frame::RecvPacket {
            src: b.public(),
            packet: "hello".into(),
        };
        assert_eq!(sender.frame().await, hello);
        let start = Instant::now();
        for _ in 0..100 {
            let mut out = BytesMut::new();
            frame::put_send_packet(&mut out, &b.public(), &[9; 1300]);
            sender.send(&out).await;
        }
        assert_eq!(session.await.unwrap(), SessionEnd::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 2);
        let gone = PeerGoneReason::Disconnected;
        let expected = Frame::PeerGone {
            peer: b.public(),
            reason: gone,
        };
        assert_eq!(sender.frame().await, expected);
    }
}

#[tokio::test]
async fn a_full_queue_keeps_the_newest_packets() {
    let mut config = RelayConfig::new(NodePrivate::generate());
    config.write_timeout = Duration::from_secs(60);
    let relay = Relay::new(config);
    let (a, b) = (NodePrivate::generate(), NodePrivate::generate());
    let (mut sender, _s) = connect(&relay, &a).await;
    let (mut receiver, _r) = connect_with(&relay, &b, CarrierKind::Upgrade, 1024).await;
    for n in 0..2000u32 {
        let mut out = BytesMut::new();
        let packet = [&n.to_be_bytes()[..], &[0; 600]].concat();
        frame::put_send_packet(&mut out, &b.public(), &packet);
        sender.send(&out).await;
    }
    while relay.stats().packets < 2000 {
        tokio::task::yield_now().await;
    }
    let stats = relay.stats();
    let mut got = Vec::new();
    for _ in 0..2000 - stats.dropped {
        let Frame::RecvPacket { packet, .. } = receiver.frame().await else {
            panic!()
        };
        got.push(u32::from_be_bytes(*packet.first_chunk().unwrap()));
    }
    assert!(got.is_sorted());
    let last: Vec<u32> = (2000 - 512..2000).collect();
    assert_eq!(got[got.len() - 512..], last);
    assert!(got.len() < 800, "{}", got.len());
}

#[tokio::test(start_paused = true)]
async fn not_here_is_said_only_for_disco_and_not_too_often() {
    let (mut pipe, _session) = connect(&relay(), &NodePrivate::generate()).await;
    let nobody = NodePrivate::generate().public();
    let mut disco = adit_disco::MAGIC.to_vec();
    disco.resize(62, 0);
    let mut out = BytesMut::new();
    frame::put_send_packet(&mut out, &nobody, &[4; 100]);
    frame::put_send_packet(&mut out, &nobody, &disco[..61]);
    for _ in 0..10 {
        frame::put_send_packet(&mut out, &nobody, &disco);
    }
    frame::put_ping(&mut out, &[1; 8]);
    pipe.send(&out).await;
    let reason = PeerGoneReason::NotHere;
    let gone = Frame::PeerGone {
        peer: nobody,
        reason,
    };
    let mut pongs = 0;
    for _ in 0..4 {
        let frame = pipe.frame().await;
        pongs += usize::from(frame == Frame::Pong([1; 8]));
        assert!(frame == gone || pongs == 1, "{frame:?}");
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut out = BytesMut::new();
    frame::put_send_packet(&mut out, &nobody, &disco);
    frame::put_send_packet(&mut out, &nobody, &disco);
    pipe.send(&out).await;
    assert_eq!(pipe.frame().await, gone);
    assert_eq!(
        Frame::parse(pipe.recv_patiently().await.unwrap()),
        Frame::KeepAlive
    );
}

#[tokio::test]
async fn text_on_a_websocket_ends_the_session() {
    use futures_util::SinkExt as _;
    let key = NodePrivate::generate();
    let (mut pipe, session) = connect_with(&relay(), &key, CarrierKind::WebSocket, 4096).await;
    let Pipe::WebSocket(socket, ..) = &mut pipe else {
        panic!()
    };
    socket.send("hello".into()).await.unwrap();
    assert!(matches!(session.await.unwrap(), SessionEnd::Broken(_)));
    let close = futures_util::StreamExt::next(socket)
        .await
        .unwrap()
        .unwrap();
    let tokio_tungstenite::tungstenite::Message::Close(Some(close)) = close else {
        panic!()
    };
    assert_eq!(u16::from(close.code), 1003);
}

#[tokio::test]
async fn garbage_after_the_handshake_never_hurts_others() {
    let relay = relay();
    let (a, b) = (NodePrivate::generate(), NodePrivate::generate());
    let (mut good, session) = connect(&relay, &a).await;
    for seed in 0..50u8 {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        relay.spawn(async move { Ok::<_, String>(theirs) }, CarrierKind::Upgrade);
        let mut pipe = Pipe::new(ours, CarrierKind::Upgrade).await;
        pipe.greet(&b).await;
        let noise: Vec<u8> = (0..200u8).map(|n| n.wrapping_mul(seed) ^ seed).collect();
        if let Pipe::Upgrade(io, _) = &mut pipe {
            // The relay may close while we write.
            let _ = io.write_all(&noise).await;
        }
    }
    good.send(&one(kind::PING, &[3; 8])).await;
    assert_eq!(good.frame().await, Frame::Pong([3; 8]));
    relay.close().await;
    assert_eq!(session.await.unwrap(), SessionEnd::Stopped);
    assert_eq!(relay.stats().connections, 0);
}
