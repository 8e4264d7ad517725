//! Client and relay over real HTTP, with and without obstacles.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_derp::handshake::{self, ClientInfo};
use adit_derp::relay::{FastStartIo, handle};
use adit_derp::{
    CarrierKind, Client, CloseReason, ConnectError, ConnectOptions, Event, Frame, Memory,
    PeerGoneReason, Relay, RelayConfig, relay_endpoint,
};
use adit_http::{ClientConfig, Endpoint, ErrorKind, ProxyConfig, Url};
use adit_keys::{NodePrivate, NodePublic};
use adit_rest::DerpNode;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use support::SOON;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// What stands between client and relay.
#[derive(Clone, Copy, PartialEq)]
enum Obstacle {
    None,
    /// Answers `Upgrade: DERP` with this status.
    Refuses(u16),
    /// Answers it never.
    Swallows,
    /// Accepts it and then passes nothing on.
    Breaks,
}

struct Site {
    relay: Relay,
    address: SocketAddr,
    open: Arc<AtomicBool>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn site(obstacle: Obstacle) -> Site {
    let relay = Relay::new(RelayConfig::new(NodePrivate::generate()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let open = Arc::new(AtomicBool::new(false));
    let (served, opened) = (relay.clone(), open.clone());
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (relay, opened) = (served.clone(), opened.clone());
            tokio::spawn(async move {
                let io = FastStartIo::new(stream);
                let fast_start = io.handle();
                let service = service_fn(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(fast_start.clone());
                    let open = opened.load(Ordering::SeqCst);
                    answer(
                        relay.clone(),
                        if open { Obstacle::None } else { obstacle },
                        request,
                    )
                });
                let server = hyper::server::conn::http1::Builder::new();
                let connection = server.serve_connection(TokioIo::new(io), service);
                let _ = connection.with_upgrades().await;
            });
        }
    });
    Site {
        relay,
        address,
        open,
        server,
    }
}

async fn answer(
    relay: Relay,
    obstacle: Obstacle,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, String> {
    let raw = request
        .headers()
        .get("upgrade")
        .is_some_and(|value| value == "DERP");
    match obstacle {
        Obstacle::Refuses(status) if raw => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            return Ok(response);
        }
        Obstacle::Swallows if raw => std::future::pending().await,
        Obstacle::Breaks if raw => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert("connection", "Upgrade".parse().unwrap());
            headers.insert("upgrade", "DERP".parse().unwrap());
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let _held = upgrade.await;
                std::future::pending::<()>().await;
            });
            return Ok(response);
        }
        _ => {}
    }
    Ok(handle(&relay, &mut request))
}

fn http() -> adit_http::Client {
    let mut config = ClientConfig::new(Url::parse("http://127.0.0.1:1").unwrap());
    config.proxy = ProxyConfig::none();
    adit_http::Client::new(config).unwrap()
}

impl Site {
    fn options(&self) -> ConnectOptions {
        let endpoint = Endpoint::new("127.0.0.1", self.address.port(), false);
        ConnectOptions::new(NodePrivate::generate(), vec![endpoint])
    }

    async fn connect(&self, memory: &Memory) -> (Client, NodePublic) {
        self.connect_with(&self.options(), memory).await
    }

    async fn connect_with(
        &self,
        options: &ConnectOptions,
        memory: &Memory,
    ) -> (Client, NodePublic) {
        let client = Client::connect(&http(), options, memory).await.unwrap();
        (client, options.node_key.public())
    }
}

async fn next(client: &Client) -> Event {
    let mut events = Vec::new();
    timeout(SOON, client.recv_batch(&mut events, 1))
        .await
        .unwrap()
        .unwrap();
    events.remove(0)
}

async fn exchange(a: (&Client, NodePublic), b: (&Client, NodePublic)) {
    for ((from, src), (to, dst)) in [(a, b), (b, a)] {
        let packet = Bytes::from(vec![5; 64 << 10]);
        assert_eq!(from.send_batch([(dst, packet.clone())]), 0);
        assert_eq!(next(to).await, Event::Packet { src, packet });
    }
}

