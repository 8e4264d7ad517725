//! Measures a relay in a process of its own: memory per idle client, and
//! throughput between two clients.
//!
//! `cargo run --release -p adit-derp --example relay_load -- [CLIENTS] [SECONDS]`
#![allow(
    clippy::unwrap_used,
    reason = "a broken measurement may end in a panic"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use adit_derp::frame::Decoder;
use adit_derp::handshake::{self, ClientInfo};
use adit_derp::relay::handle;
use adit_derp::{Client, ConnectOptions, Event, Frame, Memory, Relay, RelayConfig};
use adit_http::{ClientConfig, Endpoint, ProxyConfig, Url};
use adit_keys::NodePrivate;
use bytes::{Bytes, BytesMut};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// WireGuard's largest datagram inside the tunnel.
const PACKET: usize = 1312;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start() -> (Self, u16) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        (Self(child), line.trim().parse().unwrap())
    }

    fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let first = args.next();
    if first.as_deref() == Some("serve") {
        return serve().await;
    }
    let clients = first.map_or(1000, |text| text.parse().unwrap());
    let seconds = args.next().map_or(5, |text| text.parse().unwrap());
    for (name, upgrade) in [("upgrade", "DERP"), ("websocket", "websocket")] {
        let (server, port) = Server::start();
        idle(&server, port, clients, name, upgrade).await;
    }
    let (server, port) = Server::start();
    for websocket in [false, true] {
        throughput(port, Duration::from_secs(seconds), websocket).await;
    }
    println!("relay after the load: {} KiB", server.rss_kib());
}

async fn serve() {
    let relay = Relay::new(RelayConfig::new(NodePrivate::generate()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let relay = relay.clone();
        tokio::spawn(async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                let response = handle(&relay, &mut request);
                async move { Ok::<_, String>(response) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn idle(server: &Server, port: u16, clients: u64, name: &str, upgrade: &str) {
    let before = server.rss_kib();
    let mut held = Vec::new();
    for _ in 0..clients {
        held.push(idle_client(port, upgrade).await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let each = (server.rss_kib() - before) as f64 * 1024.0 / clients as f64;
    println!("{clients} idle clients over {name}: {each:.0} bytes each, {before} KiB before");
    drop(held);
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// A connection that has done its handshake, with as little client as can be.
async fn idle_client(port: u16, upgrade: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let websocket = upgrade == "websocket";
    let more = if websocket {
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: p5q4m4bWduWy5T0sm/46wQ==\r\nSec-WebSocket-Protocol: derp\r\n"
    } else {
        ""
    };
    let head = format!(
        "GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    // Short messages have two bytes of WebSocket header from a server.
    let skip = if websocket { 2 } else { 0 };
    let mut greeting = vec![0; skip + 45];
    stream.read_exact(&mut greeting).await.unwrap();
    let mut decoder = Decoder::for_client();
    decoder.buffer().extend_from_slice(&greeting[skip..]);
    let Frame::ServerKey(key) = Frame::parse(decoder.next_frame().unwrap().unwrap()) else {
        panic!("no greeting")
    };
    let mut out = BytesMut::new();
    if websocket {
        // A masked binary message of 109 bytes, with a mask of zeros.
        out.extend_from_slice(&[0x82, 0x80 | 109, 0, 0, 0, 0]);
    }
    ClientInfo::ours().put(
        &mut out,
        &NodePrivate::generate(),
        &key,
        &handshake::nonce(),
    );
    stream.write_all(&out).await.unwrap();
    stream.read_exact(&mut vec![0; skip + 58]).await.unwrap();
    stream
}

async fn throughput(port: u16, time: Duration, websocket_only: bool) {
    let mut config = ClientConfig::new(Url::parse("http://127.0.0.1:1").unwrap());
    config.proxy = ProxyConfig::none();
    let http = adit_http::Client::new(config).unwrap();
    let endpoint = Endpoint::new("127.0.0.1", port, false);
    let mut options = ConnectOptions::new(NodePrivate::generate(), vec![endpoint]);
    options.websocket_only = websocket_only;
    let a = Client::connect(&http, &options, &Memory::default())
        .await
        .unwrap();
    options.node_key = NodePrivate::generate();
    let dst = options.node_key.public();
    let b = Client::connect(&http, &options, &Memory::default())
        .await
        .unwrap();

    let packet = Bytes::from(vec![4; PACKET]);
    let (mut sent, mut dropped, mut received) = (0u64, 0usize, 0u64);
    let start = Instant::now();
    let mut events = Vec::new();
    let mut in_flight = 0i64;
    while start.elapsed() < time {
        // As a transport with a window would: no more than the queues hold.
        while in_flight < 384 {
            dropped += a.send_batch((0..32).map(|_| (dst, packet.clone())));
            sent += 32;
            in_flight += 32;
        }
        events.clear();
        let wait = tokio::time::timeout(Duration::from_millis(20), b.recv_batch(&mut events, 512));
        if wait.await.is_err() {
            in_flight = 0;
        }
        let packets = events
            .iter()
            .filter(|event| matches!(event, Event::Packet { .. }))
            .count();
        received += packets as u64;
        in_flight -= packets as i64;
    }
    let bits = received as f64 * PACKET as f64 * 8.0 / start.elapsed().as_secs_f64();
    println!(
        "{:?}: {:.2} Gbit/s, {sent} sent, {received} received, {dropped} dropped in the sender",
        a.carrier(),
        bits / 1e9
    );
}
