//! The relay map this server hands out, as JSON and as a message.

use std::collections::BTreeMap;

use adit_messages::tailnet;
use adit_rest::{AgentConnectionInfo, DerpMap, DerpNode, DerpRegion};
use url::Url;

use crate::config::Config;

/// The region of the relay inside this server; the value Coder uses.
pub(crate) const EMBEDDED_REGION: i64 = 999;

/// The relay map: the embedded relay, and STUN servers unless direct
/// connections are off.
pub(crate) fn derp_map(config: &Config, access_url: &Url) -> DerpMap {
    let relay = DerpRegion {
        embedded_relay: true,
        region_id: EMBEDDED_REGION,
        region_code: "coder".into(),
        region_name: "Coder Embedded Relay".into(),
        avoid: false,
        nodes: vec![DerpNode {
            name: format!("{EMBEDDED_REGION}b"),
            region_id: EMBEDDED_REGION,
            host_name: access_url
                .host_str()
                .unwrap_or_default()
                .trim_matches(['[', ']'])
                .to_owned(),
            // There is no STUN server inside this one.
            stun_port: -1,
            derp_port: access_url.port_or_known_default().map_or(443, i64::from),
            force_http: access_url.scheme() == "http",
            ..DerpNode::default()
        }],
    };
    let mut regions = BTreeMap::from([(EMBEDDED_REGION, relay)]);
    let stun = if config.block_direct_connections {
        &[][..]
    } else {
        &config.stun_servers[..]
    };
    // A region for each: one answer ends the probing of a region.
    for (id, server) in (EMBEDDED_REGION + 1..).zip(stun) {
        let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
        let node = DerpNode {
            name: format!("{id}stun0"),
            region_id: id,
            host_name: host.trim_matches(['[', ']']).to_owned(),
            stun_port: port.parse().unwrap_or(0),
            stun_only: true,
            ..DerpNode::default()
        };
        let region = DerpRegion {
            region_id: id,
            region_code: format!("coder_stun_{id}"),
            region_name: format!("Coder STUN {id}"),
            nodes: vec![node],
            ..DerpRegion::default()
        };
        regions.insert(id, region);
    }
    DerpMap {
        regions,
        omit_default_regions: false,
        home_params: None,
    }
}

/// What a client needs before it connects to an agent.
pub(crate) fn connection_info(config: &Config, access_url: &Url) -> AgentConnectionInfo {
    AgentConnectionInfo {
        derp_map: Some(derp_map(config, access_url)),
        derp_force_websockets: config.force_websockets,
        disable_direct_connections: config.block_direct_connections,
        hostname_suffix: config.hostname_suffix.clone(),
    }
}

/// The map as a message. `home_params` is always present: peers written in Go
/// crash without it.
pub(crate) fn to_message(map: &DerpMap) -> tailnet::DerpMap {
    let region_score = map
        .home_params
        .as_ref()
        .map(|params| params.region_score.clone())
        .unwrap_or_default();
    tailnet::DerpMap {
        home_params: Some(tailnet::derp_map::HomeParams { region_score }),
        // A region without a node makes peers written in Go divide by zero.
        regions: map
            .regions
            .iter()
            .filter(|(_, region)| !region.nodes.is_empty())
            .map(|(&id, region)| (id, region_to_message(region)))
            .collect(),
    }
}

fn region_to_message(region: &DerpRegion) -> tailnet::derp_map::Region {
    tailnet::derp_map::Region {
        region_id: region.region_id,
        embedded_relay: region.embedded_relay,
        region_code: region.region_code.clone(),
        region_name: region.region_name.clone(),
        avoid: region.avoid,
        nodes: region.nodes.iter().map(node_to_message).collect(),
    }
}

fn node_to_message(node: &DerpNode) -> tailnet::derp_map::region::Node {
    tailnet::derp_map::region::Node {
        name: node.name.clone(),
        region_id: node.region_id,
        host_name: node.host_name.clone(),
        cert_name: node.cert_name.clone(),
        ipv4: node.ipv4.clone(),
        ipv6: node.ipv6.clone(),
        stun_port: i32::try_from(node.stun_port).unwrap_or(-1),
        stun_only: node.stun_only,
        derp_port: i32::try_from(node.derp_port).unwrap_or(0),
        insecure_for_tests: node.insecure_for_tests,
        force_http: node.force_http,
        stun_test_ip: node.stun_test_ip.clone(),
        can_port_80: node.can_port80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_relay_is_the_access_url() {
        let config = Config::default();
        let map = derp_map(&config, &"http://127.0.0.1:3920".parse().unwrap());
        let json = serde_json::to_string(&map).unwrap();
        assert_eq!(
            json,
            r#"{"Regions":{"999":{"EmbeddedRelay":true,"RegionID":999,"RegionCode":"coder","#
                .to_owned()
                + r#""RegionName":"Coder Embedded Relay","Nodes":[{"Name":"999b","RegionID":999,"#
                + r#""HostName":"127.0.0.1","STUNPort":-1,"DERPPort":3920,"ForceHTTP":true}]}}}"#
        );
        let message = to_message(&map);
        assert!(message.home_params.is_some());
        assert_eq!(message.regions[&999].nodes[0].derp_port, 3920);

        let map = derp_map(&config, &"https://coder.example.com/path".parse().unwrap());
        assert_eq!(map.regions[&999].nodes[0].derp_port, 443);
        assert!(!map.regions[&999].nodes[0].force_http);
    }

    #[test]
    fn stun_servers_vanish_when_direct_connections_are_off() {
        let url = "http://127.0.0.1:1".parse().unwrap();
        let stun_servers = vec!["a.example:19302".into(), "[::1]:3478".into()];
        let mut config = Config {
            stun_servers,
            ..Config::default()
        };
        let map = derp_map(&config, &url);
        assert_eq!(
            map.regions.keys().copied().collect::<Vec<_>>(),
            [999, 1000, 1001]
        );
        assert_eq!(map.regions[&1000].nodes[0].stun_port, 19302);
        assert_eq!(map.regions[&1001].nodes[0].host_name, "::1");
        config.block_direct_connections = true;
        assert_eq!(derp_map(&config, &url).regions.len(), 1);
    }
}
