//! Control sessions.

use adit_rest::Transition;

use adit_messages::tailnet::{
    CoordinateRequest, Node,
    coordinate_request::{Disconnect, UpdateSelf},
};

use crate::{
    DEV_TOKEN,
    deployment::{DEV_AGENT, Deployment},
    puppet::{self, AgentPuppet},
    replay::Replay,
};

async fn nothing(_: &str, _: &mut Deployment) {}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_from_start_to_stop() {
    Replay::new("agent-session-ready")
        .await
        .with_puppets()
        .run(nothing)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_start_fails() {
    Replay::new("agent-session-start-error")
        .await
        .with_puppets()
        .run(nothing)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent() {
    Replay::new("agent-idle-keepalive")
        .await
        .with_puppets()
        .run(nothing)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_calls() {
    Replay::new("drpc-malformed-to-server")
        .await
        .run(nothing)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_malformed_calls() {
    Replay::new("drpc-malformed-to-server-2")
        .await
        .run(nothing)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_an_agent() {
    Replay::new("tailnet-ping-ssh").await.run(nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_client() {
    Replay::new("workspace-updates")
        .await
        .run(async |mark, deployment| match mark {
            "workspace box: stop build" => deployment.begin_build("box", Transition::Stop).await,
            "workspace box: start build" => deployment.begin_build("box", Transition::Start).await,
            _ => {}
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server() {
    Replay::new("server-restart")
        .await
        .with_puppet("cacc658fcf0b42fb9714762f9cdc0416")
        .run(async |mark, deployment| match mark {
            "server process gone" => deployment.stop().await,
            "server process started again" => deployment.restart().await,
            _ => {}
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_and_a_newer_build() {
    Replay::new("server-kill-and-outdated-build")
        .await
        .run(async |mark, deployment| match mark {
            "SIGKILL to server" => {
                deployment.stop().await;
                deployment.restart().await;
            }
            "build completed" => deployment.update("box").await,
            _ => {}
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_session_of_an_agent() {
    // What the recorded tool does with the agent's token; each takes the
    // agent's place in the network.
    Replay::new("agent-peer-overwritten")
        .await
        .run(async |mark, deployment| {
            let request = match mark {
                "Coordinate: update_self with a foreign address" => CoordinateRequest {
                    update_self: Some(UpdateSelf {
                        node: Some(Node {
                            addresses: vec!["fd7a:115c:a1e0:4a00:8000::1234:1/128".into()],
                            ..Node::default()
                        }),
                    }),
                    ..Default::default()
                },
                "Coordinate: disconnect at once" => CoordinateRequest {
                    disconnect: Some(Disconnect {}),
                    ..Default::default()
                },
                _ => return,
            };
            let server = deployment.address();
            puppet::await_node(DEV_AGENT, server, &deployment.session_token).await;
            let other = AgentPuppet::connect(server, DEV_TOKEN).await;
            other.send(&request).await;
            other.ended().await;
        })
        .await;
}
