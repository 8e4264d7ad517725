//! Sends a recording again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use adit_drpc::codec::{Kind, Packet};
use adit_messages::tailnet::{
    CoordinateRequest, CoordinateResponse, coordinate_request::UpdateSelf, method::COORDINATE,
};
use adit_tests_conformance::{
    left_out::{LeftOut, Subject},
    wire::{Dir, Http, Record, Recording, Ws},
};
use adit_ws::{CloseFrame, Message};
use adit_yamux::frame::{self, Flags, FrameType, Item};
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::{
    compare,
    deployment::{BOX_AGENT, DEV_AGENT, Deployment},
    http,
    live::{self, Ear, End, Heard, Live},
    puppet::{self, AgentPuppet, Puppets},
};

/// One connection of the recording, and the one that replays it.
struct Conn {
    live: Option<Live>,
    /// What the recorded server said, as far as the replay is.
    ear: Ear,
    recorded: Heard,
    outgoing: frame::Decoder,
    /// What the recorded client said.
    calls: Ear,
    /// Method of each stream's latest call.
    methods: BTreeMap<u32, String>,
    /// The agent, on the connection of one.
    agent: Option<Uuid>,
    /// What is still to come from this server.
    due: VecDeque<(u32, Packet)>,
    close_due: Option<(u16, String)>,
    /// The recorded server ended it.
    left: bool,
    /// Streams the recorded client ended.
    finished: BTreeSet<u32>,
    /// Peers the recorded agent said it is ready for.
    ready: Vec<Bytes>,
}

/// A replay in progress.
pub(crate) struct Replay {
    recording: Recording,
    pub(crate) deployment: Deployment,
    conns: BTreeMap<u32, Conn>,
    puppets: Option<Puppets>,
    /// The only one of them to be played, as hex digits.
    only: Option<String>,
    /// An agent whose connection is not in the recording.
    agent_puppet: Option<AgentPuppet>,
    /// Recorded resume tokens, and those of this server.
    resume: Vec<(String, String)>,
    left_out: LeftOut,
    differences: Vec<String>,
}

impl Replay {
    pub(crate) async fn new(name: &str) -> Self {
        let recording = Recording::load(name).unwrap();
        let deployment = Deployment::start(&recording).await;
        Self {
            recording,
            deployment,
            conns: BTreeMap::new(),
            puppets: None,
            only: None,
            agent_puppet: None,
            resume: Vec::new(),
            left_out: LeftOut::of(Subject::Server, name),
            differences: Vec::new(),
        }
    }

    /// Plays the clients that are not in the recording.
    pub(crate) fn with_puppets(mut self) -> Self {
        self.puppets = Some(Puppets::default());
        self
    }

    /// As [`Self::with_puppets`], where other clients are in the recording.
    pub(crate) fn with_puppet(mut self, id: &str) -> Self {
        self.only = Some(id.to_owned());
        self.with_puppets()
    }

    /// Replays everything; `at_mark` does what the operator did.
    pub(crate) async fn run(mut self, mut at_mark: impl AsyncFnMut(&str, &mut Deployment)) {
        for record in self.recording.records.clone() {
            match record {
                Record::Http(http) if http.dir == Dir::ToServer => self.connect(&http).await,
                Record::Ws(ws) if self.conns.contains_key(&ws.conn) => self.frame(&ws).await,
                Record::Mark { text } => {
                    self.settle().await;
                    if text.starts_with("SIGTERM to server")
                        || text.starts_with("SIGKILL to server")
                    {
                        self.agent_puppet = None;
                    }
                    at_mark(&text, &mut self.deployment).await;
                }
                Record::Tcp(tcp) if tcp.dir == Some(Dir::ToClient) => {
                    if let Some(conn) = self.conns.get_mut(&tcp.conn) {
                        conn.left = true;
                    }
                }
                Record::Tcp(tcp) if tcp.dir == Some(Dir::ToServer) => {
                    self.settle().await;
                    self.end(tcp.conn);
                }
                _ => {}
            }
        }
        self.settle().await;
        for number in self.conns.keys().copied().collect::<Vec<_>>() {
            self.end(number);
        }
        self.differences.extend(self.left_out.unneeded());
        assert!(
            self.differences.is_empty(),
            "{}",
            self.differences.join("\n")
        );
    }

