//! Dialling an agent through a control plane in this process.
#![allow(clippy::unwrap_used, reason = "test")]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use adit_coord::{ControlState, DialError, DialOptions, DialStage, Unreachable, dial_agent};
use common::Plane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use uuid::Uuid;

/// Limit of each step that has no other.
const PATIENCE: Duration = Duration::from_secs(60);

fn quick(seconds: u64) -> DialOptions {
    DialOptions {
        ready_timeout: Duration::from_secs(seconds),
        ..DialOptions::default()
    }
}

async fn echo_once(conn: &adit_coord::AgentConn) {
    let mut stream = conn.dial(1).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut buf = [0; 5];
    stream.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"hello");
}

fn serve(plane: &Plane) -> tokio::task::JoinHandle<()> {
    let node = plane.node.clone();
    tokio::spawn(async move {
        let mut listener = node.listen(1).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        while let Some((stream, _)) = listener.accept().await {
            tasks.spawn(async move {
                let (mut r, mut w) = stream.into_split();
                let _ = tokio::io::copy(&mut r, &mut w).await;
            });
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dials_an_agent_and_survives_the_control_plane() {
    let plane = Plane::start().await;
    let _served = serve(&plane);
    let (progress, stages) = watch::channel(DialStage::ConnectionInfo);
    let options = DialOptions {
        progress: Some(progress),
        ..quick(60)
    };
    let conn = dial_agent(&common::client(plane.port), plane.agent, options)
        .await
        .unwrap();
    assert_eq!(*stages.borrow(), DialStage::Reachable);
    assert_eq!(conn.region_name(999), "Test Relay");
    echo_once(&conn).await;
    assert_eq!(plane.shared.dials.lock().unwrap()[..], ["version=2.0"]);

    // The session ends: a new one presents the token and keeps the name. A
    // session that ends before its token has arrived has none to present.
    let mut stream = conn.dial(1).await.unwrap();
    let mut sessions = plane.shared.sessions.subscribe();
    let mut count = 1;
    loop {
        plane.kick();
        count += 1;
        tokio::time::timeout(PATIENCE, sessions.wait_for(|n| *n == count))
            .await
            .unwrap()
            .unwrap();
        let dials = plane.shared.dials.lock().unwrap().clone();
        let last = dials.last().unwrap();
        if last.starts_with("version=2.0&resume_token=token%2F") {
            break;
        }
        assert!(count < 20, "{dials:?}");
        echo_once(&conn).await;
    }
    stream.write_all(b"still").await.unwrap();
    let mut buf = [0; 5];
    stream.read_exact(&mut buf).await.unwrap();

    // A refused token is dropped, and the dial repeated without.
    plane.shared.refuse_tokens.store(true, Ordering::Relaxed);
    plane.kick();
    tokio::time::timeout(PATIENCE, sessions.wait_for(|n| *n == count + 1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        plane.shared.dials.lock().unwrap().last().unwrap(),
        "version=2.0"
    );
    echo_once(&conn).await;

    // Without any control plane or relay the direct path goes on.
    let direct = async {
        while conn.status().await.unwrap().why_relayed.is_some() {
            let _ = conn.ping().await;
            let _ = conn.node().ping_tsmp(conn.agent_ip()).await;
        }
    };
    tokio::time::timeout(PATIENCE, direct).await.unwrap();
    plane.kill().await;
    stream.write_all(b"alone").await.unwrap();
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut buf))
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(
        *conn.control().borrow(),
        ControlState::Connecting { .. } | ControlState::Connected
    ));
    conn.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_goodbye() {
    let plane = Plane::start().await;
    let conn = dial_agent(&common::client(plane.port), plane.agent, quick(60))
        .await
        .unwrap();
    conn.close().await;
    let mut goodbyes = plane.shared.goodbyes.subscribe();
    tokio::time::timeout(PATIENCE, goodbyes.wait_for(|n| *n == 1))
        .await
        .unwrap()
        .unwrap();
    assert!(
        plane.node.status().await.is_empty(),
        "the agent dropped the peer"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_does_not_wait_for_its_answer() {
    let plane = Plane::start().await;
    plane.shared.ignore_goodbyes.store(true, Ordering::Relaxed);
    let conn = dial_agent(&common::client(plane.port), plane.agent, quick(60))
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, conn.close()).await.unwrap();
    let mut goodbyes = plane.shared.goodbyes.subscribe();
    tokio::time::timeout(PATIENCE, goodbyes.wait_for(|n| *n == 1))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_reported_at_once() {
    let plane = Plane::start().await;
    let http = common::client(plane.port);
    let error = dial_agent(&http, Uuid::new_v4(), quick(60))
        .await
        .unwrap_err();
    assert!(
        matches!(error, DialError::Info(_) | DialError::Coordinate(_)),
        "{error}"
    );
    assert!(error.to_string().contains("Agent doesn't exist"), "{error}");
    for status in [409, 404, 401, 403, 400, 500] {
        plane.shared.refuse.store(status, Ordering::Relaxed);
        // The refusal may come after the connection details: then the dial
        // does not wait for the agent.
        let dial = dial_agent(&http, plane.agent, quick(3600));
        let error = tokio::time::timeout(PATIENCE, dial).await.unwrap();
        let error = error.unwrap_err();
        assert!(
            error.to_string().contains("refused for a test"),
            "{status}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passing_trouble_is_waited_out() {
    let plane = Plane::start().await;
    plane.shared.refuse.store(503, Ordering::Relaxed);
    let shared = plane.shared.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        shared.refuse.store(0, Ordering::Relaxed);
    });
    let conn = dial_agent(&common::client(plane.port), plane.agent, quick(60))
        .await
        .unwrap();
    assert!(plane.shared.dials.lock().unwrap().len() > 1);
    conn.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_agent_is_named_as_the_reason() {
    let plane = Plane::start().await;
    plane.shared.hide_agent.store(true, Ordering::Relaxed);
    let error = dial_agent(&common::client(plane.port), plane.agent, quick(1))
        .await
        .unwrap_err();
    let DialError::Unreachable { why, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*why, Unreachable::AgentUnknown);
    assert!(!error.remedy().is_empty());
}
