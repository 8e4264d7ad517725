//! Streams of a flow: event streams, watch sockets, log sockets.

use std::time::Duration;

use adit_rest::sse;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;

use super::{Open, Replay, STREAM};
use crate::compare::compare;
use crate::http::{self, Chunks, Reply, Request};
use crate::vectors::{Event, Exchange, Frame};

impl Replay<'_> {
    pub(super) async fn event_stream(&mut self, index: usize, exchange: &Exchange) {
        let (method, path, headers, body) = self.request(exchange);
        let server = self.world.server;
        let request = (method.to_owned(), path, headers, body);
        let wanted = exchange.sse.as_ref().map_or(0, Vec::len);
        let (enough, mut stop) = oneshot::channel::<()>();
        let (first, started) = oneshot::channel();
        let work = async move {
            let (method, path, headers, body) = request;
            let request = Request {
                method: &method,
                path: &path,
                headers,
                body,
            };
            let (head, mut stream) = http::begin(server, &request).await;
            let mut chunks = Chunks::default();
            let mut decoder = sse::Decoder::new();
            let mut events = Vec::new();
            let mut bytes = head.rest.clone();
            let status = head.status;
            let _ = first.send(status);
            while status == 200 && events.len() < wanted {
                let part = chunks.feed(&bytes);
                decoder.feed(&part, &mut events).unwrap();
                bytes.clear();
                if events.len() >= wanted {
                    break;
                }
                let read = tokio::time::timeout(STREAM, stream.read_buf(&mut bytes));
                tokio::select! {
                    read = read => if !matches!(read, Ok(Ok(n)) if n > 0) { break },
                    _ = &mut stop => {
                        // What is on its way still counts.
                        let late = Duration::from_millis(300);
                        let more = tokio::time::timeout(late, stream.read_buf(&mut bytes)).await;
                        let part = chunks.feed(&bytes);
                        decoder.feed(&part, &mut events).unwrap();
                        let _ = more;
                        break;
                    }
                }
            }
            events
                .into_iter()
                .map(|event| Event {
                    kind: event.kind.as_str().to_owned(),
                    data: serde_json::from_str(&event.data).ok(),
                })
                .collect()
        };
        let events = tokio::spawn(work);
        // Streams that begin with a keep-alive send no head before it.
        let begins_late = exchange.req.contains("/reinit");
        if !begins_late {
            match started.await {
                Ok(status) if status == exchange.status => {}
                status => self.fail(exchange, format!("status {status:?}")),
            }
        }
        self.streams.push(Open {
            exchange: index,
            enough: Some(enough),
            events,
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    pub(super) fn check_events(&mut self, exchange: &Exchange, ours: &[Event]) {
        let recorded: Vec<Event> = match (&exchange.sse, &exchange.ws) {
            (Some(events), _) => events.clone(),
            (None, Some(frames)) => {
                let texts = frames.iter().filter(|frame| frame.kind == "text");
                texts.cloned().map(socket_event).collect()
            }
            (None, None) => Vec::new(),
        };
        let kinds = |events: &[Event]| {
            let mut kinds: Vec<String> = events.iter().map(|event| event.kind.clone()).collect();
            kinds.dedup();
            // Keep-alives come by the clock.
            let first = kinds.first().cloned();
            kinds.retain(|kind| kind != "ping");
            kinds.dedup();
            (first, kinds)
        };
        let (mut theirs, mut mine) = (kinds(&recorded), kinds(ours));
        if exchange.req.contains("/reinit") {
            // Nothing comes before the claim but keep-alives.
            theirs.0 = None;
            mine.0 = None;
        }
        if is_idle(exchange) && ours.first().map(|event| event.kind.as_str()) != Some("ping") {
            self.fail(exchange, "no sign of life");
        }
        if theirs != mine {
            let text = format!("events {mine:?}, recorded {theirs:?}");
            self.fail(exchange, text);
        }
        let data = |events: &[Event]| events.iter().find_map(|event| event.data.clone());
        if let (Some(recorded), Some(ours)) = (data(&recorded), data(ours)) {
            let mut differences = Vec::new();
            compare("", &recorded, &ours, &mut differences);
            for difference in differences {
                self.fail(exchange, format!("first data {difference}"));
            }
        }
    }

    pub(super) async fn socket(&mut self, index: usize, exchange: &Exchange) {
        let (method, path, mut headers, body) = self.request(exchange);
        let upgrade = exchange
            .headers
            .get("Upgrade")
            .map_or("websocket", String::as_str);
        headers.extend([
            ("Connection".into(), "Upgrade".into()),
            ("Upgrade".into(), upgrade.into()),
            ("Sec-WebSocket-Version".into(), "13".into()),
            (
                "Sec-WebSocket-Key".into(),
                "AAAAAAAAAAAAAAAAAAAAAA==".into(),
            ),
        ]);
        let request = Request {
            method,
            path: &path,
            headers,
            body,
        };
        let (head, stream) = http::begin(self.world.server, &request).await;
        if head.status != 101 {
            let reply = if exchange.status == 101 {
                Reply {
                    head,
                    body: Vec::new(),
                }
            } else {
                self.send(exchange).await
            };
            return self.check(exchange, &reply);
        }
        self.check_head(exchange, &head);
        if upgrade != "websocket" {
            return;
        }
        if path.contains("/me/rpc") {
            self.sessions.push(stream);
            let workspace = self.world.ids[self.speaker()].parse().unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.world.connect(workspace).await;
            return;
        }
        let text = |frame: &Frame| frame.dir == "s>c" && frame.kind == "text";
        let recorded: Vec<Frame> = exchange.ws.clone().unwrap_or_default();
        let wanted = recorded.iter().filter(|frame| text(frame)).count();
        let server_ends = recorded
            .iter()
            .find(|frame| frame.kind == "close")
            .is_some_and(|frame| frame.dir == "s>c");
        let socket = tokio_tungstenite::WebSocketStream::from_partially_read(
            stream,
            head.rest,
            tokio_tungstenite::tungstenite::protocol::Role::Client,
            None,
        )
        .await;
        let follows_state = exchange.req.contains("watch");
        let (enough, stop) = oneshot::channel();
        let read = read_socket(socket, wanted, server_ends, stop);
        if exchange.req.contains("/logs?follow") {
            let read = async move {
                let frames = read.await;
                drop(enough);
                frames
            };
            self.logs.push((index, tokio::spawn(read)));
            return;
        }
        if follows_state {
            let events = tokio::spawn(async move {
                let frames = read.await;
                frames.into_iter().map(socket_event).collect()
            });
            let started = Open {
                exchange: index,
                enough: Some(enough),
                events,
            };
            self.streams.push(started);
            tokio::time::sleep(Duration::from_millis(100)).await;
            return;
        }
        let frames = read.await;
        drop(enough);
        self.check_frames(exchange, &frames);
    }

    pub(super) fn check_frames(&mut self, exchange: &Exchange, frames: &[Frame]) {
        let text = |frame: &Frame| frame.dir == "s>c" && frame.kind == "text";
        let recorded: Vec<Frame> = exchange.ws.clone().unwrap_or_default();
        let server_ends = recorded
            .iter()
            .find(|frame| frame.kind == "close")
            .is_some_and(|frame| frame.dir == "s>c");
        let ours: Vec<&Frame> = frames.iter().filter(|frame| text(frame)).collect();
        let theirs: Vec<&Frame> = recorded.iter().filter(|frame| text(frame)).collect();
        if ours.len() != theirs.len() {
            let lines: Vec<_> = ours.iter().map(|f| f.data.clone()).collect();
            let count = format!(
                "{} messages, recorded {}: {lines:?}",
                ours.len(),
                theirs.len()
            );
            self.fail(exchange, count);
            return;
        }
        for (recorded, ours) in theirs.iter().zip(&ours) {
            let (Some(a), Some(b)) = (&recorded.data, &ours.data) else {
                continue;
            };
            let mut differences = Vec::new();
            compare("", a, b, &mut differences);
            for difference in differences {
                self.fail(exchange, difference);
            }
        }
        if server_ends {
            let end = |frames: &[Frame]| {
                let close = frames.iter().find(|f| f.kind == "close" && f.dir == "s>c");
                close.map(|f| (f.code, f.text.clone()))
            };
            let (theirs, ours) = (end(&recorded), end(frames));
            if theirs != ours {
                self.fail(exchange, format!("end {ours:?}, recorded {theirs:?}"));
            }
        }
    }
}

/// Whether an event stream has nothing to tell but that it is alive.
pub(super) fn is_idle(exchange: &Exchange) -> bool {
    let events = exchange.sse.as_deref().unwrap_or_default();
    !events.is_empty() && events.iter().all(|event| event.kind == "ping")
}

/// An event of a watch socket.
fn socket_event(frame: Frame) -> Event {
    let data = frame.data.unwrap_or(Value::Null);
    Event {
        // Only the first of the large ones was kept.
        kind: data["type"].as_str().unwrap_or("data").to_owned(),
        data: data.get("data").filter(|data| !data.is_null()).cloned(),
    }
}

async fn read_socket(
    mut socket: tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>,
    wanted: usize,
    server_ends: bool,
    mut stop: oneshot::Receiver<()>,
) -> Vec<Frame> {
    use tokio_tungstenite::tungstenite::Message;
    let mut frames = Vec::new();
    let mut texts = 0;
    loop {
        let quiet = if server_ends || texts < wanted {
            STREAM
        } else {
            Duration::from_millis(50)
        };
        let message = tokio::select! {
            message = tokio::time::timeout(quiet, socket.next()) => message,
            _ = &mut stop => break,
        };
        match message {
            Ok(Some(Ok(Message::Text(text)))) => {
                texts += 1;
                frames.push(Frame {
                    kind: "text".into(),
                    dir: "s>c".into(),
                    code: None,
                    data: serde_json::from_str(&text).ok(),
                    text: None,
                });
            }
            Ok(Some(Ok(Message::Close(frame)))) => {
                frames.push(Frame {
                    kind: "close".into(),
                    dir: "s>c".into(),
                    code: frame.as_ref().map(|frame| u16::from(frame.code)),
                    data: None,
                    text: frame
                        .map(|frame| frame.reason.to_string())
                        .filter(|r| !r.is_empty()),
                });
            }
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_)) | None) | Err(_) => break,
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), socket.close(None)).await;
    let _ = socket.flush().await;
    frames
}
