//! WebSockets on the server's side.

use std::time::Duration;

use adit_ws::{CloseCode, CloseFrame, Message, WebSocketStream, server_handshake};
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use crate::app::App;

/// How long a peer may take to read one message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the peer must answer.
const PING: Duration = Duration::from_secs(15);
/// How long the peer may take to acknowledge a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A server's WebSocket.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What to answer to a request that is no upgrade to a WebSocket.
pub(crate) fn refusal(request: &Request) -> Option<Response> {
    server_handshake(request.method(), request.version(), request.headers(), None)
        .err()
        .map(|rejection| reject(rejection.status, rejection.message))
}

/// Answers an upgrade request and runs `serve` on the socket as a tracked
/// task. The task is dropped when the server shuts down.
pub(crate) fn websocket<F>(
    app: &App,
    request: &mut Request,
    serve: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let accepted = server_handshake(request.method(), request.version(), request.headers(), None);
    let headers = match accepted {
        Ok(headers) => headers,
        Err(rejection) => return reject(rejection.status, rejection.message),
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return reject(
            StatusCode::UPGRADE_REQUIRED,
            "WebSocket protocol violation: connection cannot be upgraded",
        );
    };
    let shutdown = app.shutdown.clone();
    app.tasks.spawn(async move {
        // Pinned here and not handed on: each hand-over of a future doubles
        // its room in the task, which lasts as long as the socket.
        let work = std::pin::pin!(async {
            match upgrade.await {
                Ok(io) => serve(adit_ws::accept(TokioIo::new(io), adit_ws::config()).await).await,
                Err(error) => tracing::debug!(%error, "upgrade failed"),
            }
        });
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(headers);
    response
}

/// The reply to a request that is no upgrade: a plain line, then the JSON body
/// every error has.
fn reject(status: StatusCode, message: &str) -> Response {
    let body = serde_json::to_string(
        &adit_rest::Response::new("Failed to accept websocket.").detail(message),
    )
    .unwrap_or_default();
    let mut response = (status, format!("{message}\n{body}\n")).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status == StatusCode::UPGRADE_REQUIRED {
        let headers = response.headers_mut();
        headers.insert(
            header::CONNECTION,
            header::HeaderValue::from_static("Upgrade"),
        );
        headers.insert(
            header::UPGRADE,
            header::HeaderValue::from_static("websocket"),
        );
    }
    response
}

/// A socket on which only the server speaks.
#[derive(Debug)]
pub(crate) struct OneWay {
    socket: Socket,
    ping: tokio::time::Interval,
    answered: bool,
}

/// The peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

impl OneWay {
    pub(crate) fn new(socket: Socket) -> Self {
        let start = tokio::time::Instant::now() + PING;
        Self {
            socket,
            ping: tokio::time::interval_at(start, PING),
            answered: true,
        }
    }

    /// Sends one text message.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), Gone> {
        self.write(Message::text(text)).await
    }

    async fn write(&mut self, message: Message) -> Result<(), Gone> {
        match tokio::time::timeout(WRITE_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// Watches the peer until it is gone, keeping the connection alive. Cancel
    /// safe.
    pub(crate) async fn gone(&mut self) {
        loop {
            tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                        let reason = "Clients cannot send messages for one-way WebSockets";
                        say_close(&mut self.socket, CloseCode::Protocol, reason).await;
                        return;
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => {
                        linger(&mut self.socket).await;
                        return;
                    }
                    Some(Ok(_)) => self.answered = true,
                },
                _ = self.ping.tick() => {
                    if !std::mem::take(&mut self.answered) {
                        say_close(&mut self.socket, CloseCode::Away, "Ping failed").await;
                        return;
                    }
                    if self.write(Message::Ping(Default::default())).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Closes with 1000 and waits for the peer to do the same.
    pub(crate) async fn close(self, reason: &'static str) {
        close(self.socket, CloseCode::Normal, reason).await;
    }
}

/// Closes and waits for the peer to do the same.
pub(crate) async fn close(mut socket: Socket, code: CloseCode, reason: &str) {
    say_close(&mut socket, code, reason).await;
    linger(&mut socket).await;
}

/// Waits for the end of the connection.
async fn linger(socket: &mut Socket) {
    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, rest).await;
}

async fn say_close(socket: &mut Socket, code: CloseCode, reason: &str) {
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    let _ = tokio::time::timeout(WRITE_TIMEOUT, socket.close(Some(frame))).await;
}
