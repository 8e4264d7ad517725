#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use adit_http::ClientConfig;

use super::*;
use crate::config::{AgentConfig, Auth};

fn agent(path: &Path) -> Arc<Instance> {
    let url: adit_http::Url = "http://127.0.0.1:9".parse().unwrap();
    let http = adit_http::Client::new(ClientConfig::new(url.clone())).unwrap();
    let mut config = AgentConfig::new(url, Auth::Token("t".into()));
    config.socket_path = Some(path.to_owned());
    Instance::new(Arc::new(config), http)
}

/// Waits until the agent answers.
async fn up(client: &Client) {
    for _ in 0..500 {
        if client.call::<_, Empty>("Ping", &Empty {}).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no answer");
}

fn named(unit: &str) -> Named {
    Named { unit: unit.into() }
}

#[tokio::test]
async fn units_are_ordered_over_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("below/agent.sock");
    let mut tasks = JoinSet::new();
    tasks.spawn(run(agent(&path)));
    let client = Client::new(&path);
    up(&client).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let want = Want {
        unit: "app".into(),
        depends_on: "db".into(),
    };
    let Empty {} = client.call("SyncWant", &want).await.unwrap();
    let early = client.call::<_, Empty>("SyncStart", &named("app")).await;
    let early = early.unwrap_err().to_string();
    assert_eq!(early, "cannot start unit \"app\": unit not ready");
    let status: UnitStatus = client.call("SyncStatus", &named("app")).await.unwrap();
    assert_eq!(
        (status.status.as_str(), status.is_ready),
        ("pending", false)
    );
    let [on] = &status.dependencies[..] else {
        panic!("{status:?}");
    };
    assert_eq!(
        (on.depends_on.as_str(), on.required_status.as_str()),
        ("db", "completed")
    );
    for method in ["SyncStart", "SyncComplete"] {
        let Empty {} = client.call(method, &named("db")).await.unwrap();
    }
    let Ready { ready } = client.call("SyncReady", &named("app")).await.unwrap();
    assert!(ready);
    let list: List = client.call("SyncList", &Empty {}).await.unwrap();
    let list: Vec<_> = list
        .units
        .iter()
        .map(|u| (u.unit.as_str(), u.status.as_str()))
        .collect();
    assert_eq!(list, [("app", "pending"), ("db", "completed")]);

    let request = UpdateAppStatusRequest::default();
    let offline = client.call::<_, Empty>("UpdateAppStatus", &request).await;
    assert_eq!(
        offline.unwrap_err().to_string(),
        "agent not connected to coderd"
    );
    let unknown = client.call::<_, Empty>("ContextSources", &Empty {}).await;
    assert!(unknown.unwrap_err().is_unimplemented());

    tasks.shutdown().await;
    assert!(!path.exists(), "left behind");
}

#[tokio::test]
async fn a_second_agent_leaves_the_first_ones_socket_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    // Left by one that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(run(agent(&path)));
    let client = Client::new(&path);
    up(&client).await;
    let Empty {} = client.call("SyncStart", &named("x")).await.unwrap();
    timeout(Duration::from_secs(30), run(agent(&path)))
        .await
        .unwrap();
    let status: UnitStatus = client.call("SyncStatus", &named("x")).await.unwrap();
    assert_eq!(status.status, "started");
}
