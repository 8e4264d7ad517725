//! Relays that are part of the control plane are reached at the address this
//! agent uses for it.

use adit_http::Url;
use adit_messages::tailnet::DerpMap;

/// Points the embedded relays of `map` to `base`.
pub(crate) fn rewrite(mut map: DerpMap, base: &Url) -> DerpMap {
    let plain = base.scheme() == "http";
    let port = base.port_or_known_default().unwrap_or(443);
    let host = base.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let embedded = map.regions.values_mut().filter(|r| r.embedded_relay);
    for node in embedded.flat_map(|r| &mut r.nodes).filter(|n| !n.stun_only) {
        host.clone_into(&mut node.host_name);
        node.derp_port = port.into();
        node.force_http = plain;
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_messages::tailnet::derp_map::{Region, region};

    #[test]
    fn only_embedded_relays_move() {
        let region = |embedded| Region {
            embedded_relay: embedded,
            nodes: vec![
                region::Node {
                    host_name: "old".to_owned(),
                    ..Default::default()
                },
                region::Node {
                    host_name: "stun".to_owned(),
                    stun_only: true,
                    ..Default::default()
                },
            ],
            ..Default::default()
        };
        let map = DerpMap {
            regions: [(1, region(true)), (2, region(false))].into(),
            ..Default::default()
        };
        let base = "http://10.0.0.1:3000".parse().expect("a url");
        let map = rewrite(map, &base);
        let hosts = |n: i64| -> Vec<&str> {
            map.regions[&n]
                .nodes
                .iter()
                .map(|n| n.host_name.as_str())
                .collect()
        };
        assert_eq!(hosts(1), ["10.0.0.1", "stun"]);
        assert_eq!(hosts(2), ["old", "stun"]);
        assert_eq!(map.regions[&1].nodes[0].derp_port, 3000);
        assert!(map.regions[&1].nodes[0].force_http);
    }
}
