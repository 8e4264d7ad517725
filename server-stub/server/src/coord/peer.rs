//! One peer's part in the tailnet, from its `Coordinate` call to the
//! coordinator.

use std::{future::Future, time::Duration};

use adit_coordinator::{Permission, Request, Role, Service};
use adit_messages::tailnet::{CoordinateRequest, CoordinateResponse};
use adit_rpc::{Requests, Responses, Status};
use bytes::Bytes;
use tokio::time::timeout;
use uuid::Uuid;

/// How long a peer may leave a response unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Moves messages between a peer and the coordinator until either ends it.
/// A peer that says it has no more requests is still sent what the coordinator
/// had to say by then.
///
/// `permission` decides on the tunnels a [`Role::User`] asks for.
pub(crate) async fn coordinate<F>(
    service: &Service,
    id: Uuid,
    role: Role,
    name: String,
    permission: impl Fn(Uuid) -> F + Send,
    mut requests: Requests<CoordinateRequest>,
    responses: Responses<CoordinateResponse>,
) -> Result<(), Status>
where
    F: Future<Output = Permission> + Send,
{
    let (connection, mut updates) = service.connect(id, role, name);
    loop {
        tokio::select! {
            update = updates.next() => {
                // The coordinator ended it, with a reason or after a goodbye.
                let Some(update) = update else { return Ok(()) };
                if !send(&responses, update).await {
                    return Ok(());
                }
            }
            request = requests.recv_bytes() => {
                let bytes = match request {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                };
                match Request::decode(bytes) {
                    Ok(request) => {
                        let permission = match request.add_tunnel {
                            Some(destination) if role == Role::User => permission(destination).await,
                            _ => Permission::Refused,
                        };
                        connection.request(request, permission);
                    }
                    Err(error) => connection.invalid(&error),
                }
            }
        }
    }
    // Lost, which also ends the updates.
    drop(connection);
    while let Some(update) = updates.next().await {
        if !send(&responses, update).await {
            break;
        }
    }
    Ok(())
}

/// Sends a response; says whether the peer took it.
async fn send(responses: &Responses<CoordinateResponse>, update: Bytes) -> bool {
    matches!(
        timeout(SEND_TIMEOUT, responses.send_bytes(update)).await,
        Ok(Ok(()))
    )
}
