//! A control plane that says what a recorded one said: each call gets the
//! answer recorded for the same method, in order, on the same session.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use adit_drpc::Status;
use adit_drpc::codec::{self, Kind, Packet};
use adit_drpc::server::Call;
use adit_messages::agent::{self, method};
use adit_messages::tailnet;
use adit_tests_conformance::wire::{Dir, Record, Recording};
use adit_ws::Monitor;
use adit_yamux::{Connection, frame};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use prost::Message;

use crate::fine::fine;
use crate::server::{Admission, Claims, Plan, Seen, Shared, Streaming};

/// Longest wait before something recorded happens; recordings waited longer.
const SOON: f64 = 400.0;

/// One call of the recording.
#[derive(Debug, Default)]
struct Recorded {
    /// Messages of the agent.
    requests: Vec<Bytes>,
    /// Messages, or the error, of the control plane.
    answers: VecDeque<Result<Bytes, Status>>,
    /// The control plane ended a stream on its own.
    ended: bool,
}

/// One control session of the recording, or its refusal.
#[derive(Debug, Default)]
struct Session {
    refused: Option<(StatusCode, String)>,
    calls: BTreeMap<String, VecDeque<Recorded>>,
    /// When the control plane closed it, with the code.
    closed: Option<(f64, u16)>,
    /// When it announced that it goes away.
    goes_away: Option<f64>,
}

/// What the agent did in one recorded session.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Requests by method, in order.
    pub(crate) requests: HashMap<String, Vec<Bytes>>,
}

pub(crate) struct Replay {
    sessions: Vec<Mutex<Session>>,
    done: Vec<Done>,
    home: String,
}

impl Replay {
    /// Sessions that begin within the recording, as far as they are wanted.
    /// The home directory of the recording becomes `home`.
    pub(crate) fn load(name: &str, home: &str) -> Self {
        let recording = Recording::load(name).unwrap();
        let mut sessions = Vec::new();
        let mut done = Vec::new();
        for conn in connections(&recording) {
            // One TCP connection may carry refusals before the session.
            let mut answers = recording.http_of(conn).filter(|h| h.dir == Dir::ToClient);
            let asked: Vec<_> = recording
                .http_of(conn)
                .filter(|h| h.dir == Dir::ToServer && h.head.contains("/me/rpc?"))
                .collect();
            for _ in &asked {
                let answer = answers.next().unwrap();
                let status: u16 = answer.head.split(' ').nth(1).unwrap().parse().unwrap();
                if status == 101 {
                    let (session, requests) = session(&recording, conn, answer.t_ms);
                    sessions.push(Mutex::new(session));
                    done.push(requests);
                } else {
                    let status = StatusCode::from_u16(status).unwrap();
                    sessions.push(Mutex::new(Session {
                        refused: Some((status, answer.body.clone())),
                        ..Default::default()
                    }));
                    done.push(Done::default());
                }
            }
        }
        Self {
            sessions,
            done,
            home: home.to_owned(),
        }
    }

    /// What the real agent did, by session.
    pub(crate) fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }

    fn next(&self, session: usize, path: &str) -> Option<Recorded> {
        let mut s = self.sessions.get(session)?.lock().unwrap();
        s.calls.get_mut(path)?.pop_front()
    }

    fn localise(&self, path: &str, answer: Bytes) -> Bytes {
        if path != method::GET_MANIFEST {
            return answer;
        }
        let mut m = agent::Manifest::decode(answer).unwrap();
        let here = |text: &mut String| *text = text.replace("/home/coder", &self.home);
        here(&mut m.directory);
        here(&mut m.motd_path);
        for s in &mut m.scripts {
            here(&mut s.log_path);
            here(&mut s.script);
        }
        m.encode_to_vec().into()
    }
}

/// TCP connections with control sessions, in order.
fn connections(recording: &Recording) -> Vec<u32> {
    let mut all = Vec::new();
    for record in &recording.records {
        if let Record::Http(h) = record
            && h.dir == Dir::ToServer
            && h.head.contains("/me/rpc?")
            && !all.contains(&h.conn)
        {
            all.push(h.conn);
        }
    }
    all
}

/// Packets by yamux stream, and whether a GoAway was among the frames.
fn packets(recording: &Recording, conn: u32, dir: Dir) -> (BTreeMap<u32, Vec<Packet>>, bool) {
    let mut yamux = frame::Decoder::default();
    let mut streams: BTreeMap<u32, (BytesMut, codec::Decoder, Vec<Packet>)> = BTreeMap::new();
    let mut gone = false;
    let mut rest = Bytes::from(recording.ws_stream(conn, dir));
    while let Ok(Some(item)) = yamux.next(&mut rest) {
        match item {
            frame::Item::Header(h) => gone |= format!("{h:?}").contains("GoAway"),
            frame::Item::Body { stream, data, .. } => {
                let (buffer, drpc, out) = streams.entry(stream).or_default();
                buffer.extend_from_slice(&data);
                while let Ok(Some(packet)) = drpc.decode(buffer) {
                    out.push(packet);
                }
            }
        }
    }
    (streams.into_iter().map(|(id, s)| (id, s.2)).collect(), gone)
}

