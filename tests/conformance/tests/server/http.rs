//! Plain requests: refusals, agents' REST routes, and what an agent with a
//! wrong token meets.

use std::collections::BTreeMap;

use adit_tests_conformance::wire::{Dir, Record, Recording};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{
    deployment::Deployment,
    live::{self, Answer},
};

/// Requests this server answers otherwise, by the mark before them.
const OTHERWISE: &[(&str, &str)] = &[
    // No sign-in providers for git hosts: helpers leave the question to git.
    (
        "agent external-auth, built-in GitHub provider, user not linked",
        "404",
    ),
    // No programs to download, so no script that does.
    ("init-script", "404"),
    ("init-script, unknown os", "404"),
    // Streams that stay open have tests of their own.
    ("reinit without wait", ""),
    ("derp-map, legacy", ""),
];

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
                let otherwise = OTHERWISE
                    .iter()
                    .find(|(text, _)| *text == mark)
                    .map(|(_, status)| *status);
                if otherwise == Some("") {
                    continue;
                }
                let mut socket = TcpStream::connect(deployment.address()).await.unwrap();
                let head = deployment.head(&request.head);
                let answer = live::request(&mut socket, &head, &request.body).await;
                let status = http.head.split(' ').nth(1).unwrap_or_default();
                if answer.status.to_string() != otherwise.unwrap_or(status) {
                    differences.push(format!(
                        "{mark}: {} {} instead of {status}",
                        answer.status, answer.body
                    ));
                } else if otherwise.is_none() {
                    compare(&mark, &http.head, &http.body, &answer, &mut differences);
                }
            }
            _ => {}
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn compare(mark: &str, head: &str, body: &str, answer: &Answer, differences: &mut Vec<String>) {
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
            differences.push(format!("{mark}: {name} is {own:?} instead of {wanted:?}"));
        }
    }
    let Ok(recorded) = serde_json::from_str::<Value>(body) else {
        return;
    };
    let Ok(own) = serde_json::from_str::<Value>(&answer.body) else {
        differences.push(format!("{mark}: no JSON but {:?}", answer.body));
        return;
    };
    shape(mark, "", &recorded, &own, differences);
}

/// The same keys and types, and the same texts in refusals.
fn shape(mark: &str, path: &str, recorded: &Value, own: &Value, differences: &mut Vec<String>) {
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
                            differences
                                .push(format!("{mark}: {path} is {own} instead of {recorded}"));
                        }
                        shape(mark, &path, recorded, own, differences);
                    }
                    // A key of a feature that is not there.
                    (Some(_), None) if ["webpush_public_key"].contains(&key.as_str()) => {}
                    (Some(_), None) => differences.push(format!("{mark}: {path} is missing")),
                    _ => differences.push(format!("{mark}: {path} is too much")),
                }
            }
        }
        (Value::Array(recorded), Value::Array(own)) => {
            if let (Some(recorded), Some(own)) = (recorded.first(), own.first()) {
                shape(mark, &format!("{path}[0]"), recorded, own, differences);
            }
        }
        _ if std::mem::discriminant(recorded) == std::mem::discriminant(own) => {}
        _ => differences.push(format!("{mark}: {path} is {own} instead of {recorded}")),
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
