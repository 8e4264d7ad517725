//! Recordings of original programs, and peers made by hand.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashMap;
use std::time::Duration;

use adit_derp::frame::{Decoder, RawFrame};
use adit_derp::handshake::{self, ClientInfo};
use adit_derp::{CarrierKind, Frame};
use adit_keys::{NodePrivate, NodePublic};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// The wait for anything that should come at once.
pub const SOON: Duration = Duration::from_secs(5);

pub fn records(name: &str) -> Vec<Value> {
    let path = format!(
        "{}/../../tests/vectors/wire/{name}.jsonl",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// Private keys of the recorded clients A and B, and of a relay.
pub fn fixed_key(role: &str) -> NodePrivate {
    let boxes = records("derp-boxes");
    let keys = boxes
        .iter()
        .find(|record| record["type"] == "keys")
        .unwrap();
    NodePrivate::from_bytes(bytes(&keys[role]).try_into().unwrap())
}

/// Something that a recorded connection did.
#[derive(Debug, Clone)]
pub enum Step {
    Client(RawFrame),
    Server(RawFrame),
    ClientFin,
    ServerFin,
}

/// The frames of a recording in order, with their connections.
pub fn steps(name: &str) -> Vec<(u64, Step)> {
    let records = records(name);
    let websocket = records.iter().any(|record| record["type"] == "ws");
    let carried = if websocket { "ws" } else { "derp" };
    let mut decoders: HashMap<(u64, bool), Decoder> = HashMap::new();
    let mut steps = Vec::new();
    for record in &records {
        let conn = record["conn"].as_u64().unwrap_or(0);
        let from_client = record["dir"] == "c2s";
        let kind = record["type"].as_str().unwrap();
        if kind == carried && (!websocket || record["op"] == "binary") {
            let decoder = decoders
                .entry((conn, from_client))
                .or_insert_with(Decoder::for_client);
            decoder.buffer().extend_from_slice(&bytes(&record["hex"]));
            while let Some(frame) = decoder.next_frame().unwrap() {
                let step = if from_client {
                    Step::Client(frame)
                } else {
                    Step::Server(frame)
                };
                steps.push((conn, step));
            }
        }
        if kind == "tcp" && record["event"] == "fin" {
            let step = if from_client {
                Step::ClientFin
            } else {
                Step::ServerFin
            };
            steps.push((conn, step));
        }
    }
    steps
}

pub fn encoded(frame: &RawFrame) -> BytesMut {
    let mut out = BytesMut::new();
    adit_derp::frame::put(&mut out, frame.kind, &[&frame.body]);
    out
}

/// A client's end of a pipe, speaking frames.
pub enum Pipe {
    Upgrade(DuplexStream, Decoder),
    WebSocket(Box<WebSocketStream<DuplexStream>>, Decoder, Vec<usize>),
}

impl Pipe {
    pub async fn new(io: DuplexStream, kind: CarrierKind) -> Self {
        match kind {
            CarrierKind::Upgrade => Self::Upgrade(io, Decoder::for_client()),
            CarrierKind::WebSocket => {
                let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
                let socket = WebSocketStream::from_raw_socket(io, role, None).await;
                Self::WebSocket(Box::new(socket), Decoder::for_client(), Vec::new())
            }
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Upgrade(io, _) => io.write_all(bytes).await.unwrap(),
            Self::WebSocket(socket, ..) => {
                let message = Message::Binary(Bytes::copy_from_slice(bytes));
                socket.send(message).await.unwrap();
            }
        }
    }

    /// The next frame, `None` at the end of the stream.
    pub async fn recv(&mut self) -> Option<RawFrame> {
        tokio::time::timeout(SOON, self.recv_patiently())
            .await
            .unwrap()
    }

    pub async fn recv_patiently(&mut self) -> Option<RawFrame> {
        loop {
            match self {
                Self::Upgrade(io, decoder) => {
                    if let Some(frame) = decoder.next_frame().unwrap() {
                        return Some(frame);
                    }
                    if io.read_buf(decoder.buffer()).await.unwrap() == 0 {
                        return None;
                    }
                }
                Self::WebSocket(socket, decoder, lengths) => {
                    if let Some(frame) = decoder.next_frame().unwrap() {
                        return Some(frame);
                    }
                    match socket.next().await? {
                        Ok(Message::Binary(data)) => {
                            lengths.push(data.len());
                            decoder.buffer().extend_from_slice(&data);
                        }
                        Ok(Message::Close(_)) | Err(_) => return None,
                        Ok(_) => {}
                    }
                }
            }
        }
    }

    /// Lengths of the WebSocket messages received.
    pub fn message_lengths(&self) -> &[usize] {
        match self {
            Self::Upgrade(..) => &[],
            Self::WebSocket(_, _, lengths) => lengths,
        }
    }

    pub async fn frame(&mut self) -> Frame {
        Frame::parse(self.recv().await.unwrap())
    }

    /// The client's part of the handshake; gives the relay's key.
    pub async fn greet(&mut self, key: &NodePrivate) -> NodePublic {
        let Frame::ServerKey(server) = self.frame().await else {
            panic!("no greeting")
        };
        let mut out = BytesMut::new();
        ClientInfo::ours().put(&mut out, key, &server, &handshake::nonce());
        self.send(&out).await;
        server
    }
}
