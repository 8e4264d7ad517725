//! From start to `off`, with everything working.

use adit_messages::agent::lifecycle::State;
use adit_messages::{agent, tailnet};
use prost::Message;

use crate::Agent;
use crate::fine::{Fine, manifest, script};
use crate::server::{Seen, Server, is};

pub(crate) fn states(server: &Server) -> Vec<State> {
    server
        .calls("UpdateLifecycle")
        .into_iter()
        .map(|s| {
            let request = agent::UpdateLifecycleRequest::decode(s.message).unwrap();
            request.lifecycle.unwrap().state()
        })
        .collect()
}

pub(crate) fn first(seen: &[Seen], method: &str) -> usize {
    seen.iter().position(|s| is(s, method)).expect(method)
}

pub(crate) fn log_text(server: &Server) -> Vec<String> {
    server
        .calls("BatchCreateLogs")
        .into_iter()
        .flat_map(|s| {
            agent::BatchCreateLogsRequest::decode(s.message)
                .unwrap()
                .logs
        })
        .map(|l| l.output)
        .collect()
}

#[tokio::test]
async fn a_whole_life() {
    let dir = tempfile::tempdir().unwrap();
    let mut m = manifest("alice");
    m.scripts = vec![
        agent::WorkspaceAgentScript {
            run_on_start: true,
            ..script(1, "echo hello $CODER_WORKSPACE_OWNER_NAME")
        },
        agent::WorkspaceAgentScript {
            run_on_stop: true,
            ..script(2, "echo bye")
        },
    ];
    let server = Server::start(Fine::new(vec![m])).await;
    let agent = Agent::start(&server.url, dir.path());
    server.until_called("Coordinate", 1).await;
    server.until_called("ScriptCompleted", 1).await;
    server.until_called("UpdateStats", 2).await;
    server.until_called("PushContextState", 1).await;
    assert_eq!(states(&server), [State::Starting, State::Ready]);
    let coordinate = server.calls("Coordinate").remove(0);
    let request = tailnet::CoordinateRequest::decode(coordinate.message).unwrap();
    let node = request.update_self.unwrap().node.unwrap();
    assert_eq!(node.preferred_derp, 1);
    assert_eq!(node.addresses.len(), 2);
    agent.stop().await;

    assert_eq!(
        states(&server),
        [
            State::Starting,
            State::Ready,
            State::ShuttingDown,
            State::Off
        ]
    );
    assert_eq!(log_text(&server), ["hello alice", "bye"]);
    assert_eq!(server.calls("ScriptCompleted").len(), 2);
    let last = server.calls("Coordinate").pop().unwrap();
    let request = tailnet::CoordinateRequest::decode(last.message).unwrap();
    assert!(request.disconnect.is_some());
    let seen = server.seen();
    assert!(first(&seen, "GetManifest") < first(&seen, "UpdateStartup"));
    assert!(first(&seen, "UpdateStartup") < first(&seen, "UpdateLifecycle"));
    assert!(first(&seen, "ListSubAgents") < first(&seen, "PushContextState"));
    // One session was enough, and the claim poller asked once.
    assert_eq!(seen.iter().filter(|s| s.what.starts_with("rpc")).count(), 1);
    assert_eq!(
        seen.iter().filter(|s| s.what.ends_with("reinit")).count(),
        1
    );
}

#[tokio::test]
async fn a_failing_start_script_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut m = manifest("alice");
    m.scripts = vec![agent::WorkspaceAgentScript {
        run_on_start: true,
        ..script(1, "exit 7")
    }];
    let server = Server::start(Fine::new(vec![m])).await;
    let agent = Agent::start(&server.url, dir.path());
    server.until_called("UpdateLifecycle", 2).await;
    assert_eq!(states(&server), [State::Starting, State::StartError]);
    agent.stop().await;
}
