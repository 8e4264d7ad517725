//! Path discovery messages in and out.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use adit_disco::{Envelope, Message};
use adit_keys::NONCE_LEN;
use rand::RngCore;

use super::{Mesh, PeerIndex};
use crate::BUFFER_LEN;
use crate::paths::Action;
use crate::types::{Event, Transmit, Via};

/// Stands for a relay where disco wants an address; the port is the region.
const DERP_ADDR: Ipv4Addr = Ipv4Addr::new(127, 3, 3, 40);

impl Mesh {
    pub(super) fn handle_disco(&mut self, now: Instant, via: Via, datagram: &[u8]) {
        let Some(envelope) = Envelope::parse(datagram) else {
            return;
        };
        let by_relay = match via {
            Via::Derp { key, .. } => self.by_key.get(&key).copied(),
            Via::Udp(_) => None,
        };
        let index = by_relay
            .filter(|i| {
                self.peers
                    .get(i)
                    .is_some_and(|p| p.config.disco_key == envelope.sender)
            })
            .or_else(|| self.by_disco.get(&envelope.sender).copied());
        let Some(peer) = index.and_then(|i| self.peers.get_mut(&i)) else {
            return;
        };
        let index = peer.index;
        let Ok(message) = envelope.open(&peer.disco) else {
            return;
        };
        match message {
            Message::Ping { tx, .. } => {
                let src = match via {
                    Via::Udp(addr) => {
                        peer.paths.pinged_from(now, addr, &mut self.rng);
                        addr
                    }
                    Via::Derp { region, .. } => {
                        SocketAddr::from((DERP_ADDR, u16::try_from(region).unwrap_or(0)))
                    }
                };
                let back = match via {
                    Via::Udp(_) => via,
                    Via::Derp { region, .. } => Via::Derp {
                        region,
                        key: peer.key(),
                    },
                };
                // As long as the ping: shows that this direction carries it too.
                let len = datagram.len().min(BUFFER_LEN);
                self.send_disco(index, back, len, &Message::Pong { tx, src });
            }
            Message::Pong { tx, .. } => {
                if let Some(answered) = peer.paths.ponged(now, tx, datagram.len())
                    && let Some(token) = answered.token
                {
                    self.events.push_back(Event::Pong {
                        token,
                        latency: answered.rtt,
                        via: answered.via,
                    });
                }
            }
            Message::CallMeMaybe { endpoints } => {
                if by_relay == Some(index) {
                    peer.paths.called(now, &endpoints, &mut self.rng);
                }
            }
        }
        self.after(now, index);
    }

    /// Starts a ping over every path to the peer that holds `ip`. The first
    /// answer gives an [`Event::Pong`] with the returned token; later ones do
    /// too.
    pub fn ping(&mut self, now: Instant, ip: &Ipv6Addr) -> Option<u64> {
        let index = *self.by_ip.get(ip)?;
        let token = self.next_token;
        self.next_token += 1;
        let peer = self.peers.get_mut(&index)?;
        peer.paths.ping_all(now, token, &mut self.rng);
        let relay = peer.relay();
        let tx = peer
            .paths
            .note_ping(now, relay, 0, Some(token), &mut self.rng);
        self.send_disco(
            index,
            relay,
            0,
            &Message::Ping {
                tx,
                node_key: Some(self.node_public),
            },
        );
        self.after(now, index);
        Some(token)
    }

    /// Pings and pongs are padded to `len` bytes, if that is more than usual.
    pub(super) fn send_disco(&mut self, index: PeerIndex, via: Via, len: usize, message: &Message) {
        let Some(peer) = self.peers.get(&index) else {
            return;
        };
        let mut nonce = [0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        let data = adit_disco::seal_padded(&self.disco_public, &peer.disco, &nonce, message, len);
        self.transmit(Transmit { via, data });
    }

    pub(super) fn act(&mut self, now: Instant, index: PeerIndex, action: Action) {
        match action {
            Action::Ping { tx, to, len } => {
                self.send_disco(
                    index,
                    Via::Udp(to),
                    len,
                    &Message::Ping {
                        tx,
                        node_key: Some(self.node_public),
                    },
                );
            }
            Action::PingRelay { len } => {
                let Some(peer) = self.peers.get_mut(&index) else {
                    return;
                };
                let relay = peer.relay();
                let tx = peer.paths.note_ping(now, relay, len, None, &mut self.rng);
                let ping = Message::Ping {
                    tx,
                    node_key: Some(self.node_public),
                };
                self.send_disco(index, relay, len, &ping);
            }
            Action::CallMeMaybe => {
                let endpoints = if self.blocked {
                    Vec::new()
                } else {
                    self.endpoints.clone()
                };
                if let Some(peer) = self.peers.get(&index)
                    && !endpoints.is_empty()
                {
                    let relay = peer.relay();
                    self.send_disco(index, relay, 0, &Message::CallMeMaybe { endpoints });
                }
            }
            Action::Mtu(mtu) => {
                if let Some(peer) = self.peers.get(&index) {
                    self.events.push_back(Event::Mtu { id: peer.id, mtu });
                }
            }
            Action::Changed(direct) => {
                if let Some(peer) = self.peers.get_mut(&index) {
                    let old = std::mem::replace(&mut peer.noted, direct);
                    if old != direct {
                        if let Some(addr) = old {
                            self.by_direct.remove(&(addr, index));
                        }
                        if let Some(addr) = direct {
                            self.by_direct.insert((addr, index));
                        }
                    }
                    if direct.is_some() {
                        peer.tunnel.nudge(now, &mut self.rng);
                    }
                    self.events.push_back(Event::Path {
                        id: peer.id,
                        direct,
                    });
                }
            }
        }
    }
}