fn session(recording: &Recording, conn: u32, began: f64) -> (Session, Done) {
    let (asked, _) = packets(recording, conn, Dir::ToServer);
    let (answered, gone) = packets(recording, conn, Dir::ToClient);
    let mut session = Session::default();
    let mut done = Done::default();
    for (id, packets) in asked {
        let Some(invoke) = packets.iter().find(|p| p.kind == Kind::Invoke) else {
            continue;
        };
        let path = String::from_utf8(invoke.data.to_vec()).unwrap();
        let messages = |packets: &[Packet]| -> Vec<Bytes> {
            let all = packets.iter().filter(|p| p.kind == Kind::Message);
            all.map(|p| p.data.clone()).collect()
        };
        let mut call = Recorded {
            requests: messages(&packets),
            ..Default::default()
        };
        let goodbye = call.requests.iter().any(|r| {
            path == tailnet::method::COORDINATE
                && tailnet::CoordinateRequest::decode(r.clone())
                    .is_ok_and(|r| r.disconnect.is_some())
        });
        for packet in answered.get(&id).into_iter().flatten() {
            match packet.kind {
                Kind::Message => call.answers.push_back(Ok(packet.data.clone())),
                Kind::Error => {
                    let status = Status::decode(&packet.data);
                    call.answers.push_back(Err(status));
                }
                _ => {}
            }
        }
        call.ended = !goodbye && server_ended_first(recording, conn, id);
        let requests = done.requests.entry(path.clone()).or_default();
        requests.extend(call.requests.iter().cloned());
        session.calls.entry(path).or_default().push_back(call);
    }
    let close = |dir| recording.ws_of(conn, dir).find(|w| w.op == "close");
    let (ours, theirs) = (close(Dir::ToServer), close(Dir::ToClient));
    let left = recording.records.iter().find_map(|r| match r {
        Record::Tcp(t) if t.conn == conn && t.dir == Some(Dir::ToServer) && t.event == "fin" => {
            Some(t.t_ms)
        }
        _ => None,
    });
    if let Some(theirs) = theirs
        && ours.is_none_or(|o| o.t_ms > theirs.t_ms)
        && left.is_none_or(|l| l > theirs.t_ms)
    {
        session.closed = Some((theirs.t_ms - began, theirs.close_code.unwrap_or(1005)));
    }
    session.goes_away = gone.then_some(SOON);
    (session, done)
}

/// Whether the control plane was the first to end this stream.
fn server_ended_first(recording: &Recording, conn: u32, stream: u32) -> bool {
    // That no more requests follow does not end a call; that no more answers
    // follow does.
    let end = |dir, kinds: [&str; 2]| {
        recording
            .drpc_of(conn, dir)
            .find(|p| p.stream == stream && kinds.contains(&&*p.kind))
            .map(|p| p.t_ms)
    };
    let theirs = end(Dir::ToClient, ["Close", "CloseSend"]);
    match (theirs, end(Dir::ToServer, ["Close", "Cancel"])) {
        (Some(theirs), Some(ours)) => theirs < ours,
        (theirs, _) => theirs.is_some(),
    }
}

async fn soon(ms: f64) {
    tokio::time::sleep(Duration::from_secs_f64(ms.clamp(0.0, SOON) / 1_000.0)).await;
}

impl Plan for Replay {
    fn admit(&self, session: usize) -> Admission {
        let refused = self
            .sessions
            .get(session)
            .and_then(|s| s.lock().unwrap().refused.clone());
        match refused {
            Some((status, body)) => Admission::Refuse(status, body),
            None => Admission::Accept,
        }
    }

    fn claims(&self) -> Claims {
        Claims::Refuse(StatusCode::CONFLICT, r#"{"message":"no"}"#.to_owned())
    }

    fn unary(&self, session: usize, path: &str, request: Bytes) -> Result<Bytes, Status> {
        match self
            .next(session, path)
            .and_then(|mut r| r.answers.pop_front())
        {
            // What was not recorded, or was recorded less often, works.
            None => fine(path, &request),
            // The recorded echo is of the recorded request.
            Some(Ok(_)) if matches!(path, method::UPDATE_STARTUP | method::UPDATE_LIFECYCLE) => {
                fine(path, &request)
            }
            Some(answer) => answer.map(|a| self.localise(path, a)),
        }
    }

    fn stream<'a>(&'a self, session: usize, mut call: Call, server: &'a Shared) -> Streaming<'a> {
        Box::pin(async move {
            let path = call.path.clone();
            let Some(recorded) = self.next(session, &path) else {
                return crate::fine::fine_stream(session, call, server).await;
            };
            let (responses, requests) = (call.responses, &mut call.requests);
            let receive = async {
                while let Ok(Some(message)) = requests.recv().await {
                    server.note(session, &path, message.clone());
                    let goodbye = path == tailnet::method::COORDINATE
                        && tailnet::CoordinateRequest::decode(message)
                            .unwrap()
                            .disconnect
                            .is_some();
                    if goodbye {
                        return;
                    }
                }
                responses.cancelled().await;
            };
            let send = async {
                let called = |s: &Seen| s.session == session && s.what == path;
                server.until(|all| all.iter().any(called)).await;
                for answer in recorded.answers {
                    match answer {
                        Ok(message) => drop(responses.send(message).await),
                        Err(status) => {
                            soon(SOON).await;
                            return Err(status);
                        }
                    }
                }
                if recorded.ended {
                    soon(SOON).await;
                    return Ok(());
                }
                std::future::pending().await
            };
            tokio::select! {
                () = receive => Ok(()),
                ended = send => ended,
            }
        })
    }

    fn beside(&self, session: usize, wire: Connection, end: Monitor) -> Streaming<'static> {
        let (closed, goes_away) = match self.sessions.get(session) {
            Some(s) => {
                let s = s.lock().unwrap();
                (s.closed, s.goes_away)
            }
            None => (None, None),
        };
        Box::pin(async move {
            if let Some(after) = goes_away {
                soon(after).await;
                wire.go_away();
            } else if let Some((after, code)) = closed {
                soon(after).await;
                end.set_close(code, "serving failed");
                wire.close().await;
            }
            std::future::pending().await
        })
    }
}
