//! Measures one TCP flow between two nodes, in one or two processes.
//!
//! ```text
//! throughput serve FILE          # waits; writes its node description to FILE
//! throughput send FILE [SECONDS] # dials it and sends
//! throughput both [SECONDS]      # two nodes in this process
//! throughput relay IP:PORT       # a relay
//! ```
//! With `RELAY=IP:PORT` in the environment the nodes use that relay too, with
//! `RELAY_ONLY=1` nothing else.
//! Nodes find each other without control plane or relay, so packets go
//! directly. The sender's description is passed back in `FILE.peer`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool")]

use std::net::SocketAddrV6;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adit_engine::{Node, NodeConfig};
use adit_http::{Client, ClientConfig};
use adit_messages::tailnet;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

const PORT: u16 = 3;

struct Peer {
    id: Uuid,
    node: Node,
}

async fn peer() -> Peer {
    let id = Uuid::new_v4();
    let at = std::env::var("RELAY").unwrap_or_else(|_| "127.0.0.1:9".into());
    let http = Client::new(ClientConfig::new(format!("http://{at}").parse().unwrap())).unwrap();
    let at: std::net::SocketAddr = at.parse().unwrap();
    let mut config = NodeConfig::new(
        http,
        adit_keys::addr::node_id(id),
        vec![adit_keys::addr::tailnet_ip(id)],
    );
    let relay = tailnet::derp_map::region::Node {
        host_name: at.ip().to_string(),
        derp_port: at.port().into(),
        force_http: true,
        stun_port: -1,
        ..Default::default()
    };
    let region = tailnet::derp_map::Region {
        region_id: 1,
        nodes: vec![relay],
        ..Default::default()
    };
    config.block_endpoints = std::env::var_os("RELAY_ONLY").is_some();
    config.derp_map = Some(tailnet::DerpMap {
        home_params: None,
        regions: [(1, region)].into(),
    });
    Peer {
        id,
        node: Node::start(config).await.unwrap(),
    }
}

impl Peer {
    async fn describe(&self) -> Vec<u8> {
        let node = self
            .node
            .self_node()
            .wait_for(Option::is_some)
            .await
            .unwrap()
            .clone()
            .unwrap();
        let mut out = self.id.as_bytes().to_vec();
        out.extend(node.encode_to_vec());
        out
    }

    async fn learn(&self, description: &[u8], keepalive: bool) -> Uuid {
        let id = Uuid::from_slice(&description[..16]).unwrap();
        let node = tailnet::Node::decode(&description[16..]).unwrap();
        self.node.upsert_peer(id, &node, keepalive).await.unwrap();
        id
    }
}

async fn read_when_there(path: &Path) -> Vec<u8> {
    loop {
        match tokio::fs::read(path).await {
            Ok(data) if data.len() > 16 => return data,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn put(path: &Path, data: &[u8]) {
    let part = path.with_extension("part");
    tokio::fs::write(&part, data).await.unwrap();
    tokio::fs::rename(&part, path).await.unwrap();
}

async fn relay(at: std::net::SocketAddr) {
    let relay = adit_derp::Relay::new(adit_derp::RelayConfig::new(
        adit_keys::NodePrivate::generate(),
    ));
    let listener = tokio::net::TcpListener::bind(at).await.unwrap();
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((io, _)) = listener.accept().await {
        let relay = relay.clone();
        let service =
            hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                let answer = adit_derp::relay::handle(&relay, &mut request);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
        connections.spawn(async move {
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server
                .serve_connection(hyper_util::rt::TokioIo::new(io), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn sink(node: Node) {
    let mut listener = node.listen(PORT).await.unwrap();
    while let Some((mut stream, _)) = listener.accept().await {
        let mut buf = vec![0; 256 * 1024];
        let (mut total, mut window, begun) = (0u64, 0u64, Instant::now());
        let mut mark = begun;
        let (mut last, mut silence) = (begun, Duration::ZERO);
        while let Ok(n) = stream.read(&mut buf).await {
            if n == 0 {
                break;
            }
            silence = silence.max(last.elapsed());
            last = Instant::now();
            total += n as u64;
            window += n as u64;
            if mark.elapsed() >= Duration::from_secs(1) {
                let rate = window as f64 * 8e-9 / mark.elapsed().as_secs_f64();
                println!("  {rate:.2} Gbit/s, longest silence {silence:?}");
                (mark, window, silence) = (Instant::now(), 0, Duration::ZERO);
            }
        }
        let rate = total as f64 * 8e-9 / begun.elapsed().as_secs_f64();
        println!("received {total} bytes, {rate:.2} Gbit/s");
        let _ = stream.write_all(b"done").await;
    }
}

async fn send(node: &Node, to: Uuid, seconds: u64) {
    let ip = adit_keys::addr::tailnet_ip(to);
    let relay_only = std::env::var_os("RELAY_ONLY").is_some();
    loop {
        match node.peer_status(ip).await {
            Some(status) if status.why_relayed.is_none() || relay_only => break,
            _ => {}
        }
        let _ = tokio::time::timeout(Duration::from_millis(100), node.ping_tsmp(ip)).await;
    }
    let mut stream = node.dial(SocketAddrV6::new(ip, PORT, 0, 0)).await.unwrap();
    let block = vec![7; 256 * 1024];
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        stream.write_all(&block).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seconds = |n: usize| args.get(n).and_then(|s| s.parse().ok()).unwrap_or(5);
    match args.first().map(String::as_str) {
        Some("serve") => {
            let path = PathBuf::from(&args[1]);
            let back = PathBuf::from(format!("{}.peer", args[1]));
            let _ = tokio::fs::remove_file(&back).await;
            let me = peer().await;
            put(&path, &me.describe().await).await;
            me.learn(&read_when_there(&back).await, false).await;
            sink(me.node.clone()).await;
        }
        Some("relay") => relay(args[1].parse().unwrap()).await,
        Some("send") => {
            let me = peer().await;
            let to = me
                .learn(&read_when_there(Path::new(&args[1])).await, true)
                .await;
            put(
                Path::new(&format!("{}.peer", args[1])),
                &me.describe().await,
            )
            .await;
            send(&me.node, to, seconds(2)).await;
        }
        _ => {
            let (a, b) = tokio::join!(peer(), peer());
            let to = a.learn(&b.describe().await, true).await;
            b.learn(&a.describe().await, false).await;
            let receiver = tokio::spawn(sink(b.node.clone()));
            send(&a.node, to, seconds(1)).await;
            receiver.abort();
        }
    }
}
