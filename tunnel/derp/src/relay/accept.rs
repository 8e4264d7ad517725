//! The HTTP answers that lead to a relay session.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Relay;
use crate::CarrierKind;

/// Body of the answer to a request that asks for no upgrade.
pub const UPGRADE_REQUIRED_TEXT: &str = "DERP requires connection upgrade";

const DERP: &str = "derp";

/// How to answer a request for the relay's path.
#[derive(Debug)]
pub enum Accept {
    /// Send this 101 answer, then [`serve`](Relay::serve) the upgraded
    /// connection.
    Upgrade {
        /// The answer.
        response: Response<()>,
        /// What the connection carries afterwards.
        kind: CarrierKind,
    },
    /// Send this answer; there is nothing to serve.
    Refuse(Response<&'static str>),
}

/// Decides about a request for `/derp` from its method and headers.
///
/// `Upgrade: DERP` and `Upgrade: websocket` both lead to the bare stream,
/// except that a WebSocket handshake which names the subprotocol `derp` gets a
/// WebSocket. No one is asked for a token: clients prove their keys later.
pub fn accept(relay: &Relay, method: &Method, headers: &HeaderMap) -> Accept {
    let upgrade = text(headers, UPGRADE);
    let websocket = upgrade.eq_ignore_ascii_case("websocket");
    if method != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed");
    }
    if !websocket && !upgrade.eq_ignore_ascii_case(DERP) {
        return refuse(StatusCode::UPGRADE_REQUIRED, UPGRADE_REQUIRED_TEXT);
    }
    if websocket && offers_derp(headers) {
        return accept_websocket(headers);
    }
    let mut response = switching("DERP");
    let headers = response.headers_mut();
    headers.insert(
        HeaderName::from_static("derp-version"),
        HeaderValue::from_static("2"),
    );
    if let Ok(key) = HeaderValue::from_str(&relay.public_key().to_untyped_hex()) {
        headers.insert(HeaderName::from_static("derp-public-key"), key);
    }
    Accept::Upgrade {
        response,
        kind: CarrierKind::Upgrade,
    }
}

/// Answers a request below the relay's paths, `/derp` and
/// `/derp/latency-check`, and serves what it leads to in a task of the relay.
///
/// Works with hyper and with what is built on it, for any body type: only the
/// head and the pending upgrade of the request are used.
pub fn handle<B>(relay: &Relay, request: &mut Request<B>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/derp" => {}
        "/derp/latency-check" => return Response::new(Full::default()),
        _ => return refusal(StatusCode::NOT_FOUND, "404 page not found").map(into_body),
    }
    match accept(relay, request.method(), request.headers()) {
        Accept::Refuse(response) => response.map(into_body),
        Accept::Upgrade { response, kind } => {
            if text(
                request.headers(),
                HeaderName::from_static("derp-fast-start"),
            ) == "1"
                && let Some(fast_start) = request.extensions().get::<FastStart>()
            {
                fast_start.suppress_head();
            }
            let upgrade = hyper::upgrade::on(request);
            relay.spawn(async move { upgrade.await.map(TokioIo::new) }, kind);
            response.map(|()| Full::default())
        }
    }
}

fn into_body(text: &'static str) -> Full<Bytes> {
    Full::from(text)
}

fn accept_websocket(headers: &HeaderMap) -> Accept {
    let key = text(headers, SEC_WEBSOCKET_KEY);
    if text(headers, SEC_WEBSOCKET_VERSION) != "13" || key.is_empty() {
        return refuse(
            StatusCode::BAD_REQUEST,
            "not a WebSocket handshake of version 13",
        );
    }
    let mut response = switching("websocket");
    let headers = response.headers_mut();
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(DERP));
    Accept::Upgrade {
        response,
        kind: CarrierKind::WebSocket,
    }
}

fn offers_derp(headers: &HeaderMap) -> bool {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == DERP)
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .trim()
}

fn switching(protocol: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response
}

fn refusal(status: StatusCode, text: &'static str) -> Response<&'static str> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let value = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}

fn refuse(status: StatusCode, text: &'static str) -> Accept {
    Accept::Refuse(refusal(status, text))
}

/// Lets a request handler keep the head of its own answer off the wire.
///
/// A client that asks for a fast start sends its first frame right behind the
/// request and reads no HTTP answer, which an HTTP library cannot know. So the
/// connection is wrapped in a [`FastStartIo`], and this handle is put into the
/// extensions of its requests.
#[derive(Debug, Clone, Default)]
pub struct FastStart(Arc<AtomicBool>);

impl FastStart {
    fn suppress_head(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A connection whose next written HTTP head can be swallowed.
pub struct FastStartIo<IO> {
    io: IO,
    fast_start: FastStart,
    /// How much of the blank line that ends a head was seen.
    seen: usize,
}

const END_OF_HEAD: &[u8; 4] = b"\r\n\r\n";

impl<IO> FastStartIo<IO> {
    /// Wraps a connection.
    pub fn new(io: IO) -> Self {
        Self {
            io,
            fast_start: FastStart::default(),
            seen: 0,
        }
    }

    /// The handle to put into each request's extensions.
    pub fn handle(&self) -> FastStart {
        self.fast_start.clone()
    }

    /// How much of `bytes` belongs to a head that is to be swallowed.
    fn swallow(&mut self, bytes: &[u8]) -> usize {
        if !self.fast_start.0.load(Ordering::SeqCst) {
            return 0;
        }
        for (at, byte) in bytes.iter().enumerate() {
            self.seen = match *byte {
                byte if byte == END_OF_HEAD[self.seen] => self.seen + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.seen == END_OF_HEAD.len() {
                self.seen = 0;
                self.fast_start.0.store(false, Ordering::SeqCst);
                return at + 1;
            }
        }
        bytes.len()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for FastStartIo<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for FastStartIo<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let swallowed = self.swallow(buf);
        if swallowed > 0 {
            return Poll::Ready(Ok(swallowed));
        }
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<IO> fmt::Debug for FastStartIo<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FastStartIo")
    }
}
