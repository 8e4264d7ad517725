//! What the server asks of an agent through a tunnel of its own: terminals for
//! browsers, and the agent's facts about the workspace.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::{net::TcpListener, time::Duration};

use adit_http::{Client, ClientConfig, ProxyConfig};
use adit_test_harness::{Dev, until};
use adit_ws::{CloseCode, Message, WebSocketStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Limit of one step.
const STEP: Duration = Duration::from_secs(60);
const TERMINAL: &str = "2f1b7a3c-0a4e-4a0f-9d0e-5a2b6c7d8e9f";

fn client(dev: &Dev) -> Client {
    let config = ClientConfig {
        session_token: Some(dev.fact("session_token").to_owned()),
        proxy: ProxyConfig::none(),
        ..ClientConfig::new(dev.fact("url").parse().unwrap())
    };
    Client::new(config).unwrap()
}

/// Path of a route of the workspace's agent.
fn route(dev: &Dev, rest: &str) -> String {
    format!("/api/v2/workspaceagents/{}/{rest}", dev.fact("agent_id"))
}

async fn open(dev: &Dev, query: &str) -> WebSocketStream<adit_http::BoxIo> {
    let path = route(dev, &format!("pty?{query}"));
    client(dev)
        .websocket(&path, Vec::new(), None)
        .await
        .unwrap()
}

async fn send(socket: &mut WebSocketStream<adit_http::BoxIo>, message: &Value) {
    let message = Message::binary(message.to_string().into_bytes());
    timeout(STEP, socket.send(message)).await.unwrap().unwrap();
}

/// Reads until the terminal has printed `wanted`.
async fn expect(socket: &mut WebSocketStream<adit_http::BoxIo>, wanted: &str) {
    let mut printed = Vec::new();
    let wait = async {
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => printed.extend_from_slice(&bytes),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
            if String::from_utf8_lossy(&printed).contains(wanted) {
                return;
            }
        }
    };
    if timeout(STEP, wait).await.is_err() {
        panic!("no {wanted:?} in {:?}", String::from_utf8_lossy(&printed));
    }
}

/// Reads until the server closes.
async fn closed(socket: &mut WebSocketStream<adit_http::BoxIo>) -> (CloseCode, String) {
    let wait = async {
        loop {
            if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
                let frame = frame.unwrap();
                return (frame.code, frame.reason.to_string());
            }
        }
    };
    timeout(STEP, wait).await.unwrap()
}

#[tokio::test]
async fn terminals_of_a_browser() {
    let dev = Dev::start();
    let mut first = open(&dev, &format!("reconnect={TERMINAL}&width=80&height=24")).await;
    send(&mut first, &json!({"data": "echo made$((40 + 2))\r"})).await;
    expect(&mut first, "made42").await;
    send(&mut first, &json!({"height": 30, "width": 100})).await;
    send(&mut first, &json!({"data": "stty size\r"})).await;
    expect(&mut first, "30 100").await;
    drop(first);

    // The same terminal again, with what it printed before.
    let mut again = open(&dev, &format!("reconnect={TERMINAL}&width=100&height=30")).await;
    expect(&mut again, "made42").await;
    send(&mut again, &json!({"data": "exit\r"})).await;
    assert_eq!(closed(&mut again).await.0, CloseCode::Normal);

    let other = "2f1b7a3c-0a4e-4a0f-9d0e-5a2b6c7d8e90";
    let mut command = open(&dev, &format!("reconnect={other}&command=echo+once")).await;
    expect(&mut command, "once").await;
    assert_eq!(closed(&mut command).await.0, CloseCode::Normal);

    let mut text = open(&dev, "reconnect=2f1b7a3c-0a4e-4a0f-9d0e-5a2b6c7d8e91").await;
    text.send(Message::text("{\"data\":\"x\"}")).await.unwrap();
    let (code, reason) = closed(&mut text).await;
    assert_eq!(code, CloseCode::Unsupported);
    assert!(reason.contains("MessageBinary"), "{reason}");
}

/// Asks a route that answers.
async fn get(dev: &Dev, path: &str) -> Value {
    client(dev).get(path).await.unwrap()
}

/// Asks a route that refuses; gives status and text.
async fn refused(dev: &Dev, path: &str) -> (u16, String) {
    let error = client(dev).get::<Value>(path).await.unwrap_err();
    let status = error.status().map_or(0, |status| status.as_u16());
    (status, error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_about_a_workspace() {
    let dev = Dev::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let path = route(&dev, "listening-ports");
    let reply = get(&dev, &path).await;
    let ports = reply["ports"].as_array().unwrap();
    assert!(ports.iter().any(|found| found["port"] == port), "{reply}");

    // An agent without containers says so.
    let (status, text) = refused(&dev, &route(&dev, "containers?label=a%3Db")).await;
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("Container"), "{text}");
    let (status, text) = refused(&dev, &route(&dev, "pty?reconnect=abc")).await;
    assert_eq!(status, 400, "{text}");

    // One that is not connected is not asked.
    let _ = dev.ok(["stop", dev.fact("workspace"), "--yes"]);
    let text = until("the agent to be gone", || {
        let asked = client(&dev);
        let handle = tokio::runtime::Handle::current();
        let error = tokio::task::block_in_place(|| handle.block_on(asked.get::<Value>(&path)));
        match error {
            Err(error) if error.status().is_some_and(|status| status == 400) => {
                Ok(error.to_string())
            }
            Err(error) => Err(error.to_string()),
            Ok(reply) => Err(reply.to_string()),
        }
    });
    assert!(text.contains("connected"), "{text}");
}
