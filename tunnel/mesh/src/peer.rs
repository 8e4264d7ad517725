//! Everything known about one granted peer.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Instant;

use adit_keys::{NodePublic, SharedKey};
use adit_noise::Random;
use uuid::Uuid;

use crate::paths::Paths;
use crate::tunnel::Tunnel;
use crate::types::{PeerConfig, PeerInfo, Route, Transmit, Via};

pub(crate) struct Peer {
    pub(crate) id: Uuid,
    pub(crate) config: PeerConfig,
    /// Allowed addresses in force: announced ones that no other peer holds.
    pub(crate) allowed: Vec<Ipv6Addr>,
    pub(crate) tunnel: Tunnel,
    pub(crate) paths: Paths,
    /// Opens and seals disco messages.
    pub(crate) disco: SharedKey,
    /// Owner of its session numbers.
    pub(crate) index: u32,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    /// Relay region the peer's last packet came through.
    pub(crate) seen_region: Option<u32>,
    /// The direct path, as the mesh noted it.
    pub(crate) noted: Option<SocketAddr>,
    /// Earliest entry in the mesh's timer queue.
    pub(crate) armed: Option<Instant>,
}

impl Peer {
    pub(crate) fn key(&self) -> NodePublic {
        self.config.node_key
    }

    /// Where a datagram sent now goes.
    pub(crate) fn route(&self, now: Instant) -> Route {
        let (direct, relay) = self.paths.route(now);
        Route {
            direct,
            relay: relay.then(|| (self.config.home_region, self.key())),
        }
    }

    /// The relay way to the peer.
    pub(crate) fn relay(&self) -> Via {
        Via::Derp {
            region: self.config.home_region,
            key: self.key(),
        }
    }

    /// Whether neither tunnel nor paths want anything done.
    pub(crate) fn is_quiet(&self) -> bool {
        self.tunnel.is_quiet() && self.paths.is_quiet()
    }

    /// Spreads what the tunnel made over the current route.
    pub(crate) fn drain_tunnel(
        &mut self,
        now: Instant,
        rng: &mut Random,
        out: &mut impl FnMut(Transmit),
    ) {
        while let Some(data) = self.tunnel.poll_ready() {
            if data.len() <= crate::OVERHEAD {
                self.paths.sent_keepalive(now, rng);
            }
            let route = self.route(now);
            if let Some((region, key)) = route.relay {
                let data = if route.direct.is_some() {
                    data.clone()
                } else {
                    data
                };
                if let Some(addr) = route.direct {
                    out(Transmit {
                        via: Via::Udp(addr),
                        data: data.clone(),
                    });
                }
                out(Transmit {
                    via: Via::Derp { region, key },
                    data,
                });
            } else if let Some(addr) = route.direct {
                out(Transmit {
                    via: Via::Udp(addr),
                    data,
                });
            }
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match (self.tunnel.poll_timeout(), self.paths.poll_timeout(now)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(crate) fn info(&self, now: Instant) -> PeerInfo {
        PeerInfo {
            id: self.id,
            node_key: self.key(),
            allowed_ips: self.allowed.clone(),
            home_region: self.config.home_region,
            direct: self.paths.direct(),
            mtu: self.paths.mtu(),
            latency: self.paths.latency(),
            not_direct: self.paths.not_direct(now),
            last_handshake: self.tunnel.last_handshake(),
            rx_bytes: self.rx_bytes,
            tx_bytes: self.tx_bytes,
            active: self.paths.active(now),
        }
    }
}
