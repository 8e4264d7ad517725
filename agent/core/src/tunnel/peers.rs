//! Peers the coordinator has granted, and when lost ones are dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_engine::Node;
use tokio::sync::Notify;
use uuid::Uuid;

/// A lost peer is dropped this long after its last handshake; without one at
/// once.
const LOST: Duration = Duration::from_secs(15 * 60);

/// All granted peers; the value says whether the coordinator has lost them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: Mutex<HashMap<Uuid, bool>>,
    changed: Notify,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, bool>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn found(&self, id: Uuid) {
        self.lock().insert(id, false);
    }

    /// Whether the peer was known.
    pub(super) fn gone(&self, id: Uuid) -> bool {
        self.lock().remove(&id).is_some()
    }

    pub(super) fn lost(&self, id: Uuid) {
        if let Some(lost) = self.lock().get_mut(&id) {
            *lost = true;
        }
        self.changed.notify_one();
    }

    /// The coordinator itself is gone: it can vouch for nobody.
    pub(super) fn all_lost(&self) {
        self.lock().values_mut().for_each(|lost| *lost = true);
        self.changed.notify_one();
    }

    fn all_that_are_lost(&self) -> Vec<Uuid> {
        let known = self.lock();
        known
            .iter()
            .filter(|(_, lost)| **lost)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Drops lost peers when their time has come, until aborted.
    pub(super) async fn sweep(self: Arc<Self>, node: Node) {
        loop {
            let mut next: Option<Duration> = None;
            for id in self.all_that_are_lost() {
                let age = node.last_handshake(id).await.unwrap_or(LOST);
                match LOST.checked_sub(age).filter(|left| !left.is_zero()) {
                    Some(left) => next = Some(next.map_or(left, |n| n.min(left))),
                    None => {
                        self.gone(id);
                        node.remove_peer(id).await;
                        tracing::debug!(peer = %id, "a lost peer was dropped");
                    }
                }
            }
            match next {
                None => self.changed.notified().await,
                Some(left) => {
                    let _ = tokio::time::timeout(left, self.changed.notified()).await;
                }
            }
        }
    }
}
