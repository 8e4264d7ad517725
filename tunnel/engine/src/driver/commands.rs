//! What handles ask for.

use std::net::{Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Instant;

use adit_keys::{DiscoPublic, NodePublic};
use adit_mesh::PeerConfig;
use adit_messages::tailnet;
use uuid::Uuid;

use super::Core;
use super::datagrams::Datagrams;
use super::flows::Flows;
use super::map::Map;
use crate::command::{Command, Reply};
use crate::error::Error;
use crate::stream::TcpStream;

/// Commands handled in one round.
const COMMANDS: usize = 64;
/// Most endpoints and addresses read from a peer's description.
const MAX_ENDPOINTS: usize = 64;
const MAX_ADDRESSES: usize = 8;

impl Core {
    /// Handles waiting commands.
    pub(super) fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        for _ in 0..COMMANDS {
            let Poll::Ready(Some(command)) = self.inbox.poll_recv(cx) else {
                break;
            };
            any = true;
            self.handle_command(now, command);
        }
        any
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::SetDerpMap(map) => self.set_map(now, &map),
            Command::SetAddresses(addresses) => {
                self.stack.set_addresses(&addresses);
                self.addresses = addresses;
                self.refresh(now);
            }
            Command::SetBlockEndpoints(block) => self.set_blocked(now, block),
            Command::SetForceWebsockets(force) => self.relays.set_force_websockets(force),
            Command::UpsertPeer {
                id,
                node,
                keepalive,
                reply,
            } => {
                let _ = reply.send(self.upsert_peer(now, id, &node, keepalive));
            }
            Command::RemovePeer { id, reply } => {
                let gone = self.mesh.peer(now, &id).map(|peer| peer.allowed_ips);
                self.mesh.remove_peer(id);
                // Its own goodbyes may have been on their way.
                for ip in gone.unwrap_or_default() {
                    self.stack.peer_gone(now, ip);
                }
                let _ = reply.send(());
            }
            Command::Listen {
                port,
                incoming,
                reply,
            } => {
                let _ = reply.send(self.tcp.listen(port, incoming));
            }
            Command::ListenRest { incoming } => self.tcp.listen_rest(incoming),
            Command::Dial { remote, reply } => self.dial(now, remote, reply),
            Command::Accept { id, reply } => self.tcp.accept(now, &mut self.stack, id, reply),
            Command::Reject { id } => self.tcp.reject(now, &mut self.stack, id),
            Command::UdpBind {
                port,
                incoming,
                reply,
            } => {
                let bound = self.datagrams.bind(&mut self.stack, port, incoming);
                let _ = reply.send(bound.map(|port| Datagrams::local(&self.addresses, port)));
            }
            Command::UdpRest { incoming } => self.datagrams.set_rest(&mut self.stack, incoming),
            Command::UdpSend(datagram) => Datagrams::send(&mut self.stack, &datagram),
            Command::PingTsmp { dst, reply } => {
                if self.mesh.has_peer(&dst) {
                    self.tsmp.retain(|_, waiting| !waiting.is_closed());
                    let id = self.stack.tsmp_ping(now, dst);
                    self.tsmp.insert(id, reply);
                } else {
                    let _ = reply.send(Err(Error::UnknownPeer(dst)));
                }
            }
            Command::PingDisco { dst, reply } => match self.mesh.ping(now, &dst) {
                Some(token) => {
                    self.pings.retain(|_, waiting| !waiting.is_closed());
                    self.pings.insert(token, reply);
                }
                None => {
                    let _ = reply.send(Err(Error::UnknownPeer(dst)));
                }
            },
            Command::Status { reply } => {
                let all = self
                    .mesh
                    .peers(now)
                    .map(|info| self.peer_status(now, info))
                    .collect();
                let _ = reply.send(all);
            }
            Command::LastHandshake { id, reply } => {
                let at = self.mesh.peer(now, &id).and_then(|p| p.last_handshake);
                let _ = reply.send(at.map(|at| now.duration_since(at)));
            }
            Command::PeerActive { id, reply } => {
                let _ = reply.send(self.mesh.peer(now, &id).is_some_and(|p| p.active));
            }
            Command::Stats { reply } => {
                let _ = reply.send(self.stats());
            }
            Command::TakeFlows { reply } => {
                let _ = reply.send(self.flows.as_mut().map(Flows::take).unwrap_or_default());
            }
            Command::NetReport { reply } => {
                let _ = reply.send(self.net_report(now));
            }
            Command::GiveBack => {
                crate::ring::free_kept();
                self.sockets.give_back();
                self.batch.give_back();
                self.stack.shrink();
                self.tcp.shrink();
                self.relays.shrink();
            }
            Command::LinkChanged => self.link_changed(now),
            Command::Close { reply } => {
                self.tcp.close_all(now, &mut self.stack);
                self.closing = Some(reply);
            }
        }
    }

    /// Replaces the relay map.
    pub(super) fn set_map(&mut self, now: Instant, map: &tailnet::DerpMap) {
        let map = Map::from_proto(map);
        let unchanged = map.relays == self.map.relays
            && map.stun == self.map.stun
            && map.scores == self.map.scores;
        if unchanged {
            return;
        }
        self.map = map;
        self.relays.set_map(self.map.relays.clone(), now);
        if self.home != 0 && !self.map.relays.contains_key(&self.home) {
            self.home = 0;
        }
        self.check_network(now, true);
    }

    fn set_blocked(&mut self, now: Instant, blocked: bool) {
        if self.blocked == blocked {
            return;
        }
        self.blocked = blocked;
        self.mesh.set_blocked(now, blocked);
        if blocked {
            self.refresh(now);
        } else {
            self.check_network(now, false);
        }
    }

    fn dial(
        &mut self,
        now: Instant,
        remote: std::net::SocketAddrV6,
        reply: Reply<Result<TcpStream, Error>>,
    ) {
        if self.mesh.has_peer(remote.ip()) {
            self.tcp.dial(now, &mut self.stack, remote, reply);
        } else {
            let _ = reply.send(Err(Error::UnknownPeer(*remote.ip())));
        }
    }

    fn upsert_peer(
        &mut self,
        now: Instant,
        id: Uuid,
        node: &tailnet::Node,
        keepalive: bool,
    ) -> Result<(), Error> {
        let mut config = peer_config(id, node, keepalive)?;
        config.allowed_ips.retain(|ip| !self.addresses.contains(ip));
        self.mesh
            .upsert_peer(now, config)
            .map_err(|e| Error::BadPeer(e.to_string()))
    }
}

