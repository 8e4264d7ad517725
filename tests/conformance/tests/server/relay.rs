//! Recorded relay clients, through the server's HTTP: it has to send them what
//! the recorded server sent.

use std::collections::BTreeMap;

use adit_derp::{
    Frame,
    frame::{self, Decoder, RawFrame, kind},
    handshake::{self, ClientInfo, ServerInfo},
};
use adit_keys::{NodePrivate, NodePublic};
use adit_tests_conformance::wire::{Dir, Http, Record, Recording};
use adit_ws::{CloseFrame, Message, Role, WebSocketStream, config};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    deployment::Deployment,
    live::{self, Answer},
};

/// Largest message of the recorded server over a WebSocket, in bytes.
const MAX_MESSAGE: usize = 4096;

/// Packets that may overtake the expected one: disco and others wait in queues
/// of their own, so their order among each other is not fixed.
const MAX_ASIDE: usize = 4;

enum Carrier {
    Upgrade(TcpStream),
    WebSocket(Box<WebSocketStream<TcpStream>>),
}

/// A client's connection.
struct Client {
    carrier: Carrier,
    decoder: Decoder,
    /// Its own key, once it has introduced itself.
    key: Option<NodePrivate>,
    /// Packets heard before those expected.
    aside: Vec<RawFrame>,
    /// The code the server closed with.
    closed: Option<u16>,
}

impl Client {
    async fn send(&mut self, bytes: BytesMut) {
        match &mut self.carrier {
            Carrier::Upgrade(socket) => socket.write_all(&bytes).await.unwrap(),
            Carrier::WebSocket(socket) => {
                socket.send(Message::Binary(bytes.freeze())).await.unwrap();
            }
        }
    }

    /// The next frame that is no sign of life; `None` at the end.
    async fn next(&mut self) -> Option<RawFrame> {
        let next = async {
            loop {
                match self.decoder.next_frame().unwrap() {
                    Some(frame) if frame.kind == kind::KEEP_ALIVE => {}
                    Some(frame) => return Some(frame),
                    None if !self.read().await => return None,
                    None => {}
                }
            }
        };
        tokio::time::timeout(live::PATIENCE, next)
            .await
            .expect("a frame in time")
    }

    /// Reads a piece; says whether there was one.
    async fn read(&mut self) -> bool {
        match &mut self.carrier {
            Carrier::Upgrade(socket) => {
                matches!(socket.read_buf(self.decoder.buffer()).await, Ok(read) if read > 0)
            }
            Carrier::WebSocket(socket) => match socket.next().await {
                Some(Ok(Message::Binary(data))) => {
                    assert!(data.len() <= MAX_MESSAGE, "{} bytes at once", data.len());
                    self.decoder.buffer().extend_from_slice(&data);
                    true
                }
                Some(Ok(Message::Close(frame))) => {
                    self.closed = Some(frame.map_or(1005, |frame| frame.code.into()));
                    false
                }
                Some(Ok(_)) => true,
                Some(Err(_)) | None => false,
            },
        }
    }

    /// Waits for a packet, whatever else comes before it.
    async fn expect(&mut self, wanted: &RawFrame) {
        if let Some(at) = self.aside.iter().position(|kept| kept == wanted) {
            self.aside.remove(at);
            return;
        }
        loop {
            let got = self.next().await.expect("a frame");
            if got == *wanted {
                return;
            }
            let may_wait = got.kind == kind::RECV_PACKET && self.aside.len() < MAX_ASIDE;
            assert!(may_wait, "{got:?} instead of {wanted:?}");
            self.aside.push(got);
        }
    }
}

/// Puts our keys in the place of recorded ones, which nobody has any more.
#[derive(Default)]
struct Keys(BTreeMap<[u8; 32], NodePrivate>);

impl Keys {
    fn of(&mut self, recorded: [u8; 32]) -> NodePrivate {
        let new = NodePrivate::generate;
        self.0.entry(recorded).or_insert_with(new).clone()
    }

    /// The frame with the key at its beginning replaced.
    fn mapped(&mut self, frame: &RawFrame) -> RawFrame {
        let with_key = [kind::SEND_PACKET, kind::RECV_PACKET, kind::PEER_GONE];
        let Some((recorded, rest)) = frame
            .body
            .split_first_chunk::<32>()
            .filter(|_| with_key.contains(&frame.kind))
        else {
            return frame.clone();
        };
        let own = self.of(*recorded).public();
        RawFrame {
            kind: frame.kind,
            body: [own.as_bytes(), rest].concat().into(),
        }
    }
}

struct Replay {
    recording: Recording,
    deployment: Deployment,
    clients: BTreeMap<u32, Client>,
    /// What the recording said, by connection and direction.
    said: BTreeMap<(u32, Dir), Decoder>,
    keys: Keys,
    server: Option<NodePublic>,
    compared: usize,
}

impl Replay {
    async fn connect(&mut self, request: &Http) {
        let answer = self
            .recording
            .http_of(request.conn)
            .find(|message| message.dir == Dir::ToClient)
            .expect("a recorded answer");
        let recorded = Answer {
            status: 101,
            head: answer.head.clone(),
            body: String::new(),
        };
        let mut socket = TcpStream::connect(self.deployment.address()).await.unwrap();
        let head = self.deployment.head(&request.head);
        let own = live::request(&mut socket, &head, "").await;
        assert_eq!(own.status, 101, "{}", own.body);
        for name in [
            "upgrade",
            "connection",
            "derp-version",
            "sec-websocket-protocol",
            "sec-websocket-accept",
            "sec-websocket-extensions",
        ] {
            assert_eq!(own.header(name), recorded.header(name), "{name}");
        }
        let length = |answer: &Answer| answer.header("derp-public-key").map(str::len);
        assert_eq!(length(&own), length(&recorded));
        let carrier = if own.header("upgrade") == Some("DERP") {
            Carrier::Upgrade(socket)
        } else {
            let socket =
                WebSocketStream::from_raw_socket(socket, Role::Client, Some(config())).await;
            Carrier::WebSocket(Box::new(socket))
        };
        let client = Client {
            carrier,
            decoder: Decoder::for_client(),
            key: None,
            aside: Vec::new(),
            closed: None,
        };
        self.clients.insert(request.conn, client);
    }