#[tokio::test]
async fn both_carriers_meet_at_one_relay() {
    let site = site(Obstacle::None).await;
    let memory = Memory::default();
    let (a, a_key) = site.connect(&memory).await;
    let mut options = site.options();
    options.websocket_only = true;
    let (b, b_key) = site.connect_with(&options, &memory).await;
    assert_eq!(a.carrier(), CarrierKind::Upgrade);
    assert_eq!(b.carrier(), CarrierKind::WebSocket);
    assert_eq!(b.upgrade_refused(), None);
    assert_eq!(a.server_key(), site.relay.public_key());
    exchange((&a, a_key), (&b, b_key)).await;
    assert!(a.ping().await.unwrap() < SOON);
    assert!(b.ping().await.unwrap() < SOON);
    b.close().await;
    let gone = Event::PeerGone {
        peer: b_key,
        reason: PeerGoneReason::Disconnected,
    };
    assert_eq!(next(&a).await, gone);
    assert!(!site.relay.has(&b_key));
    site.relay.close().await;
    assert_eq!(timeout(SOON, a.closed()).await.unwrap(), CloseReason::Eof);
}

#[tokio::test]
async fn a_refused_upgrade_becomes_a_websocket_at_once() {
    for status in [403, 426, 502] {
        let site = site(Obstacle::Refuses(status)).await;
        let mut options = site.options();
        options.head_start = Duration::from_secs(60);
        let memory = Memory::default();
        let (a, a_key) = timeout(SOON, site.connect_with(&options, &memory))
            .await
            .unwrap();
        assert_eq!(a.carrier(), CarrierKind::WebSocket);
        // Only a refusal for good is worth a report.
        assert_eq!(a.upgrade_refused().is_some(), status < 500);
        let (b, b_key) = site.connect(&memory).await;
        exchange((&a, a_key), (&b, b_key)).await;
    }
}

#[tokio::test]
async fn a_websocket_overtakes_an_upgrade_that_leads_nowhere() {
    for obstacle in [Obstacle::Swallows, Obstacle::Breaks] {
        let site = site(obstacle).await;
        let mut options = site.options();
        options.head_start = Duration::from_millis(50);
        let (a, _) = timeout(SOON, site.connect_with(&options, &Memory::default()))
            .await
            .unwrap();
        assert_eq!(a.carrier(), CarrierKind::WebSocket);
        assert_eq!(a.upgrade_refused(), None);
    }
}

#[tokio::test]
async fn the_winner_goes_first_the_next_time() {
    let site = site(Obstacle::Refuses(404)).await;
    let mut options = site.options();
    options.head_start = Duration::from_secs(60);
    let memory = Memory::default();
    let (first, _) = site.connect_with(&options, &memory).await;
    assert_eq!(first.carrier(), CarrierKind::WebSocket);
    drop(first);
    site.open.store(true, Ordering::SeqCst);
    let (second, _) = site.connect_with(&options, &memory).await;
    assert_eq!(second.carrier(), CarrierKind::WebSocket);
    assert!(second.upgrade_refused().is_some());
    memory.clear();
    let (third, _) = site.connect_with(&options, &memory).await;
    assert_eq!(third.carrier(), CarrierKind::Upgrade);
}

#[tokio::test]
async fn failures_to_connect_have_types() {
    let memory = Memory::default();
    let none = ConnectOptions::new(NodePrivate::generate(), Vec::new());
    let error = Client::connect(&http(), &none, &memory)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ConnectError::NoRelay));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let endpoint = vec![Endpoint::new("127.0.0.1", port, false)];
    let mut options = ConnectOptions::new(NodePrivate::generate(), endpoint);
    options.timeout = Duration::from_millis(200);
    let error = Client::connect(&http(), &options, &memory)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ConnectError::Timeout));
    drop(listener);
    let error = Client::connect(&http(), &options, &memory)
        .await
        .err()
        .unwrap();
    let ConnectError::Http(error) = error else {
        panic!("{error}")
    };
    assert!(matches!(error.kind(), ErrorKind::Tcp { .. }), "{error}");
}

#[tokio::test]
async fn the_next_relay_of_a_region_is_tried() {
    let site = site(Obstacle::None).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap().port();
    drop(listener);
    let mut options = site.options();
    options
        .endpoints
        .insert(0, Endpoint::new("127.0.0.1", dead, false));
    site.connect_with(&options, &Memory::default()).await;
}

#[tokio::test]
async fn a_full_send_queue_drops_and_does_not_wait() {
    let site = site(Obstacle::None).await;
    let (a, a_key) = site.connect(&Memory::default()).await;
    let packet = Bytes::from(vec![0; 1300]);
    // Nothing is read or written before this task yields.
    let dropped = a.send_batch((0..5000).map(|_| (a_key, packet.clone())));
    assert!(dropped >= 5000 - 1024, "{dropped}");
    assert_eq!(
        a.send_batch([(a_key, Bytes::from(vec![0; (64 << 10) + 1]))]),
        1
    );
}

