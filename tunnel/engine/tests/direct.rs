//! Two nodes on this machine without any relay.
#![allow(clippy::unwrap_used, reason = "test")]

mod common;

use std::time::Duration;

use adit_engine::{Error, Path, TcpStream};
use common::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Nothing listens here.
const NO_RELAY: u16 = 9;

/// A stream from the client to the agent, and its other end there.
async fn stream(client: &common::Peer, agent: &common::Peer) -> (TcpStream, TcpStream) {
    let mut listener = agent.node.listen(1).await.unwrap();
    let stream = client.node.dial(agent.at(1)).await.unwrap();
    let (served, _) = listener.accept().await.unwrap();
    (stream, served)
}

async fn pair() -> (common::Peer, common::Peer) {
    let (client, agent) = tokio::join!(
        common::peer(NO_RELAY, |_| {}),
        common::peer(NO_RELAY, |_| {})
    );
    agent.grant(&client, false).await;
    client.grant(&agent, true).await;
    client.wait_direct(&agent, true).await;
    agent.wait_direct(&client, true).await;
    (client, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_path_needs_no_relay() {
    let (client, agent) = pair().await;
    let _echo = common::echo(agent.node.listen(1).await.unwrap());
    let rtt = client.node.ping_tsmp(agent.ip).await.unwrap();
    assert!(rtt < Duration::from_secs(5));
    let mut stream = client.node.dial(agent.at(1)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut buf = [0; 5];
    stream.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"hello");
    let status = client.node.peer_status(agent.ip).await.unwrap();
    assert!(matches!(status.path, Some(Path::Direct(_))));
    assert!(status.last_handshake.is_some());
    let ping = client.node.ping_disco(agent.ip).await.unwrap();
    assert!(matches!(ping.path, Path::Direct(_)));
    common::transfer(client.node.dial(agent.at(1)).await.unwrap(), 64 << 20).await;
    // The way between two sockets of one machine carries more than 1280 bytes.
    let stats = client.node.connection_stats().await;
    let each = stats.tx_bytes / stats.tx_packets;
    assert!(each > 1280, "packets of {each} bytes");
    let own = std::net::SocketAddrV6::new(client.ip, 1, 0, 0);
    assert!(matches!(
        client.node.dial(own).await,
        Err(Error::UnknownPeer(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_without_listener_are_decided_by_the_rest_listener() {
    let (client, agent) = pair().await;
    let mut rest = agent.node.listen_rest().await;
    let decide = tokio::spawn(async move {
        let refused = rest.recv().await.unwrap();
        assert_eq!(refused.port(), 81);
        refused.reject();
        let accepted = rest.recv().await.unwrap();
        assert_eq!(accepted.port(), 80);
        let mut stream = accepted.accept().await.unwrap();
        stream.write_all(b"served").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    });
    assert!(matches!(
        client.node.dial(agent.at(81)).await,
        Err(Error::Refused)
    ));
    let mut stream = client.node.dial(agent.at(80)).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "served");
    drop(stream);
    decide.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_serves_nobody() {
    let (client, agent) = pair().await;
    client.node.ping_tsmp(agent.ip).await.unwrap();
    let dial = agent
        .node
        .dial_timeout(client.at(22), Duration::from_millis(600))
        .await;
    assert!(matches!(dial, Err(Error::Timeout(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_pass_both_ways() {
    let (client, agent) = pair().await;
    let mut bound = agent.node.udp_bind(53).await.unwrap();
    let mut rest = agent.node.udp_rest().await;
    let mut socket = client.node.udp_bind(0).await.unwrap();
    client.node.ping_tsmp(agent.ip).await.unwrap();
    socket.send_to("question".into(), agent.at(53)).unwrap();
    let got = bound.recv().await.unwrap();
    assert_eq!(&got.data[..], b"question");
    bound.send_to("answer".into(), got.remote).unwrap();
    assert_eq!(&socket.recv().await.unwrap().data[..], b"answer");
    socket.send_to("other".into(), agent.at(5353)).unwrap();
    let got = rest.recv().await.unwrap();
    assert_eq!((got.local.port(), &got.data[..]), (5353, &b"other"[..]));
    let answer = adit_engine::Datagram {
        data: "back".into(),
        ..got
    };
    rest.sender().send(answer).unwrap();
    assert_eq!(&socket.recv().await.unwrap().data[..], b"back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_node_ends_its_streams() {
    let (client, agent) = pair().await;
    let (mut stream, mut served) = stream(&client, &agent).await;
    client.node.close().await;
    let mut buf = [0; 1];
    assert!(stream.read(&mut buf).await.is_err());
    let end = tokio::time::timeout(PATIENCE, served.read(&mut buf))
        .await
        .unwrap();
    assert!(end.is_err(), "the peer sees a reset");
    assert!(matches!(
        client.node.dial(agent.at(1)).await,
        Err(Error::Closed)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_a_peer_ends_its_streams() {
    let (client, agent) = pair().await;
    let (mut stream, mut served) = stream(&client, &agent).await;
    stream.write_all(b"last words").await.unwrap();
    let mut buf = [0; 10];
    served.read_exact(&mut buf).await.unwrap();
    agent.node.remove_peer(client.id).await;
    let end = tokio::time::timeout(PATIENCE, served.read(&mut buf))
        .await
        .unwrap();
    assert_eq!(
        end.unwrap_err().kind(),
        std::io::ErrorKind::HostUnreachable,
        "nobody can end it any more"
    );
}
