//! A control plane on which everything works.

use std::sync::Mutex;

use adit_drpc::Status;
use adit_drpc::server::Call;
use adit_messages::agent::{self, method};
use adit_messages::tailnet::derp_map::{HomeParams, Region, region};
use adit_messages::tailnet::{self, method::STREAM_DERP_MAPS};
use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use tokio::sync::mpsc;

use crate::server::{Claims, Plan, Shared, Streaming};

pub(crate) fn relay_map() -> tailnet::DerpMap {
    let region = Region {
        region_id: 1,
        embedded_relay: true,
        region_code: "test".to_owned(),
        region_name: "Test".to_owned(),
        nodes: vec![region::Node {
            name: "1a".to_owned(),
            region_id: 1,
            stun_port: -1,
            ..Default::default()
        }],
        ..Default::default()
    };
    tailnet::DerpMap {
        home_params: Some(HomeParams::default()),
        regions: [(1, region)].into(),
    }
}

pub(crate) fn manifest(owner: &str) -> agent::Manifest {
    agent::Manifest {
        agent_id: Bytes::from_static(&[0x41; 16]),
        agent_name: "main".to_owned(),
        owner_username: owner.to_owned(),
        workspace_id: Bytes::from_static(&[0x42; 16]),
        workspace_name: "box".to_owned(),
        derp_map: Some(relay_map()),
        ..Default::default()
    }
}

pub(crate) fn script(n: u8, text: &str) -> agent::WorkspaceAgentScript {
    agent::WorkspaceAgentScript {
        id: Bytes::copy_from_slice(&[n; 16]),
        log_source_id: Bytes::copy_from_slice(&[n | 0x80; 16]),
        script: text.to_owned(),
        ..Default::default()
    }
}

/// Answers every call; hands out one manifest after the other and stays at
/// the last. Claims are streamed as they are given.
pub(crate) struct Fine {
    manifests: Mutex<Vec<agent::Manifest>>,
    claims: Mutex<Vec<mpsc::Receiver<String>>>,
}

impl Fine {
    pub(crate) fn new(mut manifests: Vec<agent::Manifest>) -> Self {
        manifests.reverse();
        Self {
            manifests: Mutex::new(manifests),
            claims: Mutex::default(),
        }
    }

    /// Adds a claim stream; the poller gets them in order, then 409.
    pub(crate) fn with_claims(self, streams: Vec<mpsc::Receiver<String>>) -> Self {
        *self.claims.lock().unwrap() = streams.into_iter().rev().collect();
        self
    }
}

pub(crate) fn fine(path: &str, request: &Bytes) -> Result<Bytes, Status> {
    let encoded: Vec<u8> = match path {
        method::UPDATE_STARTUP => {
            let request = agent::UpdateStartupRequest::decode(request.clone()).unwrap();
            request.startup.unwrap().encode_to_vec()
        }
        method::UPDATE_LIFECYCLE => {
            let request = agent::UpdateLifecycleRequest::decode(request.clone()).unwrap();
            request.lifecycle.unwrap().encode_to_vec()
        }
        method::UPDATE_STATS => agent::UpdateStatsResponse {
            report_interval: Some(prost_types::Duration {
                seconds: 30,
                nanos: 0,
            }),
        }
        .encode_to_vec(),
        method::GET_RESOURCES_MONITORING_CONFIGURATION => {
            use agent::get_resources_monitoring_configuration_response::Config;
            agent::GetResourcesMonitoringConfigurationResponse {
                config: Some(Config {
                    num_datapoints: 20,
                    collection_interval_seconds: 10,
                }),
                ..Default::default()
            }
            .encode_to_vec()
        }
        method::PUSH_CONTEXT_STATE => return Err(Status::unimplemented()),
        _ => Vec::new(),
    };
    Ok(encoded.into())
}

impl Plan for Fine {
    fn claims(&self) -> Claims {
        match self.claims.lock().unwrap().pop() {
            Some(stream) => Claims::Stream(stream),
            None => Claims::Refuse(StatusCode::CONFLICT, r#"{"message":"no"}"#.to_owned()),
        }
    }

    fn unary(&self, _: usize, path: &str, request: Bytes) -> Result<Bytes, Status> {
        if path == method::GET_MANIFEST {
            let mut manifests = self.manifests.lock().unwrap();
            let next = if manifests.len() > 1 {
                manifests.pop()
            } else {
                manifests.first().cloned()
            };
            return Ok(next.unwrap().encode_to_vec().into());
        }
        fine(path, &request)
    }

    fn stream<'a>(&'a self, session: usize, call: Call, server: &'a Shared) -> Streaming<'a> {
        Box::pin(async move { fine_stream(session, call, server).await })
    }
}

/// A coordinator without other peers, and one relay map.
pub(crate) async fn fine_stream(
    session: usize,
    mut call: Call,
    server: &Shared,
) -> Result<(), Status> {
    if call.path == STREAM_DERP_MAPS {
        server.note(session, &call.path, Bytes::new());
        let map = relay_map().encode_to_vec();
        let _ = call.responses.send(map.into()).await;
        call.responses.cancelled().await;
        return Ok(());
    }
    while let Ok(Some(message)) = call.requests.recv().await {
        let request = tailnet::CoordinateRequest::decode(message.clone()).unwrap();
        server.note(session, &call.path, message);
        if request.disconnect.is_some() {
            break;
        }
    }
    Ok(())
}
