use std::{sync::Arc, time::Duration};

use adit_messages::{agent, tailnet};
use adit_yamux::{Config, Connection};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};

use crate::{
    AgentClient, AgentService, Error, Requests, Responses, Status, TailnetClient, TailnetService,
    Version, serve, serve_tailnet,
};

struct Agent;

impl AgentService for Agent {
    async fn update_startup(
        &self,
        request: agent::UpdateStartupRequest,
    ) -> Result<agent::Startup, Status> {
        request.startup.ok_or_else(|| Status::new("no startup"))
    }

    async fn update_stats(
        &self,
        _: agent::UpdateStatsRequest,
    ) -> Result<agent::UpdateStatsResponse, Status> {
        std::future::pending().await
    }
}

struct Tailnet;

impl TailnetService for Tailnet {
    async fn coordinate(
        &self,
        mut requests: Requests<tailnet::CoordinateRequest>,
        responses: Responses<tailnet::CoordinateResponse>,
    ) -> Result<(), Status> {
        loop {
            match requests.recv().await {
                Ok(Some(request)) if request.disconnect.is_none() => {}
                _ => return Ok(()),
            }
            let response = tailnet::CoordinateResponse {
                error: "seen".into(),
                ..tailnet::CoordinateResponse::default()
            };
            responses
                .send(&response)
                .await
                .map_err(|error| Status::new(error.to_string()))?;
        }
    }

    async fn stream_derp_maps(
        &self,
        _: tailnet::StreamDerpMapsRequest,
        responses: Responses<tailnet::DerpMap>,
    ) -> Result<(), Status> {
        let map = tailnet::DerpMap {
            home_params: Some(tailnet::derp_map::HomeParams::default()),
            ..tailnet::DerpMap::default()
        };
        responses
            .send(&map)
            .await
            .map_err(|error| Status::new(error.to_string()))?;
        responses.cancelled().await;
        Ok(())
    }
}

fn session(with_agent: bool) -> (Connection, JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(4096);
    let (client, _) = Connection::client(near, Config::default());
    let (server, incoming) = Connection::server(far, Config::default());
    let task = tokio::spawn(async move {
        // Held as long as the session is served.
        let _server = server;
        if with_agent {
            serve(incoming, Arc::new(Agent), Arc::new(Tailnet)).await;
        } else {
            serve_tailnet(incoming, Arc::new(Tailnet)).await;
        }
    });
    (client, task)
}

fn startup() -> agent::UpdateStartupRequest {
    agent::UpdateStartupRequest {
        startup: Some(agent::Startup {
            version: "v1.2.3".into(),
            ..agent::Startup::default()
        }),
    }
}

/// A whole call on a fresh session, byte for byte as between the Go programs.
#[tokio::test]
async fn call_has_the_bytes_of_the_go_programs() {
    let (near, mut far) = tokio::io::duplex(4096);
    let (connection, _incoming) = Connection::client(near, Config::default());
    let client = AgentClient::new(connection);
    let request = agent::GetServiceBannerRequest {};
    let call = client.get_service_banner(&request);
    let server = async {
        let mut expected = b"\0\x01\0\x01\0\0\0\x01\0\0\0\0".to_vec();
        expected.extend_from_slice(b"\0\0\0\0\0\0\0\x01\0\0\0\x32\x03\x01\x01\x26");
        expected.extend_from_slice(b"/coder.agent.v2.Agent/GetServiceBanner");
        expected.extend_from_slice(b"\x05\x01\x02\0\x0d\x01\x03\0");
        let mut received = vec![0; expected.len()];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(received, expected);

        // ACK; the message and the end of the call in two frames.
        far.write_all(b"\0\x01\0\x02\0\0\0\x01\0\0\0\0")
            .await
            .unwrap();
        far.write_all(
            b"\0\0\0\0\0\0\0\x01\0\0\0\x13\x05\x01\x01\x0f\x08\x01\x12\x05hello\x1a\x04#f00",
        )
        .await
        .unwrap();
        far.write_all(b"\0\0\0\0\0\0\0\x01\0\0\0\x04\x0d\x01\x02\0")
            .await
            .unwrap();

        // Close, and only then the end of the stream.
        let mut end = [0; 28];
        far.read_exact(&mut end).await.unwrap();
        assert_eq!(&end[..16], b"\0\0\0\0\0\0\0\x01\0\0\0\x04\x0b\x01\x04\0");
        assert_eq!(&end[16..], b"\0\x01\0\x04\0\0\0\x01\0\0\0\0");
    };
    let (banner, ()) = tokio::join!(call, server);
    let banner = banner.unwrap();
    assert!(banner.enabled);
    assert_eq!(
        (banner.message.as_str(), banner.background_color.as_str()),
        ("hello", "#f00")
    );
}

