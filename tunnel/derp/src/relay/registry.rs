//! Who is connected, and who sent packets to whom.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_keys::NodePublic;

use super::outbox::Outbox;
use crate::frame::PeerGoneReason;

/// Beyond this many receivers of one sender, those that left are forgotten.
const PRUNE_SENT_TO: usize = 256;

/// One connection.
pub(super) struct Conn {
    pub(super) id: u64,
    pub(super) key: NodePublic,
    pub(super) outbox: Outbox,
    /// Others are connected with the same key: whoever sends last is active.
    pub(super) contended: AtomicBool,
}

/// All connections by key.
#[derive(Default)]
pub(super) struct Registry {
    nodes: Mutex<HashMap<NodePublic, Node>>,
    /// Changes whenever a looked-up route may have become wrong.
    epoch: AtomicU64,
    connections: AtomicUsize,
    next_id: AtomicU64,
}

/// A key with at least one connection.
#[derive(Default)]
struct Node {
    members: Vec<Arc<Conn>>,
    active: Option<Arc<Conn>>,
    /// Members that have sent since they became several, the latest last.
    senders: Vec<u64>,
    /// Receivers of this node's packets: which of their connections got them.
    sent_to: HashMap<NodePublic, u64>,
}

/// Where a packet goes.
#[derive(Clone)]
pub(super) enum Route {
    To(Arc<Conn>),
    /// Several connections, of which none has sent yet.
    Undecided,
    Unknown,
}

impl Registry {
    /// Adds a connection; it becomes the active one of its key.
    pub(super) fn add(&self, key: NodePublic, outbox: Outbox) -> Arc<Conn> {
        let conn = Arc::new(Conn {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            key,
            outbox,
            contended: AtomicBool::new(false),
        });
        let mut nodes = self.lock();
        let node = nodes.entry(key).or_default();
        node.members.push(conn.clone());
        node.active = Some(conn.clone());
        let contended = node.members.len() > 1;
        for member in &node.members {
            member.contended.store(contended, Ordering::Relaxed);
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.changed();
        conn
    }

    /// Removes a connection. If it was the last of its key, those whom the key
    /// sent packets to are told.
    pub(super) fn remove(&self, conn: &Arc<Conn>) {
        let mut wakers = Vec::new();
        let mut nodes = self.lock();
        let Some(node) = nodes.get_mut(&conn.key) else {
            return;
        };
        node.members.retain(|member| member.id != conn.id);
        node.senders.retain(|id| *id != conn.id);
        if node.members.is_empty() {
            let sent_to = std::mem::take(&mut node.sent_to);
            nodes.remove(&conn.key);
            for (receiver, id) in sent_to {
                let active = nodes.get(&receiver).and_then(|node| node.active.as_ref());
                if let Some(active) = active.filter(|active| active.id == id) {
                    let reason = PeerGoneReason::Disconnected;
                    wakers.extend(active.outbox.push_gone(conn.key, reason));
                }
            }
        } else {
            node.after_leaving(conn.id);
        }
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.changed();
        drop(nodes);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// Notes that a connection whose key is contended has sent something.
    pub(super) fn note_sender(&self, conn: &Arc<Conn>) {
        let mut nodes = self.lock();
        let Some(node) = nodes.get_mut(&conn.key) else {
            return;
        };
        if node.members.len() < 2 {
            return;
        }
        node.senders.retain(|id| *id != conn.id);
        node.senders.push(conn.id);
        if node
            .active
            .as_ref()
            .is_none_or(|active| active.id != conn.id)
        {
            node.active = Some(conn.clone());
            self.changed();
        }
    }

    /// Looks a receiver up and remembers that `src` sends to it. The route
    /// holds until [`epoch`](Self::epoch) changes.
    pub(super) fn route(&self, src: &Conn, dst: &NodePublic) -> (Route, u64) {
        let mut nodes = self.lock();
        let epoch = self.epoch();
        let route = match nodes.get(dst) {
            None => Route::Unknown,
            Some(Node {
                active: Some(active),
                ..
            }) => Route::To(active.clone()),
            Some(_) => Route::Undecided,
        };
        if let Route::To(receiver) = &route
            && let Some(node) = nodes.get_mut(&src.key)
        {
            node.sent_to.insert(*dst, receiver.id);
            if node.sent_to.len() > PRUNE_SENT_TO && node.sent_to.len().is_power_of_two() {
                let mut sent_to = std::mem::take(&mut node.sent_to);
                sent_to.retain(|key, _| nodes.contains_key(key));
                if let Some(node) = nodes.get_mut(&src.key) {
                    node.sent_to = sent_to;
                }
            }
        }
        (route, epoch)
    }

    /// See [`route`](Self::route).
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn has(&self, key: &NodePublic) -> bool {
        self.lock().contains_key(key)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodePublic, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Picks the active connection anew after one of several has left.
    fn after_leaving(&mut self, left: u64) {
        if let [only] = self.members.as_slice() {
            only.contended.store(false, Ordering::Relaxed);
            self.active = Some(only.clone());
            self.senders.clear();
        } else if self.active.as_ref().is_some_and(|active| active.id == left) {
            let last = self.senders.last();
            self.active = last
                .and_then(|id| self.members.iter().find(|member| member.id == *id))
                .cloned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> NodePublic {
        NodePublic::from_bytes([byte; 32])
    }

    fn add(registry: &Registry, byte: u8) -> Arc<Conn> {
        registry.add(key(byte), Outbox::new(8, 1 << 20))
    }

    fn routed(registry: &Registry, src: &Conn, dst: u8) -> Option<u64> {
        match registry.route(src, &key(dst)).0 {
            Route::To(conn) => Some(conn.id),
            _ => None,
        }
    }

    #[test]
    fn the_last_sender_of_a_contended_key_is_active() {
        let registry = Registry::default();
        let a = add(&registry, 1);
        let [b1, b2, b3] = [(); 3].map(|()| add(&registry, 2));
        assert_eq!(routed(&registry, &a, 2), Some(b3.id));
        registry.note_sender(&b1);
        assert_eq!(routed(&registry, &a, 2), Some(b1.id));
        registry.note_sender(&b2);
        registry.remove(&b2);
        assert_eq!(routed(&registry, &a, 2), Some(b1.id));
        registry.remove(&b1);
        assert_eq!(routed(&registry, &a, 2), Some(b3.id));
        assert!(!b3.contended.load(Ordering::Relaxed));
    }

    #[test]
    fn without_a_sender_a_contended_key_has_no_active_connection() {
        let registry = Registry::default();
        let a = add(&registry, 1);
        let [_b1, _b2, b3] = [(); 3].map(|()| add(&registry, 2));
        registry.remove(&b3);
        assert!(matches!(registry.route(&a, &key(2)).0, Route::Undecided));
        assert!(matches!(registry.route(&a, &key(9)).0, Route::Unknown));
    }
}
