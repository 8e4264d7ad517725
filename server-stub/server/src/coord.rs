//! Clients' tailnet sessions, and what clients need to know before one.

mod peer;
mod resume;
mod tailnet;
mod updates;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use adit_coordinator::{Role, Service};
use adit_messages::tailnet::Node;
use adit_rest::{AgentConnectionInfo, DerpLatency, Time};
use adit_rpc::{Version, VersionError};
use adit_store::{Store, model::User, model::Workspace};
use adit_ws::{ByteStream, Liveness, Message};
use adit_yamux::Connection;
use axum::{
    Router,
    extract::{Path, Request, State as AppState},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, StatusCode};
use prost::Message as _;
use uuid::Uuid;

use crate::{
    access,
    app::App,
    auth::{Actor, authenticate, token_of},
    derp,
    error::{ApiError, ApiResult},
    extract::{Json, Query, uuid},
    upgrade::{Socket, websocket},
};
use resume::{ResumeKeys, StoredKey};
pub(crate) use tailnet::{Peer, TailnetApi};

/// Where the keys of resume tokens are kept.
const RESUME_KEYS: &str = "tailnet_resume_keys";

/// What this part keeps.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) coordinator: Service,
    resume: ResumeKeys,
    sessions: Sessions,
}

/// Which session of each agent is its latest. Of two that overlap, the end of
/// the older one says nothing about the agent.
#[derive(Debug, Default)]
struct Sessions {
    latest: Mutex<HashMap<Uuid, u64>>,
    last: AtomicU64,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, u64>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) async fn new(store: &Store) -> anyhow::Result<Self> {
        Ok(Self {
            coordinator: Service::new(),
            resume: ResumeKeys::new(resume_keys(store, Time::now().as_secs()).await?),
            sessions: Sessions::default(),
        })
    }

    /// Replaces the key of resume tokens when its time has come; to be called
    /// every few minutes.
    pub(crate) async fn rotate_keys(&self, store: &Store) -> anyhow::Result<()> {
        self.resume
            .set(resume_keys(store, Time::now().as_secs()).await?);
        Ok(())
    }

    /// Notes a new session of an agent; returns its number.
    pub(crate) fn session_begins(&self, agent: Uuid) -> u64 {
        let number = self.sessions.last.fetch_add(1, Ordering::Relaxed);
        self.sessions.lock().insert(agent, number);
        number
    }

    /// Notes the end of a session; says whether it was the agent's latest.
    pub(crate) fn session_ends(&self, agent: Uuid, number: u64) -> bool {
        let mut latest = self.sessions.lock();
        let is_latest = latest.get(&agent) == Some(&number);
        if is_latest {
            latest.remove(&agent);
        }
        is_latest
    }

    /// How far an agent is from the relays, by region name.
    pub(crate) fn derp_latency(&self, app: &App, agent: Uuid) -> BTreeMap<String, DerpLatency> {
        let Some(node) = self.coordinator.node(agent) else {
            return BTreeMap::new();
        };
        // The coordinator takes no node that does not decode.
        let node = Node::decode(node).unwrap_or_default();
        let map = derp::map_json(app);
        let mut latencies: BTreeMap<String, DerpLatency> = BTreeMap::new();
        for (key, seconds) in &node.derp_latency {
            // `<region>-v4` or `<region>-v6`; others are of no known region.
            let region = key
                .split_once('-')
                .and_then(|(region, _)| region.parse::<i64>().ok());
            let Some(region) = region.and_then(|id| map.regions.get(&id)) else {
                continue;
            };
            let latency_ms = seconds * 1000.0;
            if !latency_ms.is_finite() {
                continue;
            }
            let entry = latencies
                .entry(region.region_name.clone())
                .or_insert(DerpLatency {
                    preferred: i64::from(node.preferred_derp) == region.region_id,
                    latency_ms,
                });
            entry.latency_ms = entry.latency_ms.min(latency_ms);
        }
        latencies
    }
}

/// The stored keys of resume tokens, brought up to date.
async fn resume_keys(store: &Store, now: i64) -> anyhow::Result<Vec<StoredKey>> {
    let stored = store.setting(RESUME_KEYS).await?;
    let mut keys: Vec<StoredKey> = serde_json::from_str(stored.as_deref().unwrap_or("[]"))?;
    let secret = || {
        let random: [[u8; 32]; 2] = [rand::random(), rand::random()];
        let random = random.iter().flatten();
        random.map(|byte| format!("{byte:02x}")).collect()
    };
    if resume::rotate(&mut keys, now, secret) {
        store
            .set_setting(RESUME_KEYS, &serde_json::to_string(&keys)?)
            .await?;
    }
    Ok(keys)
}

