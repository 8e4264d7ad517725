//! What the node tells others about itself, and about its peers to its user.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use adit_mesh::{NotDirect, PeerInfo};
use adit_messages::tailnet;
use tokio::sync::watch;

use super::Core;
use crate::status::{ConnectionStats, NetReport, Path, PeerStatus, RelayReason};

/// Publishes the own node message.
#[derive(Debug)]
pub(crate) struct Announcer {
    out: watch::Sender<Option<tailnet::Node>>,
    node_id: i64,
}

impl Announcer {
    pub(crate) fn new(out: watch::Sender<Option<tailnet::Node>>, node_id: i64) -> Self {
        Self { out, node_id }
    }

    /// Publishes `node` if it says something new. The time and the figures of
    /// latencies are no news.
    fn publish(&self, node: tailnet::Node) {
        self.out.send_if_modified(|current| {
            if current.as_ref().is_some_and(|old| same(old, &node)) {
                return false;
            }
            *current = Some(node);
            true
        });
    }
}

fn same(old: &tailnet::Node, new: &tailnet::Node) -> bool {
    let regions = |node: &tailnet::Node| {
        let mut keys: Vec<_> = node.derp_latency.keys().cloned().collect();
        keys.sort_unstable();
        keys
    };
    regions(old) == regions(new)
        && tailnet::Node {
            as_of: None,
            derp_latency: new.derp_latency.clone(),
            ..old.clone()
        } == tailnet::Node {
            as_of: None,
            ..new.clone()
        }
}

/// Now, rounded to microseconds as on the wire.
fn timestamp() -> prost_types::Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_micros() * 1000).unwrap_or(0),
    }
}

impl Core {
    /// Own endpoints as offered to peers.
    fn own_endpoints(&mut self, now: Instant) -> Vec<SocketAddr> {
        if self.blocked || self.map.relays.is_empty() {
            Vec::new()
        } else {
            self.endpoints.list(now)
        }
    }

    /// Brings the mesh's endpoints and the announced node up to date.
    pub(super) fn refresh(&mut self, now: Instant) {
        let endpoints = self.own_endpoints(now);
        self.mesh.set_endpoints(now, endpoints.clone());
        if self.home == 0 || self.home_since.is_some() {
            return;
        }
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .map(|ip| format!("{ip}/128"))
            .collect();
        let latency = self.netcheck.latencies();
        self.announcer.publish(tailnet::Node {
            id: self.announcer.node_id,
            as_of: Some(timestamp()),
            key: self.key.to_np_bytes().to_vec().into(),
            disco: self.disco.to_string(),
            preferred_derp: i32::try_from(self.home).unwrap_or(0),
            derp_latency: latency
                .iter()
                .map(|(id, l)| (format!("{id}-v4"), l.as_secs_f64()))
                .collect(),
            derp_forced_websocket: self
                .relays
                .fell_back
                .iter()
                .filter_map(|(id, why)| Some((i32::try_from(*id).ok()?, why.clone())))
                .collect(),
            allowed_ips: addresses.clone(),
            addresses,
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
        });
    }

    pub(super) fn peer_status(&self, now: Instant, info: PeerInfo) -> PeerStatus {
        let relay = (self.relays.is_up(info.home_region)).then_some(Path::Derp(info.home_region));
        let path = info.direct.map(Path::Direct).or(relay);
        let why_relayed = info.not_direct.map(|why| match why {
            NotDirect::Blocked => RelayReason::BlockedHere,
            NotDirect::PeerHasNoEndpoints => RelayReason::PeerHasNoEndpoints,
            NotDirect::Idle => RelayReason::Idle,
            NotDirect::NoAnswer => RelayReason::NoAnswer,
            NotDirect::Lost => RelayReason::PathLost,
        });
        PeerStatus {
            id: info.id,
            node_key: info.node_key,
            addresses: info.allowed_ips,
            home_region: info.home_region,
            path,
            why_relayed,
            latency: info.latency,
            rx_bytes: info.rx_bytes,
            tx_bytes: info.tx_bytes,
            last_handshake: info.last_handshake.map(|at| now.duration_since(at)),
        }
    }

    pub(super) fn stats(&self) -> ConnectionStats {
        let (open, total) = self.tcp.counts();
        ConnectionStats {
            open_connections: open,
            total_connections: total,
            rx_packets: self.counters.rx_packets,
            rx_bytes: self.counters.rx_bytes,
            tx_packets: self.counters.tx_packets,
            tx_bytes: self.counters.tx_bytes,
        }
    }

    pub(super) fn net_report(&mut self, now: Instant) -> NetReport {
        NetReport {
            home_region: self.home,
            latencies: self.netcheck.latencies(),
            endpoints: self.own_endpoints(now),
            mapping_varies: self.netcheck.mapping_varies(),
            udp: self.netcheck.udp,
            relay_error: self.relays.last_error.clone(),
        }
    }
}
