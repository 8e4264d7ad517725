//! Nodes for tests.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod relay;

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use adit_engine::{Node, NodeConfig, TcpListener};
use adit_http::{Client, ClientConfig, ProxyConfig};
use adit_messages::tailnet;
use adit_messages::tailnet::derp_map::Region;
use adit_messages::tailnet::derp_map::region::Node as MapNode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

pub(crate) const REGION: i64 = 999;
/// Limit of each step.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A map with one relay on a local port.
pub(crate) fn map(port: u16) -> tailnet::DerpMap {
    let node = MapNode {
        name: "999b".into(),
        region_id: REGION,
        host_name: "127.0.0.1".into(),
        derp_port: port.into(),
        force_http: true,
        stun_port: -1,
        ..MapNode::default()
    };
    let region = Region {
        region_id: REGION,
        nodes: vec![node],
        ..Region::default()
    };
    tailnet::DerpMap {
        home_params: Some(tailnet::derp_map::HomeParams::default()),
        regions: [(REGION, region)].into(),
    }
}

pub(crate) struct Peer {
    pub(crate) id: Uuid,
    pub(crate) ip: Ipv6Addr,
    pub(crate) node: Node,
}

pub(crate) async fn peer(relay_port: u16, change: impl FnOnce(&mut NodeConfig)) -> Peer {
    let id = Uuid::new_v4();
    let ip = adit_keys::addr::tailnet_ip(id);
    let url = format!("http://127.0.0.1:{relay_port}").parse().unwrap();
    let mut http = ClientConfig::new(url);
    http.proxy = ProxyConfig::none();
    let mut config = NodeConfig::new(
        Client::new(http).unwrap(),
        adit_keys::addr::node_id(id),
        vec![ip],
    );
    config.derp_map = Some(map(relay_port));
    change(&mut config);
    Peer {
        id,
        ip,
        node: Node::start(config).await.unwrap(),
    }
}

impl Peer {
    pub(crate) async fn announced(&self) -> tailnet::Node {
        let mut watch = self.node.self_node();
        let node = tokio::time::timeout(PATIENCE, watch.wait_for(Option::is_some)).await;
        node.unwrap().unwrap().clone().unwrap()
    }

    /// Learns of `other`, as a coordinator would tell.
    pub(crate) async fn grant(&self, other: &Self, keepalive: bool) {
        let node = other.announced().await;
        self.node
            .upsert_peer(other.id, &node, keepalive)
            .await
            .unwrap();
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddrV6 {
        SocketAddrV6::new(self.ip, port, 0, 0)
    }

    /// Waits until packets to `other` go directly (or not).
    pub(crate) async fn wait_direct(&self, other: &Self, direct: bool) {
        let wait = async {
            loop {
                // Answers may be lost while paths change.
                let ping = self.node.ping_tsmp(other.ip);
                let _ = tokio::time::timeout(Duration::from_millis(100), ping).await;
                let status = self.node.peer_status(other.ip).await.unwrap();
                if matches!(status.path, Some(adit_engine::Path::Direct(_))) == direct {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    }
}

/// Echoes every connection of a listener until the task is dropped.
pub(crate) fn echo(mut listener: TcpListener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        while let Some((stream, _)) = listener.accept().await {
            tasks.spawn(async move {
                let (mut r, mut w) = stream.into_split();
                let _ = tokio::io::copy(&mut r, &mut w).await;
            });
        }
    })
}

/// Sends `len` patterned bytes through an echo and checks what comes back.
pub(crate) async fn transfer(stream: adit_engine::TcpStream, len: usize) {
    let (mut r, mut w) = stream.into_split();
    let byte = |n: usize| (n.wrapping_mul(2_654_435_761) >> 13) as u8;
    let writer = tokio::spawn(async move {
        let mut sent = 0;
        while sent < len {
            let chunk: Vec<u8> = (sent..(sent + 65_536).min(len)).map(byte).collect();
            w.write_all(&chunk).await.unwrap();
            sent += chunk.len();
        }
        w.shutdown().await.unwrap();
        w
    });
    let mut got = 0;
    let mut buf = vec![0; 65_536];
    loop {
        let n = r.read(&mut buf).await.unwrap();
        if n == 0 {
            break;
        }
        assert!(
            buf[..n]
                .iter()
                .enumerate()
                .all(|(i, b)| *b == byte(got + i)),
            "bytes differ after {got}"
        );
        got += n;
    }
    assert_eq!(got, len);
    drop(writer.await.unwrap());
}