    /// Goes through the frames of a recorded piece.
    async fn piece(&mut self, conn: u32, dir: Dir, bytes: &Bytes) {
        if !self.clients.contains_key(&conn) {
            return;
        }
        let decoder = self
            .said
            .entry((conn, dir))
            .or_insert_with(Decoder::for_client);
        decoder.buffer().extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push(frame);
        }
        for frame in frames {
            match dir {
                Dir::ToServer => self.say(conn, &frame).await,
                Dir::ToClient => self.hear(conn, &frame).await,
            }
        }
    }

    async fn say(&mut self, conn: u32, frame: &RawFrame) {
        let client = self.clients.get_mut(&conn).unwrap();
        let mut bytes = BytesMut::new();
        if frame.kind == kind::CLIENT_INFO {
            let key = self.keys.of(*frame.body.first_chunk().unwrap());
            let server = self.server.as_ref().expect("a greeting");
            ClientInfo::ours().put(&mut bytes, &key, server, &handshake::nonce());
            assert_eq!(bytes.len(), frame::HEADER_LEN + frame.body.len());
            client.key = Some(key);
        } else {
            frame::put(&mut bytes, frame.kind, &[&self.keys.mapped(frame).body]);
        }
        client.send(bytes).await;
    }

    async fn hear(&mut self, conn: u32, recorded: &RawFrame) {
        let client = self.clients.get_mut(&conn).unwrap();
        self.compared += 1;
        match recorded.kind {
            kind::KEEP_ALIVE => {}
            kind::SERVER_KEY => {
                let got = client.next().await.expect("a greeting");
                let Frame::ServerKey(key) = Frame::parse(got) else {
                    panic!("no greeting");
                };
                // The same on every connection.
                assert_eq!(*self.server.get_or_insert(key), key);
            }
            kind::SERVER_INFO => {
                let got = client.next().await.expect("an introduction");
                assert_eq!(got.kind, kind::SERVER_INFO);
                assert_eq!(got.body.len(), recorded.body.len());
                let (own, server) = (client.key.as_ref(), self.server.as_ref());
                let info = ServerInfo::open(&got.body, own.unwrap(), server.unwrap()).unwrap();
                assert_eq!(info, ServerInfo::ours());
            }
            _ => client.expect(&self.keys.mapped(recorded)).await,
        }
    }

    /// One side ended a connection.
    async fn end(&mut self, conn: u32, dir: Dir) {
        let Some(mut client) = self.clients.remove(&conn) else {
            return;
        };
        assert!(client.aside.is_empty(), "{:?} is too much", client.aside);
        if dir == Dir::ToClient {
            assert_eq!(client.next().await, None);
        }
    }

    async fn close(&mut self, conn: u32, dir: Dir, code: u16) {
        let Some(client) = self.clients.get_mut(&conn) else {
            return;
        };
        if let (Carrier::WebSocket(socket), Dir::ToServer) = (&mut client.carrier, dir) {
            let frame = CloseFrame {
                code: code.into(),
                reason: "".into(),
            };
            socket.send(Message::Close(Some(frame))).await.unwrap();
            // The proxy forwarded the end of the connection before the
            // answer to this.
            assert_eq!(client.next().await, None);
            assert_eq!(client.closed, Some(code));
        }
    }
}

async fn replay(name: &str) {
    let recording = Recording::load(name).unwrap();
    let deployment = Deployment::start(&recording).await;
    let mut replay = Replay {
        recording,
        deployment,
        clients: BTreeMap::new(),
        said: BTreeMap::new(),
        keys: Keys::default(),
        server: None,
        compared: 0,
    };
    for record in replay.recording.records.clone() {
        match record {
            Record::Http(http)
                if http.dir == Dir::ToServer && http.head.starts_with("GET /derp ") =>
            {
                replay.connect(&http).await;
            }
            Record::Derp(derp) => replay.piece(derp.conn, derp.dir, &derp.frame).await,
            Record::Ws(ws) if ws.is_data() => replay.piece(ws.conn, ws.dir, &ws.payload).await,
            Record::Ws(ws) if ws.op == "close" => {
                let code = u16::from_be_bytes(*ws.payload.first_chunk().unwrap());
                replay.close(ws.conn, ws.dir, code).await;
            }
            Record::Tcp(tcp) if ["fin", "rst"].contains(&tcp.event.as_str()) => {
                if let Some(dir) = tcp.dir {
                    replay.end(tcp.conn, dir).await;
                }
            }
            Record::Mark { text } if text.starts_with("SIGTERM to server") => {
                replay.deployment.stop().await;
            }
            _ => {}
        }
    }
    assert!(replay.compared > 10, "only {} frames", replay.compared);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_upgrade() {
    replay("derp-upgrade").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_over_websockets() {
    replay("derp-websocket").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_server_that_stops() {
    replay("derp-server-stop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_and_commands() {
    replay("tailnet-ping-ssh").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_and_a_command_forced_to_websockets() {
    replay("derp-forced-websocket").await;
}
