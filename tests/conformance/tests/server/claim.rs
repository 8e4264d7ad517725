//! A workspace made ahead of time, from its making to its new owner.

use std::time::{Duration, Instant};

use adit_messages::agent::{
    GetManifestRequest, Lifecycle, Startup, UpdateLifecycleRequest, UpdateStartupRequest,
    lifecycle::State,
};
use adit_rest::Transition;
use adit_rpc::AgentClient;
use adit_store::{
    NewPreset, NewTemplate, NewVersion, Prebuild,
    model::Preset,
    spec::{AgentSpec, ResourceSpec, VersionSpec},
};
use adit_tests_conformance::wire::Recording;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use uuid::Uuid;

use crate::{
    DEV_TOKEN,
    deployment::Deployment,
    live::{self, Answer},
    puppet,
};

const RPC: &str = "/api/v2/workspaceagents/me/rpc?role=agent&version=2.10";
const REINIT: &str = "/api/v2/workspaceagents/me/reinit?wait=true";

/// A template of which one workspace is kept ready.
async fn pool(deployment: &Deployment) -> Preset {
    let store = &deployment.app.store;
    let agents = vec![AgentSpec {
        name: "main".into(),
        ..AgentSpec::default()
    }];
    let resources = vec![ResourceSpec {
        resource_type: "thing".into(),
        name: "a".into(),
        agents,
        ..Default::default()
    }];
    let template = NewTemplate {
        organization_id: store.default_organization().await.unwrap().id,
        name: "pool".into(),
        provisioner: "echo".into(),
        version: NewVersion {
            name: "v1".into(),
            spec: VersionSpec {
                resources,
                ..VersionSpec::default()
            },
            presets: vec![NewPreset {
                name: "ready".into(),
                desired_instances: Some(1),
                ..NewPreset::default()
            }],
            ..NewVersion::default()
        },
        ..NewTemplate::default()
    };
    let template = store.create_template(&template).await.unwrap();
    deployment.app.pubsub.prebuilds.notify_one();
    store
        .presets(template.active_version_id)
        .await
        .unwrap()
        .remove(0)
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + live::PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The unclaimed workspace, once it is built.
async fn prebuild(deployment: &Deployment, ready: bool) -> Prebuild {
    until("unclaimed workspace", async || {
        let found = deployment.app.store.prebuilds().await.unwrap();
        found
            .into_iter()
            .find(|prebuild| prebuild.ready == ready && prebuild.job.is_done())
    })
    .await
}

/// The agent of a prebuilt workspace, connected and ready.
async fn agent(deployment: &Deployment, token: &str) -> AgentClient {
    let agent = AgentClient::new(puppet::dial(RPC, deployment.address(), token).await);
    agent.get_manifest(&GetManifestRequest {}).await.unwrap();
    let startup = Startup {
        version: "v0.0.0-devel".into(),
        ..Startup::default()
    };
    agent
        .update_startup(&UpdateStartupRequest {
            startup: Some(startup),
        })
        .await
        .unwrap();
    for state in [State::Starting, State::Ready] {
        let changed_at = Some(prost_types::Timestamp {
            seconds: 1_800_000_000,
            nanos: 0,
        });
        let lifecycle = Lifecycle {
            state: state.into(),
            changed_at,
        };
        agent
            .update_lifecycle(&UpdateLifecycleRequest {
                lifecycle: Some(lifecycle),
            })
            .await
            .unwrap();
    }
    agent
}

async fn get(deployment: &Deployment, path: &str, token: &str) -> (TcpStream, Answer) {
    let mut socket = TcpStream::connect(deployment.address()).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nCoder-Session-Token: {token}\r\n\r\n",
        deployment.address()
    );
    let answer = live::request(&mut socket, &head, "").await;
    (socket, answer)
}