/// Reads a node message.
fn peer_config(id: Uuid, node: &tailnet::Node, keepalive: bool) -> Result<PeerConfig, Error> {
    let bad = |what: &str, why: &dyn std::fmt::Display| Error::BadPeer(format!("{what}: {why}"));
    let node_key = NodePublic::from_np_bytes(&node.key).map_err(|e| bad("node key", &e))?;
    let disco_key: DiscoPublic = node.disco.parse().map_err(|e| bad("disco key", &e))?;
    let home_region = u16::try_from(node.preferred_derp)
        .ok()
        .filter(|region| *region != 0)
        .ok_or_else(|| bad("home relay", &node.preferred_derp))?;
    let addresses = prefixes(&node.addresses).map_err(|text| bad("address", &text))?;
    let allowed = prefixes(&node.allowed_ips).map_err(|text| bad("allowed address", &text))?;
    // Only addresses that the node announces as its own may be routed to it.
    let allowed_ips = allowed
        .into_iter()
        .filter(|ip| addresses.contains(ip))
        .take(MAX_ADDRESSES)
        .collect();
    let endpoints: Vec<SocketAddr> = node
        .endpoints
        .iter()
        .filter_map(|text| text.parse().ok())
        .take(MAX_ENDPOINTS)
        .collect();
    Ok(PeerConfig {
        id,
        node_key,
        disco_key,
        home_region: home_region.into(),
        endpoints,
        allowed_ips,
        keepalive,
    })
}

/// The single IPv6 addresses among CIDR texts; `Err` names the first text that
/// is no CIDR at all.
fn prefixes(texts: &[String]) -> Result<Vec<Ipv6Addr>, String> {
    let mut out = Vec::new();
    for text in texts {
        let (ip, bits) = text.split_once('/').ok_or_else(|| text.clone())?;
        let ip: std::net::IpAddr = ip.parse().map_err(|_| text.clone())?;
        let bits: u8 = bits.parse().map_err(|_| text.clone())?;
        if let std::net::IpAddr::V6(ip) = ip
            && bits == 128
        {
            out.push(ip);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use adit_keys::{DiscoPrivate, NodePrivate};
    use proptest::prelude::*;

    use super::*;

    fn node() -> tailnet::Node {
        tailnet::Node {
            key: NodePrivate::generate()
                .public()
                .to_np_bytes()
                .to_vec()
                .into(),
            disco: DiscoPrivate::generate().public().to_string(),
            preferred_derp: 999,
            addresses: vec!["fd7a:115c:a1e0::1/128".into()],
            allowed_ips: vec![
                "fd7a:115c:a1e0::1/128".into(),
                "fd7a:115c:a1e0::2/128".into(),
                "::/0".into(),
            ],
            endpoints: vec![
                "192.0.2.1:5".into(),
                "nonsense".into(),
                "[2001:db8::1]:6".into(),
            ],
            ..tailnet::Node::default()
        }
    }

    #[test]
    fn reads_a_node() {
        let config = peer_config(Uuid::nil(), &node(), true).unwrap();
        assert_eq!(
            config.allowed_ips,
            ["fd7a:115c:a1e0::1".parse::<Ipv6Addr>().unwrap()]
        );
        assert_eq!(config.endpoints.len(), 2);
        assert_eq!(config.home_region, 999);
    }

    #[test]
    fn refuses_unusable_nodes() {
        for bad in [
            tailnet::Node {
                preferred_derp: 0,
                ..node()
            },
            tailnet::Node {
                preferred_derp: 70_000,
                ..node()
            },
            tailnet::Node {
                key: bytes::Bytes::from_static(b"np short"),
                ..node()
            },
            tailnet::Node {
                disco: "discokey:zz".into(),
                ..node()
            },
            tailnet::Node {
                addresses: vec!["fd7a::1".into()],
                ..node()
            },
            tailnet::Node {
                allowed_ips: vec!["x/128".into()],
                ..node()
            },
        ] {
            assert!(matches!(
                peer_config(Uuid::nil(), &bad, false),
                Err(Error::BadPeer(_))
            ));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(key in prop::collection::vec(any::<u8>(), 0..40), disco in ".{0,80}",
                                list in prop::collection::vec(".{0,60}", 0..6), derp in any::<i32>()) {
            let node = tailnet::Node {
                key: key.into(),
                disco,
                preferred_derp: derp,
                addresses: list.clone(),
                allowed_ips: list.clone(),
                endpoints: list,
                ..tailnet::Node::default()
            };
            let _ = peer_config(Uuid::nil(), &node, false);
        }
    }
}
