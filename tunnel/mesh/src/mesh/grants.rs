//! Who may talk to this node.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::{Mesh, PeerIndex};
use crate::paths::Paths;
use crate::peer::Peer;
use crate::tunnel::Tunnel;
use crate::types::{PeerConfig, PeerError};

impl Mesh {
    /// Grants a peer or updates what is known of it. A new node key or disco
    /// key under the same id starts from nothing.
    ///
    /// An overlay address that another peer holds stays with that peer.
    ///
    /// # Errors
    /// The description cannot be used; nothing changed.
    pub fn upsert_peer(&mut self, now: Instant, config: PeerConfig) -> Result<(), PeerError> {
        if config.disco_key.is_zero() {
            return Err(PeerError::NoDiscoKey);
        }
        if config.node_key.is_zero() {
            return Err(PeerError::NoNodeKey);
        }
        if config.node_key == self.node_public {
            return Err(PeerError::OwnKey);
        }
        let same = |peer: &Peer| {
            peer.key() == config.node_key && peer.config.disco_key == config.disco_key
        };
        let by_id = self.by_id.get(&config.id).copied();
        if let Some(index) = by_id
            && !self.peers.get(&index).is_some_and(same)
        {
            self.remove_peer(config.id);
        }
        // The same node under a new name keeps its sessions.
        if let Some(index) = self.by_key.get(&config.node_key).copied()
            && let Some(peer) = self.peers.get(&index)
            && peer.id != config.id
        {
            let old = peer.id;
            if same(peer) {
                self.by_id.remove(&old);
                self.by_id.insert(config.id, index);
            } else {
                self.remove_peer(old);
            }
        }
        let index = match self.by_id.get(&config.id) {
            Some(index) => *index,
            None => self.insert(&config),
        };
        self.apply(now, index, config);
        self.after(now, index);
        Ok(())
    }

    fn insert(&mut self, config: &PeerConfig) -> PeerIndex {
        let index = loop {
            self.next_index = self.next_index.wrapping_add(1);
            if !self.peers.contains_key(&self.next_index) {
                break self.next_index;
            }
        };
        let key = config.node_key.to_x25519();
        let noise = adit_noise::Peer::new(Arc::clone(&self.identity), key, index);
        let mut paths = Paths::default();
        if self.blocked {
            // Nothing is active yet, so the time does not matter.
            paths.block();
        }
        let peer = Peer {
            id: config.id,
            config: config.clone(),
            allowed: Vec::new(),
            tunnel: Tunnel::new(noise),
            paths,
            disco: self.disco_key.shared(&config.disco_key),
            index,
            rx_bytes: 0,
            tx_bytes: 0,
            seen_region: None,
            noted: None,
            armed: None,
        };
        self.by_id.insert(config.id, index);
        self.by_key.insert(config.node_key, index);
        self.by_disco.insert(config.disco_key, index);
        self.peers.insert(index, peer);
        index
    }

    fn apply(&mut self, now: Instant, index: PeerIndex, config: PeerConfig) {
        self.release_addresses(index);
        let mut allowed = Vec::new();
        for ip in &config.allowed_ips {
            let holder = *self.by_ip.entry(*ip).or_insert(index);
            if holder == index {
                allowed.push(*ip);
            } else {
                tracing::warn!(%ip, peer = %config.id, "overlay address is held by another peer");
            }
        }
        let Some(peer) = self.peers.get_mut(&index) else {
            return;
        };
        peer.id = config.id;
        peer.allowed = allowed;
        peer.paths
            .set_announced(now, &config.endpoints, &mut self.rng);
        peer.tunnel
            .set_keepalive(now, config.keepalive, &mut self.rng);
        if peer.config.home_region != config.home_region {
            peer.tunnel.nudge(now, &mut self.rng);
            peer.paths.relay_changed();
        }
        peer.config = config;
    }

    /// Takes a grant back: nothing is sent to or accepted from the peer.
    pub fn remove_peer(&mut self, id: Uuid) {
        let Some(index) = self.by_id.remove(&id) else {
            return;
        };
        let Some(mut peer) = self.peers.remove(&index) else {
            return;
        };
        peer.tunnel.close(&mut self.rng);
        self.by_key.remove(&peer.key());
        if self.by_disco.get(&peer.config.disco_key) == Some(&index) {
            self.by_disco.remove(&peer.config.disco_key);
        }
        if let Some(addr) = peer.noted {
            self.by_direct.remove(&(addr, index));
        }
        for ip in peer.allowed {
            self.by_ip.remove(&ip);
        }
        self.trim_timers();
    }

    /// The peer holds no overlay address any more.
    fn release_addresses(&mut self, index: PeerIndex) {
        if let Some(peer) = self.peers.get_mut(&index) {
            for ip in std::mem::take(&mut peer.allowed) {
                self.by_ip.remove(&ip);
            }
        }
    }
}
