//! A recorded server against our client.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use adit_derp::frame::{self, Decoder, RawFrame, kind};
use adit_derp::handshake::{self, ClientInfo, ServerInfo};
use adit_derp::{
    CarrierKind, Client, CloseReason, ConnectError, ConnectOptions, Event, Memory, PeerGoneReason,
};
use adit_http::{ClientConfig, Endpoint, ProxyConfig, Url};
use adit_keys::NodePublic;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use support::{SOON, Step, encoded, fixed_key, records, steps};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

fn http() -> adit_http::Client {
    let mut config = ClientConfig::new(Url::parse("http://127.0.0.1:1").unwrap());
    config.proxy = ProxyConfig::none();
    adit_http::Client::new(config).unwrap()
}

fn options(address: SocketAddr, websocket_only: bool) -> ConnectOptions {
    let endpoint = Endpoint::new(address.ip().to_string(), address.port(), false);
    let mut options = ConnectOptions::new(fixed_key("client_private"), vec![endpoint]);
    options.websocket_only = websocket_only;
    options
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// A server that answers with a recorded head and speaks recorded frames.
struct Server {
    io: Io,
    decoder: Decoder,
}

enum Io {
    Upgrade(TcpStream),
    WebSocket(Box<WebSocketStream<TcpStream>>),
}

impl Server {
    async fn accept(listener: &TcpListener, name: &str) -> Self {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("GET /derp HTTP/1.1\r\n"), "{head}");
        assert!(header(&head, "coder-session-token").is_none());
        let recorded = records(name)
            .into_iter()
            .find(|record| record["type"] == "http" && record["dir"] == "s2c")
            .unwrap();
        let mut answer = recorded["head"].as_str().unwrap().to_owned();
        let io = if let Some(key) = header(&head, "sec-websocket-key") {
            assert_eq!(header(&head, "sec-websocket-protocol"), Some("derp"));
            assert_eq!(header(&head, "sec-websocket-extensions"), None);
            let old = header(&answer, "sec-websocket-accept").unwrap().to_owned();
            answer = answer.replace(&old, &derive_accept_key(key.as_bytes()));
            stream.write_all(answer.as_bytes()).await.unwrap();
            Io::WebSocket(Box::new(
                WebSocketStream::from_raw_socket(stream, Role::Server, None).await,
            ))
        } else {
            assert_eq!(header(&head, "upgrade"), Some("DERP"));
            // The first frame in the same segment as the head.
            let mut out = BytesMut::from(answer.as_bytes());
            frame::put_server_key(&mut out, &fixed_key("server_private").public());
            stream.write_all(&out).await.unwrap();
            Io::Upgrade(stream)
        };
        Self {
            io,
            decoder: Decoder::for_client(),
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        match &mut self.io {
            // Split so that frames straddle reads.
            Io::Upgrade(stream) => {
                for part in bytes.chunks(1000) {
                    stream.write_all(part).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
            Io::WebSocket(socket) => {
                for part in bytes.chunks(4096) {
                    let message = Message::Binary(Bytes::copy_from_slice(part));
                    socket.send(message).await.unwrap();
                }
            }
        }
    }

    async fn recv(&mut self) -> RawFrame {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return frame;
            }
            match &mut self.io {
                Io::Upgrade(stream) => {
                    assert!(stream.read_buf(self.decoder.buffer()).await.unwrap() > 0);
                }
                Io::WebSocket(socket) => {
                    if let Message::Binary(data) = socket.next().await.unwrap().unwrap() {
                        assert!(data.len() <= 4096);
                        self.decoder.buffer().extend_from_slice(&data);
                    }
                }
            }
        }
    }

    async fn greet(&mut self) {
        let key = fixed_key("server_private");
        if matches!(self.io, Io::WebSocket(_)) {
            let mut out = BytesMut::new();
            frame::put_server_key(&mut out, &key.public());
            self.send(&out).await;
        }
        let info = self.recv().await;
        assert_eq!(info.kind, kind::CLIENT_INFO);
        assert_eq!(info.body.len(), 104);
        let (client, info) = ClientInfo::open(&info.body, &key).unwrap();
        assert_eq!(client, fixed_key("client_private").public());
        assert_eq!(info, ClientInfo::ours());
        let mut out = BytesMut::new();
        ServerInfo::ours().put(&mut out, &key, &client, &handshake::nonce());
        self.send(&out).await;
    }
}

/// Lets our client do what the recorded client A did.
async fn replay(name: &str, websocket: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = options(listener.local_addr().unwrap(), websocket);
    let (http, memory) = (http(), Memory::default());
    let connect = Client::connect(&http, &options, &memory);
    let serve = async {
        let mut server = Server::accept(&listener, name).await;
        server.greet().await;
        server
    };
    let (client, mut server) = tokio::join!(connect, serve);
    let client = client.unwrap();
    let kind = if websocket {
        CarrierKind::WebSocket
    } else {
        CarrierKind::Upgrade
    };
    assert_eq!(client.carrier(), kind);
    assert_eq!(client.server_key(), fixed_key("server_private").public());

    let mut received = Vec::new();
    let mut events = 0;
    for (conn, step) in steps(name) {
        match step {
            _ if conn != 1 => {}
            Step::Client(recorded) => {
                match recorded.kind {
                    kind::CLIENT_INFO => continue,
                    kind::SEND_PACKET => {
                        let dst = NodePublic::from_bytes(*recorded.body.first_chunk().unwrap());
                        let packet = recorded.body.slice(32..);
                        assert_eq!(client.send_batch([(dst, packet)]), 0);
                    }
                    kind::NOTE_PREFERRED => client.note_preferred(recorded.body[0] == 1),
                    // Our client's pings have their own payload.
                    kind::PING => {
                        let answer = async {
                            let ping = server.recv().await;
                            assert_eq!((ping.kind, ping.body.len()), (kind::PING, 8));
                            let mut out = BytesMut::new();
                            frame::put(&mut out, kind::PONG, &[&ping.body]);
                            server.send(&out).await;
                        };
                        let (round_trip, ()) = tokio::join!(client.ping(), answer);
                        assert!(round_trip.unwrap() < SOON);
                        continue;
                    }
                    other => panic!("{other}"),
                }
                assert_eq!(server.recv().await, recorded, "{name}");
            }
            Step::Server(recorded) => {
                if matches!(recorded.kind, kind::RECV_PACKET | kind::PEER_GONE) {
                    events += 1;
                }
                if !matches!(
                    recorded.kind,
                    kind::SERVER_KEY | kind::SERVER_INFO | kind::PONG
                ) {
                    server.send(&encoded(&recorded)).await;
                }
            }
            Step::ClientFin | Step::ServerFin => break,
        }
    }
    while received.len() < events {
        client.recv_batch(&mut received, 100).await.unwrap();
    }
    let unknown = received.iter().any(|event| {
        matches!(
            event,
            Event::PeerGone {
                reason: PeerGoneReason::NotHere,
                ..
            }
        )
    });
    assert!(unknown, "{received:?}");
    drop(server);
    let reason = tokio::time::timeout(SOON, client.closed()).await.unwrap();
    assert!(
        matches!(reason, CloseReason::Eof | CloseReason::Io { .. }),
        "{reason:?}"
    );
}

#[tokio::test]
async fn server_over_upgrade() {
    replay("derp-upgrade", false).await;
}

#[tokio::test]
async fn server_over_websocket() {
    replay("derp-websocket", true).await;
}

#[tokio::test]
async fn server_that_stops() {
    replay("derp-server-stop", false).await;
}

/// Serves one raw connection with `behave` and connects to it.
async fn against<F: Future<Output = ()>>(
    behave: impl FnOnce(TcpStream) -> F,
) -> Result<Client, ConnectError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options(listener.local_addr().unwrap(), false);
    options.timeout = Duration::from_secs(3);
    let (http, memory) = (http(), Memory::default());
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        behave(stream).await;
        drop(listener);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = Client::connect(&http, &options, &memory) => result,
        () = serve => unreachable!(),
    }
}