/// Routes of this part.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v2/workspaceagents/connection", get(connection))
        .route(
            "/api/v2/workspaceagents/{id}/connection",
            get(agent_connection),
        )
        .route("/api/v2/workspaceagents/{id}/coordinate", get(coordinate))
        .route("/api/v2/tailnet", get(tailnet))
        .route("/api/v2/derp-map", get(derp_map))
}

/// Whether a user may connect to the agents of a workspace.
fn may_connect(user: &User, workspace: &Workspace) -> bool {
    !workspace.deleted && (workspace.owner_id == user.id || user.is_owner())
}

/// The caller of a route that also workspace proxies may call.
async fn caller(app: &App, headers: &HeaderMap, query: &Query) -> ApiResult<Actor> {
    let Some(token) = token_of(headers, query) else {
        let text = "API key or external proxy authentication required, but none provided";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, text));
    };
    let actor = authenticate(app, Some(&token)).await?;
    actor.require_scope("workspace", &["ssh"])?;
    Ok(actor)
}

async fn connection(
    AppState(app): AppState<App>,
    headers: HeaderMap,
    query: Query,
) -> ApiResult<Json<AgentConnectionInfo>> {
    caller(&app, &headers, &query).await?;
    Ok(Json(derp::connection_info(&app)))
}

async fn agent_connection(
    AppState(app): AppState<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> ApiResult<Json<AgentConnectionInfo>> {
    let actor = caller(&app, &headers, &query).await?;
    access::agent(&app, &actor, uuid(&id)?).await?;
    Ok(Json(derp::connection_info(&app)))
}

/// A client of one agent.
async fn coordinate(
    AppState(app): AppState<App>,
    Path(id): Path<String>,
    query: Query,
    mut request: Request,
) -> ApiResult<Response> {
    let actor = caller(&app, request.headers(), &query).await?;
    let context = access::agent(&app, &actor, uuid(&id)?).await?;
    check_version(query.get("version").unwrap_or("1.0"))?;
    let peer = Peer::client(
        peer_id(&app, &query)?,
        Role::ClientOf(context.agent.id),
        actor.user,
    );
    Ok(serve(&app, &mut request, peer))
}

/// A client of everything a user may see.
async fn tailnet(
    AppState(app): AppState<App>,
    actor: Actor,
    query: Query,
    mut request: Request,
) -> ApiResult<Response> {
    check_version(query.get("version").unwrap_or("2.0"))?;
    let peer = Peer::client(peer_id(&app, &query)?, Role::User, actor.user);
    Ok(serve(&app, &mut request, peer))
}

/// The answer to a version that is not served.
pub(crate) fn unsupported(error: &VersionError) -> ApiError {
    ApiError::bad_request("Unknown or unsupported API version").field("version", error.to_string())
}

fn check_version(text: &str) -> ApiResult<()> {
    text.parse()
        .and_then(|version| Version::CURRENT.accept(version))
        .map_err(|error| unsupported(&error))
}

/// The id a client brings in its resume token, or a new one.
fn peer_id(app: &App, query: &Query) -> ApiResult<Uuid> {
    let Some(token) = query.get("resume_token").filter(|token| !token.is_empty()) else {
        return Ok(Uuid::new_v4());
    };
    match app.coord.resume.verify(token, Time::now().as_secs()) {
        Ok(peer) => Ok(peer.unwrap_or_else(Uuid::new_v4)),
        Err(error) => Err(
            ApiError::new(StatusCode::UNAUTHORIZED, "Invalid resume token")
                .detail(error.to_string())
                .field("resume_token", "Invalid resume token"),
        ),
    }
}

fn serve(app: &App, request: &mut Request, peer: Peer) -> Response {
    let service = Arc::new(TailnetApi::new(app.clone(), peer));
    websocket(app, request, move |socket| async move {
        let stream = ByteStream::new(socket).with_liveness(Liveness::default());
        let (connection, incoming) = Connection::server(stream, adit_yamux::Config::default());
        adit_rpc::serve_tailnet(incoming, service).await;
        connection.close().await;
    })
}

/// The relay map, for clients that do not use the tailnet service: one JSON
/// document in a binary message, and then nothing, as it does not change.
async fn derp_map(AppState(app): AppState<App>, mut request: Request) -> Response {
    let map = match serde_json::to_vec(&derp::map_json(&app)) {
        Ok(map) => map,
        Err(error) => return ApiError::internal(error).into_response(),
    };
    websocket(&app, &mut request, move |mut socket: Socket| async move {
        if socket.send(Message::Binary(map.into())).await.is_err() {
            return;
        }
        let mut pings = tokio::time::interval(Liveness::default().interval);
        pings.tick().await;
        loop {
            tokio::select! {
                // What clients send means nothing, but reading answers pings.
                message = socket.next() => match message {
                    Some(Ok(message)) if !message.is_close() => {}
                    _ => return,
                },
                _ = pings.tick() => {
                    if socket.send(Message::Ping(Default::default())).await.is_err() {
                        return;
                    }
                }
            }
        }
    })
}