    /// A connection is over: this server must not have said more than the
    /// recorded one.
    fn end(&mut self, number: u32) {
        // What a server says last when it ends is a matter of chance.
        let Some(conn) = self.conns.remove(&number).filter(|conn| !conn.left) else {
            return;
        };
        let Some(live) = &conn.live else { return };
        let own = live.heard();
        for (stream, end) in own.ended.difference(&conn.recorded.ended) {
            // The recorded client may have left before the answer to its end.
            if *end == End::Reset || !conn.finished.contains(stream) {
                let text = format!("connection {number}, stream {stream}: {end:?} is too much");
                self.differences.push(text);
            }
        }
        for (stream, packets) in &own.packets {
            // A client that has its answer may end the call before the server
            // does.
            let more = packets.iter().any(|packet| packet.kind != Kind::CloseSend);
            if more {
                let text = format!("connection {number}, stream {stream}: {packets:?} is too much");
                self.differences.push(text);
            }
        }
    }

    /// Sends a request, and makes the connection of an upgrade.
    async fn connect(&mut self, http: &Http) {
        let path = http.head.split(' ').nth(1).unwrap_or_default();
        // Replayed elsewhere: streams of events, and relays.
        if path.contains("/reinit") || (path == "/derp" && http.head.contains("Upgrade: ")) {
            return;
        }
        self.settle().await;
        let recorded = self
            .recording
            .http_of(http.conn)
            .skip_while(|message| message.t_ms < http.t_ms || message.dir == Dir::ToServer)
            .find(|message| !message.head.is_empty())
            .cloned();
        // A client that went away first has none.
        let Some(recorded) = recorded else { return };
        let status = recorded.head.split(' ').nth(1).unwrap_or_default();
        if path.contains("/coordinate") && self.agents_here() == 0 && self.agent_puppet.is_none() {
            self.play_agent(http.conn, path).await;
        }
        let mut socket = TcpStream::connect(self.deployment.address()).await.unwrap();
        let head = self.head(&http.head);
        let answer = live::request(&mut socket, &head, &http.body).await;
        let mut found = Vec::new();
        if answer.status.to_string() == status {
            http::compare(&recorded.head, &recorded.body, &answer, &mut found);
        } else {
            found.push(format!(
                "{} {} instead of {status}",
                answer.status, answer.body
            ));
        }
        found.retain(|_| !self.left_out.covers(path, ""));
        self.differences
            .extend(found.into_iter().map(|found| format!("{path}: {found}")));
        let agent = path.contains("/me/rpc").then(|| {
            if http.head.contains(crate::BOX_TOKEN) {
                BOX_AGENT
            } else {
                DEV_AGENT
            }
        });
        let live = if answer.status == 101 {
            Some(Live::new(socket).await)
        } else {
            None
        };
        self.conns.insert(
            http.conn,
            Conn {
                live,
                ear: Ear::default(),
                recorded: Heard::default(),
                outgoing: frame::Decoder::default(),
                calls: Ear::default(),
                methods: BTreeMap::new(),
                agent,
                due: VecDeque::new(),
                close_due: None,
                left: false,
                finished: BTreeSet::new(),
                ready: Vec::new(),
            },
        );
    }

    /// A recorded request head for this server.
    fn head(&self, head: &str) -> String {
        let mut text = self.deployment.head(head);
        for (recorded, own) in &self.resume {
            text = text.replace(recorded, own);
        }
        text
    }

    async fn frame(&mut self, ws: &Ws) {
        if ws.dir == Dir::ToClient {
            self.expect(ws).await;
            return;
        }
        self.settle().await;
        let ids = self.deployment.ids.clone();
        let Some(conn) = self.conns.get_mut(&ws.conn) else {
            return;
        };
        match ws.op.as_str() {
            "binary" | "continuation" => {
                let pieces = pieces(conn, &ws.payload, &ids);
                if let Some(live) = &conn.live {
                    for piece in pieces {
                        live.send(Message::Binary(piece)).await;
                    }
                }
            }
            "text" => {
                let text = String::from_utf8(ws.payload.to_vec()).unwrap();
                if let Some(live) = &conn.live {
                    live.send(Message::Text(text.into())).await;
                }
            }
            "close" => {
                // What the server says last is a matter of chance.
                conn.left = true;
                let frame = ws.close_code.map(|code| CloseFrame {
                    code: code.into(),
                    reason: ws.close_reason.clone().unwrap_or_default().into(),
                });
                if let Some(live) = &conn.live {
                    live.send(Message::Close(frame)).await;
                }
            }
            // The answers to pings of another server.
            _ => {}
        }
    }

