//! Recorded clients against our relay: it must send what the recorded one
//! sent.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::HashMap;

use adit_derp::frame::{RawFrame, kind};
use adit_derp::handshake::{self, ClientInfo, ServerInfo};
use adit_derp::{CarrierKind, Frame, Relay, RelayConfig};
use adit_keys::{NodePrivate, NodePublic};
use bytes::BytesMut;
use support::{Pipe, Step, encoded, fixed_key, steps};

/// Puts our keys in the place of recorded ones.
#[derive(Default)]
struct Keys(HashMap<[u8; 32], NodePrivate>);

impl Keys {
    fn of(&mut self, recorded: &NodePublic) -> NodePrivate {
        let fixed = ["client_private", "peer_private"].map(fixed_key);
        let known = fixed.into_iter().find(|key| key.public() == *recorded);
        let new = || known.unwrap_or_else(NodePrivate::generate);
        self.0
            .entry(*recorded.as_bytes())
            .or_insert_with(new)
            .clone()
    }

    /// The frame with the key at its beginning replaced.
    fn mapped(&mut self, frame: &RawFrame) -> RawFrame {
        let with_key = matches!(
            frame.kind,
            kind::SEND_PACKET | kind::RECV_PACKET | kind::PEER_GONE
        );
        let Some(recorded) = frame.body.first_chunk::<32>().filter(|_| with_key) else {
            return frame.clone();
        };
        let ours = self.of(&NodePublic::from_bytes(*recorded)).public();
        let body = [ours.as_bytes(), &frame.body[32..]].concat();
        RawFrame {
            kind: frame.kind,
            body: body.into(),
        }
    }
}

#[allow(clippy::map_entry, reason = "making the value needs an await")]
async fn replay(name: &str, carrier: CarrierKind) {
    let relay = Relay::new(RelayConfig::new(fixed_key("server_private")));
    let mut keys = Keys::default();
    let mut pipes: HashMap<u64, (Pipe, Option<NodePrivate>)> = HashMap::new();
    let mut stopped = false;
    // Disco and other packets wait in different queues: their order among each
    // other is not fixed.
    let mut aside: Vec<(u64, RawFrame)> = Vec::new();
    for (conn, step) in steps(name) {
        if !pipes.contains_key(&conn) {
            if matches!(step, Step::ClientFin | Step::ServerFin) {
                continue;
            }
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            relay.spawn(async move { Ok::<_, String>(theirs) }, carrier);
            pipes.insert(conn, (Pipe::new(ours, carrier).await, None));
        }
        let (pipe, own) = pipes.get_mut(&conn).unwrap();
        match step {
            Step::Client(frame) if frame.kind == kind::CLIENT_INFO => {
                let recorded = NodePublic::from_bytes(*frame.body.first_chunk().unwrap());
                let key = keys.of(&recorded);
                let mut out = BytesMut::new();
                ClientInfo::ours().put(&mut out, &key, &relay.public_key(), &handshake::nonce());
                assert_eq!(out.len(), encoded(&frame).len(), "{name}");
                pipe.send(&out).await;
                *own = Some(key);
            }
            Step::Client(frame) => pipe.send(&encoded(&keys.mapped(&frame))).await,
            Step::Server(frame) => {
                if frame.kind == kind::KEEP_ALIVE {
                    continue;
                }
                let expected = (conn, keys.mapped(&frame));
                if let Some(at) = aside.iter().position(|kept| *kept == expected) {
                    aside.remove(at);
                    continue;
                }
                let mut got = pipe.recv().await.unwrap();
                while got.kind == kind::RECV_PACKET && got != expected.1 && aside.len() < 4 {
                    aside.push((conn, got));
                    got = pipe.recv().await.unwrap();
                }
                match frame.kind {
                    kind::SERVER_KEY => {
                        assert_eq!(Frame::parse(got), Frame::ServerKey(relay.public_key()));
                    }
                    kind::SERVER_INFO => {
                        assert_eq!(got.body.len(), frame.body.len());
                        let own = own.as_ref().unwrap();
                        let info = ServerInfo::open(&got.body, own, &relay.public_key()).unwrap();
                        assert_eq!(info, ServerInfo::ours());
                    }
                    _ => assert_eq!((conn, got), expected, "{name}"),
                }
            }
            Step::ClientFin if stopped => {}
            Step::ClientFin => {
                pipes.remove(&conn);
            }
            Step::ServerFin => {
                if !stopped && name == "derp-server-stop" && conn == 1 {
                    // The recorded server was told to stop.
                    stopped = true;
                    relay.close().await;
                    assert_eq!(pipe.recv().await, None);
                }
            }
        }
    }
    let long = |(pipe, _): &(Pipe, _)| pipe.message_lengths().iter().any(|len| *len > 4096);
    assert!(!pipes.values().any(long));
}

#[tokio::test]
async fn clients_over_upgrade() {
    replay("derp-upgrade", CarrierKind::Upgrade).await;
}

#[tokio::test]
async fn clients_over_websocket() {
    replay("derp-websocket", CarrierKind::WebSocket).await;
}

#[tokio::test]
async fn clients_of_a_stopping_server() {
    replay("derp-server-stop", CarrierKind::Upgrade).await;
}

#[tokio::test]
async fn agent_and_cli_forced_to_websocket() {
    replay("derp-forced-websocket", CarrierKind::WebSocket).await;
}

/// The carriers are independent of the recorded conversation.
#[tokio::test]
async fn recorded_conversations_on_the_other_carrier() {
    replay("derp-upgrade", CarrierKind::WebSocket).await;
    replay("derp-forced-websocket", CarrierKind::Upgrade).await;
}
