//! The relay inside this server, and the map that leads to it.

mod map;

use adit_derp::{Relay, RelayConfig};
use adit_keys::NodePrivate;
use adit_messages::tailnet;
use adit_rest::{AgentConnectionInfo, DerpMap};
use adit_store::Store;
use axum::{
    Router,
    body::Body,
    extract::{Request, State as AppState},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::StatusCode;

use crate::app::App;

/// What this part keeps.
#[derive(Debug)]
pub(crate) struct State {
    relay: Relay,
}

impl State {
    // The same signature as that of the other parts.
    #[expect(clippy::unused_async, reason = "one signature for all parts")]
    pub(crate) async fn new(_: &Store) -> anyhow::Result<Self> {
        Ok(Self {
            relay: Relay::new(RelayConfig::new(NodePrivate::generate())),
        })
    }
}

/// Routes of this part. Anyone may connect: a relay moves sealed packets
/// between keys, and latency has to be measured before there is a session.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/derp", get(relay))
        .route("/derp/latency-check", get(latency_check))
}

async fn relay(AppState(app): AppState<App>, mut request: Request) -> Response {
    adit_derp::relay::handle(&app.derp.relay, &mut request).map(Body::new)
}

async fn latency_check() -> Response {
    StatusCode::OK.into_response()
}

/// The relay map as JSON.
pub(crate) fn map_json(app: &App) -> DerpMap {
    map::derp_map(&app.config, &app.access_url)
}

/// The relay map as a message.
pub(crate) fn map_message(app: &App) -> tailnet::DerpMap {
    map::to_message(&map_json(app))
}

/// What a client needs before it connects to an agent.
pub(crate) fn connection_info(app: &App) -> AgentConnectionInfo {
    map::connection_info(&app.config, &app.access_url)
}

/// Ends the relay's connections.
pub(crate) async fn close(app: &App) {
    app.derp.relay.close().await;
}
