//! Terminals in a browser: a WebSocket on this side, the agent's terminal port
//! on the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_engine::{OwnedReadHalf, OwnedWriteHalf};
use adit_ws::{CloseCode, Message};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, interval_at, timeout};
use url::Url;
use uuid::Uuid;

use super::agents::require_connected;
use crate::app::App;
use crate::auth::Actor;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Query, uuid};
use crate::reach::{self, Link};
use crate::upgrade::{self, Socket};

/// Where agents serve terminals.
const PORT: u16 = 2;
/// Size of a terminal whose client names none, in cells either way.
const DEFAULT_SIZE: u16 = 80;
/// The most output in one message, in bytes.
const CHUNK: usize = 16 * 1024;
/// How long either end may take to read one piece.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the client must give a sign of life.
const PING: Duration = Duration::from_secs(15);
/// Bytes of the reason of a close that fit into its frame (RFC 6455, 5.5).
const MAX_REASON: usize = 123;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/workspaceagents/{id}/pty", get(open))
}

async fn open(
    State(app): State<App>,
    Path(id): Path<String>,
    actor: Actor,
    query: Query,
    mut request: Request,
) -> ApiResult<Response> {
    actor.require_scope("workspace", &["ssh"])?;
    let id = uuid(&id)?;
    require_connected(&app, &actor, id).await?;
    if !is_own(request.headers(), &app.access_url) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "Terminals open from this server's own pages only.",
        ));
    }
    let init = init(&query)?;
    let task_app = app.clone();
    Ok(upgrade::websocket(
        &app,
        &mut request,
        move |socket| async move {
            let (code, reason, socket) = match reach::dial(&task_app, id, PORT).await {
                Ok(link) => serve(socket, link, &init).await,
                Err(error) => {
                    let reason = format!("dial workspace agent: {error}");
                    (CloseCode::Error, reason, Some(socket))
                }
            };
            if let Some(socket) = socket {
                upgrade::close(
                    socket,
                    code,
                    &reason[..reason.floor_char_boundary(MAX_REASON)],
                )
                .await;
            }
        },
    ))
}

/// Browsers send their cookies with a WebSocket of any site, but say which.
fn is_own(headers: &HeaderMap, access_url: &Url) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let origin = origin.to_str().ok().and_then(|text| Url::parse(text).ok());
    let Some(origin) = origin else { return false };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = origin.authority();
    host == Some(authority) || access_url.authority() == authority
}

/// The message that names the terminal to the agent: its length, two bytes
/// with the lower first, and JSON.
fn init(query: &Query) -> ApiResult<Vec<u8>> {
    let refuse = |name: &str, why: &str| {
        Err(ApiError::bad_request("Invalid query parameters.")
            .field(name, format!("Query param {name:?} {why}")))
    };
    let id = match query.get("reconnect") {
        None | Some("") => return refuse("reconnect", "is required and cannot be empty"),
        Some(text) => match Uuid::try_parse(text) {
            Ok(id) => id,
            Err(_) => return refuse("reconnect", "must be a valid uuid"),
        },
    };
    let mut sizes = [DEFAULT_SIZE; 2];
    for (size, name) in sizes.iter_mut().zip(["height", "width"]) {
        match query.get(name) {
            None | Some("") => {}
            Some(text) => match text.parse() {
                Ok(cells) => *size = cells,
                Err(_) => return refuse(name, "must be a valid 16-bit positive integer"),
            },
        }
    }
    let text = |name| query.get(name).unwrap_or_default();
    let json = json!({
        "ID": id,
        "Height": sizes[0],
        "Width": sizes[1],
        "Command": text("command"),
        "Container": text("container"),
        "ContainerUser": text("container_user"),
        "BackendType": text("backend_type"),
    });
    let json = json.to_string();
    let Ok(length) = u16::try_from(json.len()) else {
        return refuse("command", "is too long");
    };
    Ok([&length.to_le_bytes(), json.as_bytes()].concat())
}

