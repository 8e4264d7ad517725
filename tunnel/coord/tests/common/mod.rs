//! A control plane for one agent, in this process: connection details,
//! coordination, relay.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use adit_derp::{Relay, RelayConfig};
use adit_engine::{Node, NodeConfig};
use adit_http::{Client, ClientConfig, ProxyConfig};
use adit_keys::{NodePrivate, addr};
use adit_messages::tailnet::coordinate_response::PeerUpdate;
use adit_messages::tailnet::coordinate_response::peer_update::Kind;
use adit_messages::tailnet::{
    CoordinateRequest, CoordinateResponse, DerpMap, RefreshResumeTokenRequest,
    RefreshResumeTokenResponse, StreamDerpMapsRequest,
};
use adit_messages::uuid_to_bytes;
use adit_rpc::{Requests, Responses, Status, TailnetService};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

pub(crate) struct Plane {
    pub(crate) port: u16,
    pub(crate) agent: Uuid,
    pub(crate) node: Node,
    pub(crate) shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
    relay: Relay,
}

pub(crate) struct Shared {
    /// Queries of coordination dials.
    pub(crate) dials: Mutex<Vec<String>>,
    /// Refuse coordination with this status.
    pub(crate) refuse: AtomicU16,
    /// Refuse resume tokens.
    pub(crate) refuse_tokens: AtomicBool,
    /// Never tell of the agent.
    pub(crate) hide_agent: AtomicBool,
    /// Do not end a session after its goodbye.
    pub(crate) ignore_goodbyes: AtomicBool,
    pub(crate) goodbyes: watch::Sender<u32>,
    pub(crate) sessions: watch::Sender<u32>,
    /// Counts up to end all sessions.
    pub(crate) kick: watch::Sender<u32>,
    agent: Uuid,
    node: Node,
    names: Mutex<HashMap<String, Uuid>>,
}

struct Session {
    id: Uuid,
    shared: Arc<Shared>,
    map: DerpMap,
}

fn update(id: Uuid, kind: Kind, node: Option<adit_messages::tailnet::Node>) -> CoordinateResponse {
    let update = PeerUpdate {
        id: uuid_to_bytes(id.into_bytes()),
        node,
        kind: kind.into(),
        reason: String::new(),
    };
    CoordinateResponse {
        peer_updates: vec![update],
        error: String::new(),
    }
}

impl TailnetService for Session {
    async fn coordinate(
        &self,
        mut requests: Requests<CoordinateRequest>,
        responses: Responses<CoordinateResponse>,
    ) -> Result<(), Status> {
        let mut kicked = self.shared.kick.subscribe();
        self.shared.sessions.send_modify(|n| *n += 1);
        let mut agent_node = self.shared.node.self_node();
        loop {
            let request = tokio::select! {
                request = requests.recv() => request,
                _ = kicked.changed() => return Ok(()),
            };
            let Ok(Some(request)) = request else {
                return Ok(());
            };
            if request.disconnect.is_some() {
                self.shared.goodbyes.send_modify(|n| *n += 1);
                self.shared.node.remove_peer(self.id).await;
                if self.shared.ignore_goodbyes.load(Ordering::Relaxed) {
                    continue;
                }
                return Ok(());
            }
            if let Some(tunnel) = request.add_tunnel
                && !self.shared.hide_agent.load(Ordering::Relaxed)
            {
                assert_eq!(tunnel.id, uuid_to_bytes(self.shared.agent.into_bytes()));
                let node = agent_node.wait_for(Option::is_some).await.unwrap().clone();
                let _ = responses
                    .send(&update(self.shared.agent, Kind::Node, node))
                    .await;
            }
            if let Some(node) = request.update_self.and_then(|u| u.node) {
                self.shared
                    .node
                    .upsert_peer(self.id, &node, false)
                    .await
                    .unwrap();
                let _ = responses
                    .send(&update(self.shared.agent, Kind::ReadyForHandshake, None))
                    .await;
            }
        }
    }

    async fn stream_derp_maps(
        &self,
        _: StreamDerpMapsRequest,
        responses: Responses<DerpMap>,
    ) -> Result<(), Status> {
        let _ = responses.send(&self.map).await;
        std::future::pending().await
    }

    async fn refresh_resume_token(
        &self,
        _: RefreshResumeTokenRequest,
    ) -> Result<RefreshResumeTokenResponse, Status> {
        let expires = SystemTime::now() + Duration::from_secs(60);
        let token = format!("token/{}", self.id);
        self.shared
            .names
            .lock()
            .unwrap()
            .insert(token.clone(), self.id);
        Ok(RefreshResumeTokenResponse {
            token,
            refresh_in: Some(prost_types::Duration {
                seconds: 30,
                nanos: 0,
            }),
            expires_at: Some(adit_messages::time::timestamp_to_proto(expires)),
        })
    }
}

fn answer(status: u16, body: &str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}

