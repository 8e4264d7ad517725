//! A prebuilt workspace is claimed.

use std::time::Duration;

use adit_messages::agent;
use adit_messages::agent::lifecycle::State;
use http::StatusCode;
use tokio::sync::mpsc;

use crate::Agent;
use crate::fine::{Fine, manifest, script};
use crate::lifecycle::{log_text, states};
use crate::server::Server;

const WORKSPACE: &str = "42424242-4242-4242-4242-424242424242";

fn event(owner: &str) -> String {
    format!(
        "event: data\ndata: {{\"workspace_id\":\"{WORKSPACE}\",\"reason\":\"prebuild_claimed\",\"owner_id\":\"{owner}\"}}\n\n"
    )
}

fn owned_by(owner: &str, secret: &str) -> agent::Manifest {
    let mut m = manifest(owner);
    m.environment_variables
        .insert(format!("FOR_{owner}"), secret.to_owned());
    m.scripts = vec![agent::WorkspaceAgentScript {
        run_on_start: true,
        ..script(1, "echo for $CODER_WORKSPACE_OWNER_NAME; env | grep ^FOR_")
    }];
    m
}

#[tokio::test]
async fn the_agent_starts_over_for_the_new_owner_once() {
    let dir = tempfile::tempdir().unwrap();
    let (send, stream) = mpsc::channel(4);
    let (again, replay) = mpsc::channel(4);
    let plan = Fine::new(vec![owned_by("prebuilds", "old"), owned_by("alice", "new")])
        .with_claims(vec![stream, replay]);
    let server = Server::start(plan).await;
    let agent = Agent::start(&server.url, dir.path());
    server.until_called("ScriptCompleted", 1).await;
    server.until_called("Coordinate", 1).await;
    send.send("event: ping\n\n".to_owned()).await.unwrap();
    send.send(event("00000000-0000-4000-8000-000000000007"))
        .await
        .unwrap();
    let claimed = std::time::Instant::now();
    server.until_called("ScriptCompleted", 2).await;
    server.until_called("UpdateLifecycle", 6).await;
    assert_eq!(
        states(&server),
        [
            State::Starting,
            State::Ready,
            State::ShuttingDown,
            State::Off,
            State::Starting,
            State::Ready
        ]
    );
    let text = log_text(&server);
    assert_eq!(
        text,
        [
            "for prebuilds",
            "FOR_prebuilds=old",
            "for alice",
            "FOR_alice=new"
        ]
    );
    // Nothing is waited for that does not answer: this takes milliseconds.
    let second = server.calls("GetManifest").remove(1);
    assert!(second.at - claimed < Duration::from_secs(1));
    // The same event again, as a control plane sends it to a new poll.
    again
        .send(event("00000000-0000-4000-8000-000000000007"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.calls("GetManifest").len(), 2);
    let polls = server
        .seen()
        .iter()
        .filter(|s| s.what.ends_with("reinit"))
        .count();
    assert_eq!(polls, 2, "a duplicate ends the polling");
    agent.stop().await;

    // A new process of the same workspace remembers.
    let (late, stream) = mpsc::channel(4);
    let plan = Fine::new(vec![owned_by("alice", "new")]).with_claims(vec![stream]);
    let server = Server::start(plan).await;
    let agent = Agent::start(&server.url, dir.path());
    late.send(event("00000000-0000-4000-8000-000000000007"))
        .await
        .unwrap();
    server.until_called("ScriptCompleted", 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(states(&server), [State::Starting, State::Ready]);
    agent.stop().await;
}

#[tokio::test]
async fn conflict_ends_the_polling() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Fine::new(vec![manifest("alice")])).await;
    let agent = Agent::start(&server.url, dir.path());
    server.until_called("UpdateLifecycle", 2).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let polls = server
        .seen()
        .iter()
        .filter(|s| s.what.ends_with("reinit"))
        .count();
    assert_eq!(polls, 1);
    assert_eq!(StatusCode::CONFLICT.as_u16(), 409);
    agent.stop().await;
}