async fn raw_request(address: SocketAddr, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
    (stream, String::from_utf8(head).unwrap().to_lowercase())
}

#[tokio::test]
async fn other_requests_get_their_answers() {
    let site = site(Obstacle::None).await;
    let (mut stream, head) = raw_request(
        site.address,
        "GET /derp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(head.starts_with("http/1.1 426 "), "{head}");
    let mut body = String::new();
    stream.read_to_string(&mut body).await.unwrap();
    assert_eq!(body, "DERP requires connection upgrade");

    let latency = "GET /derp/latency-check HTTP/1.1\r\nHost: x\r\n\r\n";
    let (_stream, head) = raw_request(site.address, latency).await;
    assert!(
        head.starts_with("http/1.1 200 ") && head.contains("content-length: 0"),
        "{head}"
    );

    let upgrade = "GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: derp\r\n\r\n";
    let (_stream, head) = raw_request(site.address, upgrade).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    let key = site.relay.public_key().to_untyped_hex();
    for line in [
        "upgrade: derp",
        "connection: upgrade",
        "derp-version: 2",
        &format!("derp-public-key: {key}"),
    ] {
        assert!(
            head.contains(&format!("\r\n{line}\r\n")),
            "{line} in {head}"
        );
    }

    // Without the subprotocol even a WebSocket handshake gets the bare stream.
    let websocket = "GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: p5q4m4bWduWy5T0sm/46wQ==\r\n";
    let (mut stream, head) = raw_request(site.address, &format!("{websocket}\r\n")).await;
    assert!(head.contains("\r\nupgrade: derp\r\n"), "{head}");
    let mut greeting = [0; 13];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting[5..], adit_derp::frame::MAGIC);

    let subprotocol = format!("{websocket}Sec-WebSocket-Protocol: other, derp\r\n\r\n");
    let (_stream, head) = raw_request(site.address, &subprotocol).await;
    assert!(
        head.contains("\r\nsec-websocket-protocol: derp\r\n"),
        "{head}"
    );
    // As in the recorded handshake with this key.
    assert!(
        head.contains("\r\nsec-websocket-accept: 8pku3cvw2w3gbyjs2/sakcb0muw=\r\n"),
        "{head}"
    );
    assert!(!head.contains("extensions"), "{head}");
}

#[tokio::test]
async fn a_fast_start_gets_no_http_answer() {
    let site = site(Obstacle::None).await;
    let key = NodePrivate::generate();
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let mut out = BytesMut::from(
        &b"GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n"[..],
    );
    ClientInfo::ours().put(
        &mut out,
        &key,
        &site.relay.public_key(),
        &handshake::nonce(),
    );
    stream.write_all(&out).await.unwrap();
    let mut decoder = adit_derp::frame::Decoder::for_client();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        let read = timeout(SOON, stream.read_buf(decoder.buffer()))
            .await
            .unwrap();
        assert!(read.unwrap() > 0);
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push(Frame::parse(frame));
        }
    }
    assert_eq!(frames[0], Frame::ServerKey(site.relay.public_key()));
    assert!(matches!(frames[1], Frame::ServerInfo(_)));
}

#[test]
fn relay_maps_lead_to_endpoints() {
    let node = |change: fn(&mut DerpNode)| {
        let mut node = DerpNode {
            host_name: "relay.example".into(),
            ..DerpNode::default()
        };
        change(&mut node);
        relay_endpoint(&node)
    };
    let plain = Endpoint::new("relay.example", 443, true);
    assert_eq!(node(|_| {}), Some(plain.clone()));
    // The port's default does not depend on the scheme.
    assert_eq!(
        node(|n| n.force_http = true),
        Some(Endpoint::new("relay.example", 443, false))
    );
    assert_eq!(node(|n| n.stun_only = true), None);
    assert_eq!(node(|n| n.derp_port = -1), None);
    assert_eq!(
        node(|n| (n.ipv4, n.ipv6) = ("none".into(), "none".into())),
        None
    );
    assert_eq!(node(|n| n.ipv6 = "none".into()), Some(plain));
    let fixed = node(|n| {
        n.ipv4 = "192.0.2.1".into();
        n.cert_name = "front.example".into();
        n.insecure_for_tests = true;
        n.derp_port = 8443;
    });
    let mut expected = Endpoint::new("relay.example", 8443, true);
    expected.addresses = vec!["192.0.2.1".parse().unwrap()];
    expected.cert_name = Some("front.example".into());
    expected.insecure = true;
    assert_eq!(fixed, Some(expected));
}