const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n";

#[tokio::test]
async fn a_wrong_greeting_is_refused() {
    let result = against(|mut stream| async move {
        stream.write_all(SWITCH).await.unwrap();
        stream.write_all(&[1, 0, 0, 0, 40]).await.unwrap();
        stream.write_all(&[0; 40]).await.unwrap();
    })
    .await;
    let error = result.err().unwrap();
    assert!(
        matches!(error, ConnectError::Handshake(CloseReason::Protocol(_))),
        "{error}"
    );
}

#[tokio::test]
async fn a_relay_that_cannot_prove_its_key_is_refused() {
    let result = against(|mut stream| async move {
        let mut out = BytesMut::from(SWITCH);
        frame::put_server_key(&mut out, &fixed_key("peer_private").public());
        let client = fixed_key("client_private").public();
        let wrong = fixed_key("server_private");
        ServerInfo::ours().put(&mut out, &wrong, &client, &handshake::nonce());
        stream.write_all(&out).await.unwrap();
        let mut rest = [0; 109];
        stream.read_exact(&mut rest).await.unwrap();
    })
    .await;
    let error = result.err().unwrap();
    assert!(
        matches!(error, ConnectError::Handshake(CloseReason::Handshake(_))),
        "{error}"
    );
}

#[tokio::test]
async fn an_oversized_frame_ends_the_connection_and_pings_are_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = options(listener.local_addr().unwrap(), false);
    let (http, memory) = (http(), Memory::default());
    let connect = Client::connect(&http, &options, &memory);
    let serve = async {
        let mut server = Server::accept(&listener, "derp-upgrade").await;
        server.greet().await;
        server
    };
    let (client, mut server) = tokio::join!(connect, serve);
    let client = client.unwrap();
    let mut out = BytesMut::new();
    frame::put_ping(&mut out, &[7; 8]);
    server.send(&out).await;
    let pong = server.recv().await;
    assert_eq!((pong.kind, &pong.body[..]), (kind::PONG, &[7; 8][..]));
    server.send(&[0x05, 0x00, 0x10, 0x00, 0x01]).await;
    let reason = tokio::time::timeout(SOON, client.closed()).await.unwrap();
    assert!(matches!(reason, CloseReason::Frame(_)), "{reason:?}");
    let mut events = Vec::new();
    assert_eq!(client.recv_batch(&mut events, 1).await, Err(reason));
    assert_eq!(
        client.send_batch([(fixed_key("peer_private").public(), Bytes::new())]),
        1
    );
    assert_eq!(client.ping().await, None);
}
