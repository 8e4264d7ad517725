//! Meeting peers through the coordinator.

use std::sync::atomic::Ordering;
use std::time::Duration;

use adit_messages::tailnet::coordinate_request::{Disconnect, ReadyForHandshake, UpdateSelf};
use adit_messages::tailnet::coordinate_response::peer_update::Kind;
use adit_messages::tailnet::{CoordinateRequest, CoordinateResponse};
use adit_messages::uuid_from_bytes;
use adit_rpc::{Sender, TailnetClient};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Tunnel, rewrite};
use crate::diagnose::SessionError;

/// How long the coordinator may take to hang up after a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

fn call<T>(name: &'static str, r: Result<T, adit_rpc::Error>) -> Result<T, SessionError> {
    r.map_err(|source| SessionError::Call { call: name, source })
}

/// Being known to the coordinator. Over when dropped, which is also how it ends
/// when another part of the session fails.
struct Membership<'a>(&'a Tunnel);

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.0.coordinating.store(false, Ordering::Relaxed);
        self.0.peers.all_lost();
    }
}

impl Tunnel {
    /// Announces this node and takes peers over until the stream ends. When
    /// `graceful` is cancelled it says goodbye and returns.
    pub(crate) async fn coordinate(
        &self,
        tailnet: &TailnetClient,
        graceful: &CancellationToken,
    ) -> Result<(), SessionError> {
        let _membership = Membership(self);
        self.coordinate_inner(tailnet, graceful).await
    }

    async fn coordinate_inner(
        &self,
        tailnet: &TailnetClient,
        graceful: &CancellationToken,
    ) -> Result<(), SessionError> {
        if graceful.is_cancelled() {
            return Ok(());
        }
        let (mut requests, mut responses) = call("Coordinate", tailnet.coordinate().await)?;
        self.coordinating.store(true, Ordering::Relaxed);
        let mut myself = self.node.self_node();
        myself.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = graceful.cancelled() => break,
                response = responses.recv() => {
                    let Some(response) = call("Coordinate", response)? else {
                        return Err(SessionError::StreamEnded("Coordinate"));
                    };
                    self.handle_response(response, &mut requests).await?;
                }
                changed = myself.changed() => {
                    if changed.is_err() {
                        return Err(adit_engine::Error::Closed.into());
                    }
                    let node = myself.borrow_and_update().clone();
                    if node.is_some() {
                        let request = CoordinateRequest {
                            update_self: Some(UpdateSelf { node }),
                            ..Default::default()
                        };
                        call("Coordinate", requests.send(&request).await)?;
                    }
                }
            }
        }
        let goodbye = async {
            let request = CoordinateRequest {
                disconnect: Some(Disconnect {}),
                ..Default::default()
            };
            requests.send(&request).await?;
            while responses.recv().await?.is_some() {}
            Ok::<_, adit_rpc::Error>(())
        };
        // A coordinator that does not answer will notice by itself.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        self.said_goodbye.cancel();
        Ok(())
    }

    async fn handle_response(
        &self,
        response: CoordinateResponse,
        requests: &mut Sender<CoordinateRequest>,
    ) -> Result<(), SessionError> {
        if !response.error.is_empty() {
            tracing::warn!(error = response.error, "the coordinator refused something");
        }
        let mut ready = Vec::new();
        for update in response.peer_updates {
            let Some(id) = uuid_from_bytes(&update.id).map(Uuid::from_bytes) else {
                continue;
            };
            match update.kind() {
                Kind::Node => {
                    let Some(node) = &update.node else { continue };
                    let keepalive = self.node.peer_active(id).await;
                    match self.node.upsert_peer(id, node, keepalive).await {
                        Ok(()) => {
                            self.peers.found(id);
                            ready.push(ReadyForHandshake { id: update.id });
                        }
                        Err(error) => tracing::warn!(peer = %id, %error, "a peer cannot be used"),
                    }
                }
                Kind::Disconnected => {
                    if self.peers.gone(id) {
                        self.node.remove_peer(id).await;
                    }
                }
                Kind::Lost => self.peers.lost(id),
                Kind::ReadyForHandshake | Kind::Unspecified => {}
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        let request = CoordinateRequest {
            ready_for_handshake: ready,
            ..Default::default()
        };
        call("Coordinate", requests.send(&request).await)
    }

    /// Takes new relay maps over until the stream ends.
    pub(crate) async fn follow_derp_maps(
        &self,
        tailnet: &TailnetClient,
    ) -> Result<(), SessionError> {
        let mut maps = call("StreamDERPMaps", tailnet.stream_derp_maps().await)?;
        while let Some(map) = call("StreamDERPMaps", maps.recv().await)? {
            self.node.set_derp_map(rewrite(map, &self.base)).await;
        }
        Err(SessionError::StreamEnded("StreamDERPMaps"))
    }
}
