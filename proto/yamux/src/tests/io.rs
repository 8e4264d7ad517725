//! Sessions over a transport.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::{Config, Connection, Error, Incoming};

fn pair(capacity: usize) -> (Connection, Connection, Incoming) {
    let (near, far) = tokio::io::duplex(capacity);
    let (client, _) = Connection::client(near, Config::default());
    let (server, incoming) = Connection::server(far, Config::default());
    (client, server, incoming)
}

#[tokio::test]
async fn streams_echo_concurrently() {
    let (client, _server, mut incoming) = pair(10_000);
    let echo = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        while let Some(stream) = incoming.accept().await {
            tasks.spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
        tasks.join_all().await.len()
    });
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..20u8 {
        let stream = client.open().await.unwrap();
        tasks.spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let data = vec![index; 600_000];
            let send = async {
                write.write_all(&data).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut back = Vec::new();
            let (_, received) = tokio::join!(send, read.read_to_end(&mut back));
            received.unwrap();
            assert!(back == data);
        });
    }
    tasks.join_all().await;
    assert!(client.ping().await.unwrap() < Duration::from_secs(5));
    client.close().await;
    assert_eq!(echo.await.unwrap(), 20);
}

#[tokio::test]
async fn end_of_the_transport_reaches_everyone() {
    let (client, server, mut incoming) = pair(1000);
    let mut stream = client.open().await.unwrap();
    let mut accepted = incoming.accept().await.unwrap();
    server.close().await;
    assert!(matches!(client.closed().await, Error::Eof));
    assert!(client.is_closed());
    assert!(stream.read_u8().await.is_err());
    assert!(accepted.write_all(b"x").await.is_err());
    assert!(client.open().await.is_err());
    assert!(client.ping().await.is_err());
    assert!(incoming.accept().await.is_none());
}

#[tokio::test]
async fn dropping_all_handles_drops_the_transport() {
    let (near, mut far) = tokio::io::duplex(1000);
    let (client, incoming) = Connection::client(near, Config::default());
    let stream = client.open().await.unwrap();
    drop((client, incoming));
    let mut frame = [0; 12];
    far.read_exact(&mut frame).await.unwrap();
    drop(stream);
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn reset_and_drop_reach_the_peer() {
    let (client, _server, mut incoming) = pair(1000);
    let mut stream = client.open().await.unwrap();
    let mut accepted = incoming.accept().await.unwrap();
    stream.reset();
    let error = accepted.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let mut stream = client.open().await.unwrap();
    stream.write_all(b"rest").await.unwrap();
    drop(stream);
    let mut received = Vec::new();
    let mut accepted = incoming.accept().await.unwrap();
    accepted.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"rest");
}

#[tokio::test]
async fn what_was_written_before_the_close_arrives() {
    // The transport takes it in many pieces.
    let (client, _server, mut incoming) = pair(1000);
    let mut stream = client.open().await.unwrap();
    stream.write_all(&[7; 100_000]).await.unwrap();
    let receive = async {
        let mut accepted = incoming.accept().await.unwrap();
        let mut received = Vec::new();
        let end = accepted.read_to_end(&mut received).await;
        assert!(end.is_err(), "the stream was not finished");
        received.len()
    };
    let ((), received) = tokio::join!(client.close(), receive);
    assert_eq!(received, 100_000);
    assert!(stream.write_all(b"more").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn silent_peer_fails_the_keepalive() {
    let (near, _far) = tokio::io::duplex(1000);
    let (client, _incoming) = Connection::client(near, Config::default());
    let start = tokio::time::Instant::now();
    assert!(matches!(client.closed().await, Error::KeepaliveTimeout));
    let waited = start.elapsed();
    assert!(
        waited >= Duration::from_secs(40) && waited < Duration::from_secs(51),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn peer_that_does_not_read_fails_the_write() {
    let (near, _far): (_, DuplexStream) = tokio::io::duplex(100);
    let (client, _incoming) = Connection::client(near, Config::default());
    let mut stream = client.open().await.unwrap();
    stream.write_all(&[0; 1000]).await.unwrap();
    assert!(matches!(client.closed().await, Error::WriteTimeout));
}

#[tokio::test(start_paused = true)]
async fn idle_sessions_stay_alive() {
    let (client, server, _incoming) = pair(1000);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!client.is_closed() && !server.is_closed());
}
