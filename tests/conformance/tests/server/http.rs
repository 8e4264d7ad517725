//! Plain requests: refusals, agents' REST routes, and what an agent with a
//! wrong token meets.

use std::{collections::BTreeMap, time::Duration};

use adit_tests_conformance::{
    left_out::{LeftOut, Subject},
    wire::{Dir, Record, Recording},
};
use adit_ws::{Role, WebSocketStream, config};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    deployment::Deployment,
    live::{self, Answer},
};

/// How long a stream that has nothing to say is listened to.
const SILENCE: Duration = Duration::from_millis(200);

/// Texts that quote an implementation.
const QUOTES: &[&str] = &[
    "Invalid UUID",
    "Invalid resume token",
    "Failed to accept websocket.",
];

async fn replay(name: &str) {
    let recording = Recording::load(name).unwrap();
    let deployment = Deployment::start(&recording).await;
    let mut mark = String::new();
    let mut differences = Vec::new();
    let mut sent = BTreeMap::new();
    let mut left_out = LeftOut::of(Subject::Server, name);
    for record in &recording.records {
        match record {
            Record::Mark { text } => mark.clone_from(text),
            Record::Http(http) if http.dir == Dir::ToServer => {
                sent.insert(http.conn, (mark.clone(), http.clone()));
            }
            Record::Http(http) if !http.head.is_empty() => {
                let Some((mark, request)) = sent.remove(&http.conn) else {
                    continue;
                };
                let head = deployment.head(&request.head);
                let mut socket = TcpStream::connect(deployment.address()).await.unwrap();
                if mark == "reinit without wait" {
                    silence(&mut socket, &head).await;
                    continue;
                }
                let own = live::request(&mut socket, &head, &request.body).await;
                let status = http.head.split(' ').nth(1).unwrap_or_default();
                let mut found = Vec::new();
                if own.status.to_string() != status {
                    found.push(format!("{} {} instead of {status}", own.status, own.body));
                } else {
                    compare(&http.head, &http.body, &own, &mut found);
                    if mark == "derp-map, legacy" {
                        let sent = recording.ws_of(http.conn, Dir::ToClient);
                        let sent: Vec<u8> = sent.flat_map(|ws| ws.payload.to_vec()).collect();
                        let recorded = serde_json::from_slice(&sent).unwrap();
                        shape("", &recorded, &message(socket).await, &mut found);
                    }
                }
                found.retain(|_| !left_out.covers(&mark, ""));
                differences.extend(found.into_iter().map(|found| format!("{mark}: {found}")));
            }
            _ => {}
        }
    }
    differences.extend(left_out.unneeded());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Sends a request for a stream of events. As long as there are none, nothing
/// is said, not even a head; the recorded client left before that.
async fn silence(socket: &mut TcpStream, head: &str) {
    socket.write_all(head.as_bytes()).await.unwrap();
    let first = tokio::time::timeout(SILENCE, socket.read_u8()).await;
    assert!(first.is_err(), "{first:?}");
}

/// The first message of a socket, as JSON.
async fn message(socket: TcpStream) -> Value {
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Client, Some(config())).await;
    let message = tokio::time::timeout(live::PATIENCE, socket.next()).await;
    let message = message.expect("a message in time").unwrap().unwrap();
    serde_json::from_slice(&message.into_data()).unwrap()
}

/// Adds what an answer says otherwise than the recorded one.
pub(crate) fn compare(head: &str, body: &str, answer: &Answer, differences: &mut Vec<String>) {
    let recorded = Answer {
        status: answer.status,
        head: head.to_owned(),
        body: String::new(),
    };
    for name in [
        "content-type",
        "upgrade",
        "www-authenticate",
        "derp-version",
    ] {
        let [own, wanted] = [answer, &recorded].map(|answer| answer.header(name).map(without_port));
        if own != wanted {
            differences.push(format!("{name} is {own:?} instead of {wanted:?}"));
        }
    }
    let Ok(recorded) = serde_json::from_str::<Value>(body) else {
        return;
    };
    let Ok(own) = serde_json::from_str::<Value>(&answer.body) else {
        differences.push(format!("no JSON but {:?}", answer.body));
        return;
    };
    shape("", &recorded, &own, differences);
}

/// The same keys and types, and the same texts in refusals.
fn shape(path: &str, recorded: &Value, own: &Value, differences: &mut Vec<String>) {
    match (recorded, own) {
        (Value::Object(recorded), Value::Object(own)) => {
            let quotes = recorded
                .get("message")
                .and_then(Value::as_str)
                .is_some_and(|text| QUOTES.iter().any(|quote| text.starts_with(quote)));
            for key in recorded.keys().chain(own.keys()) {
                let path = format!("{path}.{key}");
                match (recorded.get(key), own.get(key)) {
                    (Some(recorded), Some(own)) => {
                        let is_text = ["message", "field"].contains(&key.as_str())
                            || (key == "detail" && !quotes);
                        if is_text && recorded.is_string() && recorded != own {
                            differences.push(format!("{path} is {own} instead of {recorded}"));
                        }
                        shape(&path, recorded, own, differences);
                    }
                    // A key of a feature that is not there.
                    (Some(_), None) if ["webpush_public_key"].contains(&key.as_str()) => {}
                    (Some(_), None) => differences.push(format!("{path} is missing")),
                    _ => differences.push(format!("{path} is too much")),
                }
            }
        }
        (Value::Array(recorded), Value::Array(own)) => {
            if let (Some(recorded), Some(own)) = (recorded.first(), own.first()) {
                shape(&format!("{path}[0]"), recorded, own, differences);
            }
        }
        _ if std::mem::discriminant(recorded) == std::mem::discriminant(own) => {}
        _ => differences.push(format!("{path} is {own} instead of {recorded}")),
    }
}

/// A header's value without the address of one server.
fn without_port(value: &str) -> String {
    value.split("http://").next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_routes_for_agents() {
    replay("http-errors-and-rest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_a_wrong_token() {
    replay("agent-wrong-token").await;
}