async fn create(deployment: &Deployment, name: &str, preset: &Preset) -> Value {
    let body = json!({
        "template_version_id": preset.template_version_id,
        "template_version_preset_id": preset.id,
        "name": name,
    })
    .to_string();
    let head = format!(
        "POST /api/v2/users/me/workspaces HTTP/1.1\r\nHost: {}\r\nCoder-Session-Token: {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        deployment.address(),
        deployment.session_token,
        body.len()
    );
    let mut socket = TcpStream::connect(deployment.address()).await.unwrap();
    let answer = live::request(&mut socket, &head, &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// Reads the body of an event stream until it holds a claim.
async fn claim_event(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains("\n\n") {
            let mut buffer = [0; 1024];
            let length = socket.read(&mut buffer).await.unwrap();
            assert!(length > 0, "the stream ended: {text:?}");
            text += std::str::from_utf8(&buffer[..length]).unwrap();
        }
    };
    tokio::time::timeout(live::PATIENCE, read)
        .await
        .expect("an event in time");
    let start = text.find("event: ").expect("an event");
    let end = text.find("\n\n").expect("its end") + 2;
    text[start..end].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_users_one_gets_the_ready_workspace() {
    let deployment = Deployment::start(&Recording::load("workspace-updates").unwrap()).await;
    let preset = pool(&deployment).await;
    let waiting = prebuild(&deployment, false).await;
    assert!(waiting.workspace.name.starts_with("prebuild-"));
    let old = deployment
        .app
        .store
        .agents_of_job(waiting.job.id)
        .await
        .unwrap()
        .remove(0);
    let token = old.auth_token.to_string();
    let session = agent(&deployment, &token).await;
    let manifest = session.get_manifest(&GetManifestRequest {}).await.unwrap();
    assert_eq!(manifest.owner_username, "prebuilds");
    prebuild(&deployment, true).await;

    // The head of this answer comes with the first event.
    let mut reinit = TcpStream::connect(deployment.address()).await.unwrap();
    let head = format!("GET {REINIT} HTTP/1.1\r\nHost: x\r\nCoder-Session-Token: {token}\r\n\r\n");
    reinit.write_all(head.as_bytes()).await.unwrap();

    let (one, other) = tokio::join!(
        create(&deployment, "one", &preset),
        create(&deployment, "other", &preset)
    );
    let claimed: Vec<_> = [&one, &other]
        .into_iter()
        .filter(|made| made["id"] == waiting.workspace.id.to_string())
        .collect();
    assert_eq!(claimed.len(), 1, "{one} {other}");
    let claimed = claimed[0];
    assert_eq!(claimed["owner_name"], "admin");
    assert_eq!(claimed["latest_build"]["build_number"], 2);

    // The session of the agent as it was ends, and the event follows.
    tokio::time::timeout(live::PATIENCE, session.connection().closed())
        .await
        .expect("an end in time");
    let owner = claimed["owner_id"].as_str().unwrap();
    let workspace = waiting.workspace.id;
    let expected = format!(
        "event: data\ndata: {{\"workspace_id\":\"{workspace}\",\"reason\":\"prebuild_claimed\",\"owner_id\":\"{owner}\"}}\n\n"
    );
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        answer.push(char::from(reinit.read_u8().await.unwrap()));
    }
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("text/event-stream"), "{answer}");
    assert_eq!(claim_event(&mut reinit).await, expected);

    // The same token is now that of the new owner's agent.
    let session = AgentClient::new(puppet::dial(RPC, deployment.address(), &token).await);
    let manifest = session.get_manifest(&GetManifestRequest {}).await.unwrap();
    assert_eq!(manifest.owner_username, "admin");
    assert_eq!(manifest.workspace_name, claimed["name"].as_str().unwrap());
    assert_ne!(manifest.agent_id, old.id.as_bytes()[..]);

    // Whoever asks later is told at once, and again.
    for _ in 0..2 {
        let (mut socket, answer) = get(&deployment, REINIT, &token).await;
        assert_eq!(answer.status, 200);
        assert_eq!(claim_event(&mut socket).await, expected);
    }

    // Another one takes its place.
    let next = prebuild(&deployment, false).await;
    assert_ne!(next.workspace.id, waiting.workspace.id);

    // A build of the owner ends the matter.
    let name = claimed["name"].as_str().unwrap();
    deployment.build(name, Transition::Start).await;
    let id: Uuid = claimed["id"].as_str().unwrap().parse().unwrap();
    let latest = deployment.app.store.latest_build(id).await.unwrap();
    let token = deployment
        .app
        .store
        .agents_of_job(latest.job_id)
        .await
        .unwrap()
        .remove(0)
        .auth_token
        .to_string();
    let (_, answer) = get(&deployment, REINIT, &token).await;
    assert_eq!(answer.status, 409);
    assert!(
        answer
            .body
            .contains("has already been handled by an earlier build"),
        "{}",
        answer.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_workspace_waits_for_no_owner() {
    let deployment = Deployment::start(&Recording::load("tailnet-ping-ssh").unwrap()).await;
    let (_, answer) = get(&deployment, REINIT, DEV_TOKEN).await;
    assert_eq!(answer.status, 409);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        body["message"],
        "Workspace is not a prebuilt workspace waiting to be claimed."
    );
    assert_eq!(
        body["detail"],
        "This endpoint is only for agents running in prebuilt workspaces."
    );
}