    /// Notes what the recorded server said.
    async fn expect(&mut self, ws: &Ws) {
        let Some(conn) = self.conns.get_mut(&ws.conn) else {
            return;
        };
        if ws.op == "close" {
            conn.close_due = Some((
                ws.close_code.unwrap_or(1005),
                ws.close_reason.clone().unwrap_or_default(),
            ));
            return;
        }
        if !ws.is_data() {
            return;
        }
        conn.ear.hear(&ws.payload, &mut conn.recorded);
        if let Some(puppets) = &mut self.puppets {
            puppets.greeted(conn.ready.drain(..));
        }
        let mut acts = Vec::new();
        for (stream, packets) in &mut conn.recorded.packets {
            for packet in packets.drain(..) {
                let coordinates = conn
                    .methods
                    .get(stream)
                    .is_some_and(|method| method == COORDINATE);
                if coordinates && packet.kind == Kind::Message {
                    acts.push((conn.agent, packet.data.clone()));
                }
                conn.due.push_back((*stream, packet));
            }
        }
        let server = self.deployment.address();
        for (agent, data) in acts {
            for update in CoordinateResponse::decode(data).unwrap().peer_updates {
                let wanted = self
                    .only
                    .as_ref()
                    .is_none_or(|only| hex::encode(&update.id) == *only);
                if let (Some(agent), Some(puppets), true) = (agent, &mut self.puppets, wanted) {
                    puppets
                        .act(&update, agent, server, &self.deployment.session_token)
                        .await;
                }
            }
        }
    }

    /// How many agents of the recording are connected now.
    fn agents_here(&self) -> usize {
        self.conns
            .values()
            .filter(|conn| conn.agent.is_some())
            .count()
    }

    /// Announces the agent that the client of a connection is told of first.
    async fn play_agent(&mut self, conn: u32, path: &str) {
        let mut heard = Heard::default();
        let mut ear = Ear::default();
        for ws in self
            .recording
            .ws_of(conn, Dir::ToClient)
            .filter(|ws| ws.is_data())
        {
            ear.hear(&ws.payload, &mut heard);
        }
        let coordinates = |stream: &u32| {
            let mut calls = self.recording.drpc_of(conn, Dir::ToServer);
            calls.any(|call| call.stream == *stream && call.method == COORDINATE)
        };
        let node = heard
            .packets
            .into_iter()
            .filter(|(stream, _)| coordinates(stream))
            .flat_map(|(_, packets)| packets)
            .filter_map(|packet| CoordinateResponse::decode(packet.data).ok())
            .flat_map(|response| response.peer_updates)
            .find_map(|update| update.node);
        let Some(node) = node else { return };
        let (agent, token) = if path.contains(&BOX_AGENT.to_string()) {
            (BOX_AGENT, crate::BOX_TOKEN)
        } else {
            (DEV_AGENT, crate::DEV_TOKEN)
        };
        let announce = CoordinateRequest {
            update_self: Some(UpdateSelf { node: Some(node) }),
            ..Default::default()
        };
        let server = self.deployment.address();
        let puppet = AgentPuppet::connect(server, token).await;
        puppet.send(&announce).await;
        puppet::await_node(agent, server, &self.deployment.session_token).await;
        self.agent_puppet = Some(puppet);
    }