fn json_map(port: u16) -> adit_rest::DerpMap {
    let node = adit_rest::DerpNode {
        name: "999b".into(),
        region_id: 999,
        // Only right after it was rewritten.
        host_name: "internal.invalid".into(),
        derp_port: i64::from(port) + 1,
        stun_port: -1,
        ..Default::default()
    };
    let region = adit_rest::DerpRegion {
        embedded_relay: true,
        region_id: 999,
        region_name: "Test Relay".into(),
        nodes: vec![node],
        ..Default::default()
    };
    adit_rest::DerpMap {
        regions: [(999, region)].into(),
        ..Default::default()
    }
}

impl Shared {
    fn handle(
        self: &Arc<Self>,
        relay: &Relay,
        port: u16,
        mut request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        if path.starts_with("/derp") {
            return adit_derp::relay::handle(relay, &mut request);
        }
        if path == format!("/api/v2/workspaceagents/{}/connection", self.agent) {
            let map = serde_json::to_string(&json_map(port)).unwrap();
            return answer(
                200,
                &format!(r#"{{"derp_map":{map},"disable_direct_connections":false}}"#),
            );
        }
        if path != format!("/api/v2/workspaceagents/{}/coordinate", self.agent) {
            return answer(
                404,
                r#"{"message":"Agent doesn't exist with that id, or you do not have access to it."}"#,
            );
        }
        self.dials.lock().unwrap().push(query.clone());
        match self.refuse.load(Ordering::Relaxed) {
            0 => {}
            status => return answer(status, r#"{"message":"refused for a test"}"#),
        }
        let token =
            url::form_urlencoded::parse(query.as_bytes()).find(|(k, _)| k == "resume_token");
        if token.is_some() && self.refuse_tokens.load(Ordering::Relaxed) {
            return answer(
                401,
                r#"{"message":"Invalid resume token","validations":[{"field":"resume_token","detail":"Invalid resume token"}]}"#,
            );
        }
        let named = token.and_then(|(_, t)| self.names.lock().unwrap().get(t.as_ref()).copied());
        let mut map = adit_coord::map_from_json(&json_map(port));
        map.home_params.get_or_insert_default();
        let session = Session {
            id: named.unwrap_or_else(Uuid::new_v4),
            shared: Arc::clone(self),
            map,
        };
        let headers =
            adit_ws::server_handshake(request.method(), Version::HTTP_11, request.headers(), None)
                .unwrap();
        let mut kicked = self.kick.subscribe();
        tokio::spawn(async move {
            let io = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            let socket = adit_ws::accept(io, adit_ws::config()).await;
            let stream = adit_ws::ByteStream::new(socket);
            let (_connection, incoming) =
                adit_yamux::Connection::server(stream, adit_yamux::Config::default());
            tokio::select! {
                () = adit_rpc::serve_tailnet(incoming, Arc::new(session)) => {}
                _ = kicked.changed() => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        });
        let mut response = answer(101, "");
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        response
    }
}

pub(crate) fn client(port: u16) -> Client {
    let mut http = ClientConfig::new(format!("http://127.0.0.1:{port}").parse().unwrap());
    http.proxy = ProxyConfig::none();
    Client::new(http).unwrap()
}

impl Plane {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let agent = Uuid::new_v4();
        let mut config = NodeConfig::new(
            client(port),
            addr::node_id(agent),
            vec![addr::tailnet_ip(agent)],
        );
        let mut map = adit_coord::map_from_json(&json_map(port));
        adit_coord::rewrite_map(&mut map, client(port).base());
        config.derp_map = Some(map);
        let node = Node::start(config).await.unwrap();
        let relay = Relay::new(RelayConfig::new(NodePrivate::generate()));
        let shared = Arc::new(Shared {
            dials: Mutex::default(),
            refuse: AtomicU16::new(0),
            refuse_tokens: AtomicBool::new(false),
            hide_agent: AtomicBool::new(false),
            ignore_goodbyes: AtomicBool::new(false),
            goodbyes: watch::Sender::new(0),
            sessions: watch::Sender::new(0),
            kick: watch::Sender::new(0),
            agent,
            node: node.clone(),
            names: Mutex::default(),
        });
        let (served, routed) = (relay.clone(), Arc::clone(&shared));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((io, _)) = listener.accept().await {
                let (relay, shared) = (served.clone(), Arc::clone(&routed));
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let answer = shared.handle(&relay, port, request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                connections.spawn(async move {
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server
                        .serve_connection(TokioIo::new(io), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self {
            port,
            agent,
            node,
            shared,
            task,
            relay,
        }
    }

    /// Ends every coordination session, as a restart would.
    pub(crate) fn kick(&self) {
        self.shared.kick.send_modify(|n| *n += 1);
    }

    pub(crate) async fn kill(&self) {
        self.task.abort();
        self.kick();
        self.relay.close().await;
    }
}
