//! Tokens that do not work, and older control planes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adit_agent_core::Auth;
use adit_drpc::Status;
use adit_drpc::server::Call;
use adit_tests_conformance::wire::{Dir, Record, Recording};
use bytes::Bytes;
use http::StatusCode;

use crate::Agent;
use crate::fine::{Fine, manifest};
use crate::server::{Admission, Claims, Plan, Server, Shared, Streaming};

/// Refuses everybody with what a real control plane said.
struct Refusing {
    body: String,
}

impl Plan for Refusing {
    fn admit(&self, _: usize) -> Admission {
        Admission::Refuse(StatusCode::UNAUTHORIZED, self.body.clone())
    }

    fn claims(&self) -> Claims {
        Claims::Refuse(StatusCode::UNAUTHORIZED, self.body.clone())
    }

    fn unary(&self, _: usize, _: &str, _: Bytes) -> Result<Bytes, Status> {
        Err(Status::unimplemented())
    }

    fn stream<'a>(&'a self, _: usize, _: Call, _: &'a Shared) -> Streaming<'a> {
        Box::pin(async { Err(Status::unimplemented()) })
    }
}

fn recorded_refusals() -> Vec<String> {
    let recording = Recording::load("agent-wrong-token").unwrap();
    let mut bodies: Vec<String> = recording
        .records
        .iter()
        .filter_map(|r| match r {
            Record::Http(h) if h.dir == Dir::ToClient => Some(h.body.clone()),
            _ => None,
        })
        .collect();
    bodies.sort();
    bodies.dedup();
    bodies
}

/// The recorded waits are 0, 162, 262, 424 and 685 ms; ours are at most that
/// and at least half of it.
#[tokio::test]
async fn a_wrong_token_is_tried_again_on_the_recorded_schedule() {
    let bodies = recorded_refusals();
    assert_eq!(bodies.len(), 2, "an unknown token and one that is no UUID");
    for body in bodies {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(Refusing { body }).await;
        let agent = Agent::start(&server.url, dir.path());
        for path in ["rpc", "reinit"] {
            server
                .until(path, |s| {
                    s.iter().filter(|s| s.what.contains(path)).count() >= 4
                })
                .await;
            let times: Vec<Instant> = server
                .seen()
                .iter()
                .filter(|s| s.what.contains(path))
                .map(|s| s.at)
                .collect();
            let waits: Vec<u128> = times
                .windows(2)
                .map(|w| (w[1] - w[0]).as_millis())
                .collect();
            for (wait, least) in waits.iter().zip([78, 128, 208]) {
                assert!(*wait >= least, "{path}: {waits:?}");
            }
        }
        // Stopped while never connected: it gives up waiting after 5 s.
        let began = Instant::now();
        agent.stop().await;
        let took = began.elapsed();
        assert!(
            took > Duration::from_millis(4_500) && took < Duration::from_secs(8),
            "{took:?}"
        );
    }
}

/// Speaks an older version.
struct Older {
    inner: Fine,
    refused: AtomicUsize,
}

impl Plan for Older {
    fn admit(&self, session: usize) -> Admission {
        if session > 0 {
            return Admission::Accept;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        let body = r#"{"message":"Unknown or unsupported API version","validations":[{"field":"version","detail":"server is at version 2.9, behind requested minor version 2.10"}]}"#;
        Admission::Refuse(StatusCode::BAD_REQUEST, body.to_owned())
    }

    fn unary(&self, session: usize, path: &str, request: Bytes) -> Result<Bytes, Status> {
        self.inner.unary(session, path, request)
    }

    fn stream<'a>(&'a self, session: usize, call: Call, server: &'a Shared) -> Streaming<'a> {
        self.inner.stream(session, call, server)
    }
}

#[tokio::test]
async fn an_older_control_plane_is_spoken_to_in_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Older {
        inner: Fine::new(vec![manifest("alice")]),
        refused: AtomicUsize::new(0),
    };
    let server = Server::start(plan).await;
    let agent = Agent::start(&server.url, dir.path());
    server.until_called("UpdateLifecycle", 2).await;
    let asked: Vec<String> = server
        .seen()
        .into_iter()
        .map(|s| s.what)
        .filter(|w| w.starts_with("rpc"))
        .collect();
    assert_eq!(
        asked,
        ["rpc?role=agent&version=2.10", "rpc?role=agent&version=2.9"]
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_replaced_token_file_is_used_for_the_next_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let server = Server::start(Refusing {
        body: r#"{"message":"no"}"#.to_owned(),
    })
    .await;
    let agent = Agent::with_auth(&server.url, dir.path(), Auth::TokenFile(path.clone()));
    let sent = |token: &'static str| {
        move |seen: &[crate::server::Seen]| seen.iter().any(|s| s.message == token)
    };
    server.until("the first token", sent("first")).await;
    std::fs::write(&path, "second\n").unwrap();
    server.until("the second token", sent("second")).await;
    agent.stop().await;
}
