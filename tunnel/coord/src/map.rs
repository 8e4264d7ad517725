//! Relay maps: from JSON, and with the relays inside the control plane put
//! where this side reaches the control plane.

use std::collections::HashMap;

use adit_messages::tailnet;
use adit_messages::tailnet::derp_map::region::Node;
use adit_messages::tailnet::derp_map::{HomeParams, Region};
use url::Url;

/// The protobuf form of a JSON relay map.
#[must_use]
pub fn map_from_json(map: &adit_rest::DerpMap) -> tailnet::DerpMap {
    let number = |n: i64| i32::try_from(n).unwrap_or(-1);
    let region = |r: &adit_rest::DerpRegion| Region {
        region_id: r.region_id,
        embedded_relay: r.embedded_relay,
        region_code: r.region_code.clone(),
        region_name: r.region_name.clone(),
        avoid: r.avoid,
        nodes: r
            .nodes
            .iter()
            .map(|n| Node {
                name: n.name.clone(),
                region_id: n.region_id,
                host_name: n.host_name.clone(),
                cert_name: n.cert_name.clone(),
                ipv4: n.ipv4.clone(),
                ipv6: n.ipv6.clone(),
                stun_port: number(n.stun_port),
                stun_only: n.stun_only,
                derp_port: number(n.derp_port),
                insecure_for_tests: n.insecure_for_tests,
                force_http: n.force_http,
                stun_test_ip: n.stun_test_ip.clone(),
                can_port_80: n.can_port80,
            })
            .collect(),
    };
    let scores = map
        .home_params
        .as_ref()
        .map(|p| p.region_score.iter().map(|(k, v)| (*k, *v)).collect());
    tailnet::DerpMap {
        home_params: Some(HomeParams {
            region_score: scores.unwrap_or_default(),
        }),
        regions: map.regions.iter().map(|(id, r)| (*id, region(r))).collect(),
    }
}

/// Points the relays of embedded regions at the URL this side uses for the
/// control plane. STUN servers and other regions stay.
pub fn rewrite_map(map: &mut tailnet::DerpMap, access_url: &Url) {
    let tls = !matches!(access_url.scheme(), "http" | "ws");
    let port = access_url.port().unwrap_or(if tls { 443 } else { 80 });
    let host = access_url
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let embedded = map
        .regions
        .values_mut()
        .filter(|region| region.embedded_relay);
    for node in embedded
        .flat_map(|region| &mut region.nodes)
        .filter(|node| !node.stun_only)
    {
        node.host_name.clone_from(&host);
        node.derp_port = port.into();
        node.force_http = !tls;
    }
}

/// Display names of the regions.
#[must_use]
pub fn region_names(map: &tailnet::DerpMap) -> HashMap<u32, String> {
    map.regions
        .iter()
        .filter_map(|(id, region)| {
            let name = if region.region_name.is_empty() {
                &region.region_code
            } else {
                &region.region_name
            };
            Some((u32::try_from(*id).ok()?, name.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_relays_move_to_the_access_url() {
        let relay = Node {
            host_name: "internal".into(),
            derp_port: 3000,
            force_http: true,
            ..Node::default()
        };
        let stun = Node {
            host_name: "stun.test".into(),
            stun_only: true,
            ..Node::default()
        };
        let region = Region {
            embedded_relay: true,
            nodes: vec![relay.clone(), stun],
            ..Region::default()
        };
        let other = Region {
            nodes: vec![relay],
            ..Region::default()
        };
        let map = tailnet::DerpMap {
            home_params: None,
            regions: [(1, region), (2, other)].into(),
        };

        for (url, host, port, http) in [
            ("https://coder.test/some/path", "coder.test", 443, false),
            ("http://127.0.0.1:3920", "127.0.0.1", 3920, true),
            ("http://[2001:db8::1]", "2001:db8::1", 80, true),
        ] {
            let mut map = map.clone();
            rewrite_map(&mut map, &url.parse().unwrap());
            let node = &map.regions[&1].nodes[0];
            assert_eq!(
                (node.host_name.as_str(), node.derp_port, node.force_http),
                (host, port, http)
            );
            assert_eq!(map.regions[&1].nodes[1].host_name, "stun.test");
            assert_eq!(map.regions[&2].nodes[0].host_name, "internal");
        }
    }
}
