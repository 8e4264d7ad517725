//! Two nodes with a real relay between them.
#![allow(clippy::unwrap_used, reason = "test")]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use adit_engine::{NodeConfig, Path, RelayReason};
use common::relay::TestRelay;
use common::{PATIENCE, Peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn pair(relay: &TestRelay, change: impl Fn(&mut NodeConfig)) -> (Peer, Peer) {
    let (client, agent) = tokio::join!(
        common::peer(relay.port, &change),
        common::peer(relay.port, &change)
    );
    agent.grant(&client, false).await;
    client.grant(&agent, true).await;
    (client, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relayed_dial_is_quick_and_whole() {
    let relay = TestRelay::start().await;
    let begun = Instant::now();
    let (client, agent) = pair(&relay, |c| c.block_endpoints = true).await;
    let _echo = common::echo(agent.node.listen(1).await.unwrap());
    let mut stream = client.node.dial(agent.at(1)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut buf = [0; 5];
    stream.read_exact(&mut buf).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "took {:?}",
        begun.elapsed()
    );

    let status = client.node.peer_status(agent.ip).await.unwrap();
    assert_eq!(status.path, Some(Path::Derp(999)));
    assert_eq!(status.why_relayed, Some(RelayReason::BlockedHere));
    let ping = client.node.ping_disco(agent.ip).await.unwrap();
    assert_eq!(ping.path, Path::Derp(999));
    assert!(client.announced().await.endpoints.is_empty());

    common::transfer(client.node.dial(agent.at(1)).await.unwrap(), 64 << 20).await;
    let stats = agent.node.connection_stats().await;
    assert!(stats.rx_bytes > 64 << 20 && stats.total_connections == 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_path_replaces_the_relay_and_outlives_it() {
    let relay = TestRelay::start().await;
    let (client, agent) = pair(&relay, |_| {}).await;
    let _echo = common::echo(agent.node.listen(1).await.unwrap());
    let mut stream = client.node.dial(agent.at(1)).await.unwrap();
    client.wait_direct(&agent, true).await;
    agent.wait_direct(&client, true).await;
    relay.kill().await;
    for _ in 0..20 {
        stream.write_all(b"ping").await.unwrap();
        let mut buf = [0; 4];
        stream.read_exact(&mut buf).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    common::transfer(client.node.dial(agent.at(1)).await.unwrap(), 8 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_survives_a_restart_of_the_relay() {
    let relay = TestRelay::start().await;
    let port = relay.port;
    let (client, agent) = pair(&relay, |c| c.block_endpoints = true).await;
    let _echo = common::echo(agent.node.listen(1).await.unwrap());
    let mut stream = client.node.dial(agent.at(1)).await.unwrap();
    stream.write_all(b"one").await.unwrap();
    let mut buf = [0; 3];
    stream.read_exact(&mut buf).await.unwrap();
    relay.kill().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.write_all(b"two").await.unwrap();
    let back = Instant::now();
    let _relay = TestRelay::start_at(port).await;
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut buf))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buf, b"two");
    assert!(
        back.elapsed() < Duration::from_secs(3),
        "took {:?}",
        back.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_upgrade_leads_to_websocket() {
    let relay = TestRelay::start().await;
    relay.refuse_upgrade.store(true, Ordering::Relaxed);
    let (client, agent) = pair(&relay, |c| c.block_endpoints = true).await;
    let _echo = common::echo(agent.node.listen(1).await.unwrap());
    common::transfer(client.node.dial(agent.at(1)).await.unwrap(), 1 << 20).await;
    let node = client.announced().await;
    assert!(node.derp_forced_websocket.contains_key(&999), "{node:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forced_websockets_carry_too() {
    let relay = TestRelay::start().await;
    let (client, agent) = pair(&relay, |c| {
        c.block_endpoints = true;
        c.force_websockets = true;
    })
    .await;
    let _echo = common::echo(agent.node.listen(1).await.unwrap());
    common::transfer(client.node.dial(agent.at(1)).await.unwrap(), 1 << 20).await;
    assert!(client.announced().await.derp_forced_websocket.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_paths_go_away_when_they_are_forbidden() {
    let relay = TestRelay::start().await;
    let (client, agent) = pair(&relay, |_| {}).await;
    client.wait_direct(&agent, true).await;
    agent.node.set_block_endpoints(true).await;
    let _echo = common::echo(agent.node.listen(1).await.unwrap());
    common::transfer(client.node.dial(agent.at(1)).await.unwrap(), 1 << 20).await;
    let status = agent.node.peer_status(client.ip).await.unwrap();
    assert_eq!(status.path, Some(Path::Derp(999)));
    let announced = agent.node.self_node().borrow().clone().unwrap();
    assert!(announced.endpoints.is_empty());
    agent.node.set_block_endpoints(false).await;
    client.wait_direct(&agent, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_grant_reaches_nothing() {
    let relay = TestRelay::start().await;
    let (client, agent) = pair(&relay, |_| {}).await;
    let mut listener = agent.node.listen(1).await.unwrap();
    let stranger = common::peer(relay.port, |_| {}).await;
    stranger.grant(&agent, true).await;
    let dial = stranger
        .node
        .dial_timeout(agent.at(1), Duration::from_millis(1500))
        .await;
    assert!(dial.is_err());
    assert!(stranger.node.last_handshake(agent.id).await.is_none());
    // The granted one gets through meanwhile, and is the only one.
    let _stream = client.node.dial(agent.at(1)).await.unwrap();
    let (_, remote) = listener.accept().await.unwrap();
    assert_eq!(*remote.ip(), client.ip);
    agent.node.remove_peer(client.id).await;
    let dial = client
        .node
        .dial_timeout(agent.at(1), Duration::from_millis(500))
        .await;
    assert!(dial.is_err(), "a grant taken back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_at_once() {
    let relay = TestRelay::start().await;
    let (client, agent) = pair(&relay, |_| {}).await;
    let _echo = common::echo(agent.node.listen(1).await.unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (node, to) = (client.node.clone(), agent.at(1));
        tasks.spawn(async move { common::transfer(node.dial(to).await.unwrap(), 300_000).await });
    }
    tasks.join_all().await;
}
