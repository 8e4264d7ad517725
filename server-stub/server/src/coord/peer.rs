//! One peer's part in the tailnet, from its `Coordinate` call to the
//! coordinator.

use std::{future::Future, time::Duration};

use adit_coordinator::{Permission, Request, Role, Service};
use adit_messages::tailnet::{CoordinateRequest, CoordinateResponse};
use adit_rpc::{Requests, Responses, Status};
use tokio::time::timeout;
use uuid::Uuid;

/// How long a peer may leave a response unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Moves messages between a peer and the coordinator until either ends it.
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
                match timeout(SEND_TIMEOUT, responses.send_bytes(update)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return Ok(()),
                }
            }
            request = requests.recv_bytes() => {
                let Ok(Some(bytes)) = request else { return Ok(()) };
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
}