    /// Waits for everything this server has to say by now, and compares it.
    async fn settle(&mut self) {
        for (number, conn) in &mut self.conns {
            let Some(live) = &conn.live else { continue };
            while let Some((stream, recorded)) = conn.due.pop_front() {
                let method = conn.methods.get(&stream).cloned().unwrap_or_default();
                let next = live
                    .until(|heard| heard.packets.get_mut(&stream)?.pop_front())
                    .await;
                let result = match &next {
                    Some(own) => compare::packets(
                        &method,
                        &recorded,
                        own,
                        &mut self.deployment.ids,
                        &mut self.left_out,
                    ),
                    None => Err(format!("no {:?}", recorded.kind)),
                };
                if let Err(difference) = result {
                    self.differences.push(format!(
                        "connection {number}, stream {stream}, {method}: {difference}"
                    ));
                } else if method.ends_with("/WorkspaceUpdates") {
                    self.deployment.proceed().await;
                } else if let (Some(own), true) = (next, method.ends_with("/RefreshResumeToken")) {
                    self.resume
                        .extend(tokens(&recorded).into_iter().zip(tokens(&own)));
                }
            }
            let (ended, gone) = (&conn.recorded.ended, conn.recorded.gone);
            let same = |own: &mut Heard| own.ended.is_superset(ended) && own.gone == gone;
            if !conn.left && live.until(|own| same(own).then_some(())).await.is_none() {
                let own = live.heard();
                let text = format!(
                    "connection {number}: {:?} and GoAway {:?} instead of {ended:?} and {gone:?}",
                    own.ended, own.gone
                );
                self.differences.push(text);
                // Once is enough.
                conn.left = true;
            }
            if let Some((code, reason)) = conn.close_due.take() {
                let own = live.until(|heard| heard.close.clone()).await;
                if own.as_ref().map(|(code, _)| *code) != Some(code) {
                    let text =
                        format!("connection {number}: close {own:?} instead of {code} {reason}");
                    self.differences.push(text);
                }
            }
        }
    }
}

/// The resume token in an answer.
fn tokens(packet: &Packet) -> Option<String> {
    let answer =
        adit_messages::tailnet::RefreshResumeTokenResponse::decode(packet.data.clone()).ok()?;
    (packet.kind == Kind::Message).then_some(answer.token)
}

/// What to send for a piece of the recorded byte stream: with this server's
/// identifiers, and without answers to pings it did not send.
fn pieces(conn: &mut Conn, payload: &Bytes, ids: &compare::Ids) -> Vec<Bytes> {
    note_methods(conn, payload);
    let mut input = payload.clone();
    let mut pieces = Vec::new();
    loop {
        match conn.outgoing.next(&mut input) {
            Ok(Some(Item::Header(header))) => {
                if header.frame_type == FrameType::Ping && header.flags.contains(Flags::ACK) {
                    continue;
                }
                let mut bytes = BytesMut::new();
                header.encode(&mut bytes);
                pieces.push(bytes.freeze());
            }
            Ok(Some(Item::Body { data, .. })) => pieces.push(substitute(&data, ids)),
            Ok(None) => return pieces,
            // A deliberate violation: as it was.
            Err(_) => {
                pieces.push(payload.clone());
                return pieces;
            }
        }
    }
}

/// Recognises the starts of calls, to know what the answers are about, and
/// what the replay has to know of them.
fn note_methods(conn: &mut Conn, payload: &Bytes) {
    let mut said = Heard::default();
    conn.calls.hear(payload, &mut said);
    conn.finished
        .extend(said.ended.iter().map(|(stream, _)| *stream));
    for (stream, packets) in said.packets {
        for packet in packets {
            let coordinates = conn.methods.get(&stream).is_some_and(|m| m == COORDINATE);
            match packet.kind {
                Kind::Invoke => {
                    let path = String::from_utf8_lossy(&packet.data).into_owned();
                    conn.methods.insert(stream, path);
                }
                Kind::Message if coordinates => {
                    let request = CoordinateRequest::decode(packet.data).unwrap_or_default();
                    let ready = request.ready_for_handshake.into_iter();
                    conn.ready.extend(ready.map(|peer| peer.id));
                }
                _ => {}
            }
        }
    }
}

/// Replaces recorded identifiers.
fn substitute(data: &Bytes, ids: &compare::Ids) -> Bytes {
    let mut data = data.to_vec();
    let mut start = 0;
    while let Some(window) = data.get_mut(start..start + 16) {
        let known = <[u8; 16]>::try_from(&*window)
            .ok()
            .and_then(|id| ids.get(&id));
        if let Some(own) = known {
            window.copy_from_slice(own);
            start += 16;
        } else {
            start += 1;
        }
    }
    data.into()
}
