//! The relay map as the node uses it.

use std::collections::HashMap;
use std::net::IpAddr;

use adit_http::Endpoint;
use adit_messages::tailnet;
use adit_messages::tailnet::derp_map::region::Node as MapNode;

use super::relay_task::RelayConfig;

/// Port of STUN servers that name none.
const STUN_PORT: u16 = 3478;
/// Most STUN servers asked in one check.
const MAX_STUN: usize = 16;

/// A usable relay map.
#[derive(Debug, Default)]
pub(crate) struct Map {
    /// Regions with at least one relay.
    pub(crate) relays: HashMap<u32, RelayConfig>,
    /// Factor on the measured latency, by region.
    pub(crate) scores: HashMap<u32, f64>,
    /// STUN servers by name and port.
    pub(crate) stun: Vec<(String, u16)>,
}

impl Map {
    /// Reads a map, leaving out what cannot be used.
    pub(crate) fn from_proto(map: &tailnet::DerpMap) -> Self {
        let mut out = Self::default();
        for region in map.regions.values() {
            // Peers carry the number in a port.
            let Some(id) = u16::try_from(region.region_id)
                .ok()
                .filter(|id| *id != 0)
                .map(u32::from)
            else {
                continue;
            };
            let endpoints: Vec<_> = region
                .nodes
                .iter()
                .filter(|n| !n.stun_only && !n.host_name.is_empty())
                .map(endpoint)
                .collect();
            if !endpoints.is_empty() {
                out.relays.insert(
                    id,
                    RelayConfig {
                        region: id,
                        endpoints,
                    },
                );
            }
            for node in &region.nodes {
                if let Some(server) = stun_server(node)
                    && !out.stun.contains(&server)
                    && out.stun.len() < MAX_STUN
                {
                    out.stun.push(server);
                }
            }
        }
        if let Some(home) = &map.home_params {
            for (id, score) in &home.region_score {
                if let Ok(id) = u32::try_from(*id)
                    && *score > 0.0
                {
                    out.scores.insert(id, *score);
                }
            }
        }
        out
    }
}

fn stun_server(node: &MapNode) -> Option<(String, u16)> {
    let port = match node.stun_port {
        0 => STUN_PORT,
        port => u16::try_from(port).ok()?,
    };
    let host = if node.stun_test_ip.is_empty() {
        &node.host_name
    } else {
        &node.stun_test_ip
    };
    (!host.is_empty()).then(|| (host.clone(), port))
}

fn endpoint(node: &MapNode) -> Endpoint {
    let port = match node.derp_port {
        0 => 443,
        port => u16::try_from(port).unwrap_or(443),
    };
    let mut endpoint = Endpoint::new(node.host_name.clone(), port, !node.force_http);
    endpoint.insecure = node.insecure_for_tests;
    if !node.cert_name.is_empty() {
        endpoint.cert_name = Some(node.cert_name.clone());
    }
    // Literals replace the lookup; other texts switch the family off, which
    // only matters when the other one is a literal.
    endpoint.addresses = [&node.ipv4, &node.ipv6]
        .into_iter()
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .collect();
    endpoint
}

#[cfg(test)]
mod tests {
    use adit_messages::tailnet::DerpMap;
    use adit_messages::tailnet::derp_map::Region;

    use super::*;

    fn node(host: &str) -> MapNode {
        MapNode {
            host_name: host.into(),
            ..MapNode::default()
        }
    }

    fn map(regions: Vec<(i64, Vec<MapNode>)>) -> DerpMap {
        DerpMap {
            regions: regions
                .into_iter()
                .map(|(id, nodes)| {
                    (
                        id,
                        Region {
                            region_id: id,
                            nodes,
                            ..Region::default()
                        },
                    )
                })
                .collect(),
            home_params: None,
        }
    }

    #[test]
    fn reads_relays_and_stun_servers() {
        let relay = MapNode {
            derp_port: 3000,
            force_http: true,
            stun_port: -1,
            ..node("relay.test")
        };
        let stun = MapNode {
            stun_only: true,
            stun_port: 19302,
            ..node("stun.test")
        };
        let map = Map::from_proto(&map(vec![(999, vec![relay]), (1000, vec![stun])]));
        assert_eq!(map.relays.len(), 1);
        assert_eq!(
            map.relays[&999].endpoints,
            [Endpoint::new("relay.test", 3000, false)]
        );
        assert_eq!(map.stun, [("stun.test".to_owned(), 19302)]);
    }

    #[test]
    fn leaves_out_what_cannot_work() {
        let map = Map::from_proto(&map(vec![
            (0, vec![node("a")]),
            (70_000, vec![node("b")]),
            (5, vec![]),
            (-1, vec![node("c")]),
        ]));
        assert!(map.relays.is_empty());
        assert_eq!(map.stun.len(), 0);
    }
}