/// Moves bytes until either end is done. Gives what to close the socket with,
/// if its peer is still there.
async fn serve(socket: Socket, link: Link, init: &[u8]) -> (CloseCode, String, Option<Socket>) {
    // Held until the end: without it the tunnel would be closed as unused.
    let Link {
        stream,
        tunnel: _tunnel,
    } = link;
    let (read, mut write) = stream.into_split();
    let sent = timeout(WRITE_TIMEOUT, write.write_all(init)).await;
    if !matches!(sent, Ok(Ok(()))) {
        let reason = "write initial reconnecting pty message".to_owned();
        return (CloseCode::Error, reason, Some(socket));
    }
    let (mut sink, mut source) = socket.split();
    let heard = AtomicBool::new(true);
    let ended = tokio::select! {
        ended = input(&mut source, write, &heard) => ended,
        ended = output(read, &mut sink, &heard) => ended,
    };
    match ended {
        // Both halves are of one socket.
        Some((code, reason)) => (code, reason, sink.reunite(source).ok()),
        None => (CloseCode::Normal, String::new(), None),
    }
}

/// How it ended, for a peer that is still there.
type Ended = Option<(CloseCode, String)>;

/// What was typed. Messages are handed on as they are.
async fn input(
    source: &mut SplitStream<Socket>,
    mut agent: OwnedWriteHalf,
    heard: &AtomicBool,
) -> Ended {
    while let Some(Ok(message)) = source.next().await {
        heard.store(true, Ordering::Relaxed);
        match message {
            Message::Binary(bytes) => match timeout(WRITE_TIMEOUT, agent.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Some((CloseCode::Error, error.to_string())),
                Err(_) => {
                    let reason = "the workspace does not read".to_owned();
                    return Some((CloseCode::Error, reason));
                }
            },
            Message::Text(_) => {
                let reason = "unexpected frame type read (expected MessageBinary): MessageText";
                return Some((CloseCode::Unsupported, reason.to_owned()));
            }
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    None
}

/// What is printed, and a ping now and then.
async fn output(
    mut agent: OwnedReadHalf,
    sink: &mut SplitSink<Socket, Message>,
    heard: &AtomicBool,
) -> Ended {
    let mut pings = interval_at(Instant::now() + PING, PING);
    let mut buffer = vec![0; CHUNK];
    loop {
        let message = tokio::select! {
            read = agent.read(&mut buffer) => match read {
                Ok(0) => return Some((CloseCode::Normal, String::new())),
                Ok(length) => Message::binary(buffer[..length].to_vec()),
                Err(error) => return Some((CloseCode::Error, error.to_string())),
            },
            _ = pings.tick() => {
                if !heard.swap(false, Ordering::Relaxed) {
                    return Some((CloseCode::Away, "Ping failed".to_owned()));
                }
                Message::Ping(Default::default())
            }
        };
        if !matches!(timeout(WRITE_TIMEOUT, sink.send(message)).await, Ok(Ok(()))) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_message_has_its_length_before_it() {
        let id = "2f1b7a3c-0a4e-4a0f-9d0e-5a2b6c7d8e9f";
        let query = format!("reconnect={id}&height=24&command=ls%20-l");
        let init = init(&Query::parse(Some(&query))).unwrap();
        let (length, json) = init.split_at(2);
        assert_eq!(
            usize::from(length[0]) + 256 * usize::from(length[1]),
            json.len()
        );
        let json: serde_json::Value = serde_json::from_slice(json).unwrap();
        let expected = json!({
            "ID": id, "Height": 24, "Width": 80, "Command": "ls -l", "Container": "",
            "ContainerUser": "", "BackendType": "",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn bad_parameters_are_named() {
        let id = Uuid::nil();
        let long = "x".repeat(70_000);
        for (query, field) in [
            (String::new(), "reconnect"),
            ("reconnect=abc".to_owned(), "reconnect"),
            (format!("reconnect={id}&width=-1"), "width"),
            (format!("reconnect={id}&height=70000"), "height"),
            (format!("reconnect={id}&command={long}"), "command"),
        ] {
            let refused = init(&Query::parse(Some(&query))).unwrap_err();
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
            assert_eq!(refused.body().validations[0].field, field);
        }
    }

    #[test]
    fn pages_of_other_sites_open_no_terminal() {
        let access = Url::parse("https://adit.example.com").unwrap();
        let check = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "127.0.0.1:3000".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            is_own(&headers, &access)
        };
        assert!(check(None));
        assert!(check(Some("http://127.0.0.1:3000")));
        assert!(check(Some("https://adit.example.com")));
        for origin in [
            "https://evil.example.com",
            "http://127.0.0.1:3001",
            "null",
            "",
        ] {
            assert!(!check(Some(origin)), "{origin}");
        }
    }
}