#[tokio::test]
async fn both_services_share_a_session() {
    let (connection, task) = session(true);
    let agent = AgentClient::new(connection.clone());
    let tailnet = TailnetClient::new(connection.clone());

    let answer = agent.update_startup(&startup()).await.unwrap();
    assert_eq!(answer.version, "v1.2.3");
    let empty = agent::UpdateStartupRequest::default();
    let error = agent.update_startup(&empty).await.unwrap_err();
    assert_eq!(error.to_string(), "no startup");
    let error = agent
        .get_manifest(&agent::GetManifestRequest {})
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(&Status::unimplemented()));

    let (mut sender, mut receiver) = tailnet.coordinate().await.unwrap();
    let mut maps = tailnet.stream_derp_maps().await.unwrap();
    assert!(maps.recv().await.unwrap().unwrap().home_params.is_some());
    sender
        .send(&tailnet::CoordinateRequest::default())
        .await
        .unwrap();
    let response = receiver.recv().await.unwrap().unwrap();
    assert_eq!(response.error, "seen");
    let goodbye = tailnet::CoordinateRequest {
        disconnect: Some(tailnet::coordinate_request::Disconnect {}),
        ..tailnet::CoordinateRequest::default()
    };
    sender.send(&goodbye).await.unwrap();
    assert!(receiver.recv().await.unwrap().is_none());

    connection.close().await;
    assert!(maps.recv().await.is_err());
    task.await.unwrap();
}

#[tokio::test]
async fn tailnet_session_has_no_agent_service() {
    let (connection, _task) = session(false);
    let error = AgentClient::new(connection)
        .update_startup(&startup())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "protocol error: unknown rpc: \"/coder.agent.v2.Agent/UpdateStartup\""
    );
}

#[tokio::test(start_paused = true)]
async fn call_without_an_answer_times_out() {
    let (connection, _task) = session(true);
    let agent = AgentClient::new(connection).with_timeout(Duration::from_secs(3));
    let request = agent::UpdateStatsRequest::default();
    let error = agent.update_stats(&request).await.unwrap_err();
    assert!(matches!(error, Error::Timeout));
    // The session is still good.
    agent.update_startup(&startup()).await.unwrap();
}

#[tokio::test]
async fn many_calls_run_at_once() {
    let (connection, _task) = session(true);
    let agent = AgentClient::new(connection);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let agent = agent.clone();
        calls.spawn(async move { agent.update_startup(&startup()).await });
    }
    for answer in calls.join_all().await {
        assert_eq!(answer.unwrap().version, "v1.2.3");
    }
}

#[test]
fn versions_are_refused_with_the_known_texts() {
    let accept = |text: &str| {
        text.parse()
            .and_then(|version| Version::CURRENT.accept(version))
            .map_err(|error| error.to_string())
    };
    assert_eq!(accept("2.0"), Ok(()));
    assert_eq!(accept("2.10"), Ok(()));
    for (version, text) in [
        (
            "2.11",
            "server is at version 2.10, behind requested minor version 2.11",
        ),
        (
            "3.0",
            "server is at version 2.10, behind requested major version 3.0",
        ),
        ("1.0", "version 1.0 is no longer supported"),
        ("abc", "invalid version string: abc"),
        ("2", "invalid version string: 2"),
        ("2.1.0", "invalid version string: 2.1.0"),
        ("x.1", "invalid major version: x.1"),
        ("2.x", "invalid minor version: 2.x"),
    ] {
        assert_eq!(accept(version), Err(text.to_owned()));
    }
    let newest = Version { major: 2, minor: 9 };
    let refusal = newest.accept(Version::CURRENT).unwrap_err().to_string();
    assert_eq!(Version::from_refusal(&refusal), Some(newest));
    assert_eq!(
        Version::from_refusal("version 1.0 is no longer supported"),
        None
    );
}
