//! A [`Coordinator`] shared by the tasks of many connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    auth::{Permission, Role},
    core::{ConnId, Coordinator, Output, PeerInfo},
    message::{InvalidRequest, Request},
};

/// The responses that may wait for one connection. A peer that lets more pile
/// up is cut off.
const QUEUE: usize = 512;

/// Handle to one coordinator; clones share it.
///
/// A lock rather than a task: every step is a few map operations, never waits,
/// and has to be over before the caller goes on (a connection that is dropped
/// must be gone when its successor connects).
#[derive(Clone, Debug, Default)]
pub struct Service {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    core: Coordinator,
    queues: HashMap<ConnId, mpsc::Sender<Bytes>>,
}

impl Service {
    /// A coordinator without peers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects a peer. Dropping the [`Connection`] counts as losing it.
    #[must_use]
    pub fn connect(
        &self,
        id: Uuid,
        role: Role,
        name: impl Into<String>,
    ) -> (Connection, Responses) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut shared = self.lock();
        let conn = shared.core.connect(id, role, name);
        shared.queues.insert(conn, sender);
        shared.deliver();
        drop(shared);
        (
            Connection {
                service: self.clone(),
                conn,
                role,
            },
            Responses { receiver },
        )
    }

    /// Ends all connections; see [`Coordinator::close`].
    pub fn close(&self) {
        let mut shared = self.lock();
        shared.core.close();
        shared.deliver();
    }

    /// The encoded node a connected peer announced last.
    #[must_use]
    pub fn node(&self, id: Uuid) -> Option<Bytes> {
        self.lock().core.node(id)
    }

    /// All connected peers.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.lock().core.peers()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // No step leaves the state half changed, even if it panicked.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Moves responses into the queues of their connections.
    fn deliver(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(conn, response) => {
                    let Some(queue) = self.queues.get(&conn) else {
                        continue;
                    };
                    match queue.try_send(response.encode()) {
                        // Closed: the receiver is gone and the connection's own
                        // drop follows.
                        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                        Err(mpsc::error::TrySendError::Full(_)) => {
                            tracing::warn!(?conn, "peer reads too slowly; ending its coordination");
                            self.core.overflowed(conn);
                        }
                    }
                }
                Output::End(conn) => {
                    self.queues.remove(&conn);
                }
            }
        }
    }
}

/// The sending half of one peer's connection.
#[derive(Debug)]
pub struct Connection {
    service: Service,
    conn: ConnId,
    role: Role,
}

impl Connection {
    /// What the connection stands for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Carries out a request; see [`Coordinator::request`].
    pub fn request(&self, request: Request, permission: Permission) {
        let mut shared = self.service.lock();
        shared.core.request(self.conn, request, permission);
        shared.deliver();
    }

    /// Ends the connection because of a request that cannot be read.
    pub fn invalid(&self, error: &InvalidRequest) {
        let mut shared = self.service.lock();
        shared.core.invalid(self.conn, error);
        shared.deliver();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut shared = self.service.lock();
        shared.core.lost(self.conn);
        shared.deliver();
        shared.queues.remove(&self.conn);
    }
}

/// The receiving half of one peer's connection.
#[derive(Debug)]
pub struct Responses {
    receiver: mpsc::Receiver<Bytes>,
}

impl Responses {
    /// The next encoded `CoordinateResponse`; `None` when the coordinator ended
    /// the connection and everything before that was taken.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.receiver.recv().await
    }
}
