//! What the network looks like from the workspace.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use adit_engine::{NetReport, Node};
use http::StatusCode;
use serde_json::{Value, json};

use super::Reply;

/// An interface below this many bytes per packet cuts tunnel packets.
const SMALLEST_MTU: u32 = 1_378;

pub(super) async fn answer(node: Option<&Node>) -> Reply {
    let report = match node {
        Some(node) => Some(node.net_report().await),
        None => None,
    };
    let interfaces = tokio::task::spawn_blocking(interfaces)
        .await
        .unwrap_or_default();
    super::reply::json(StatusCode::OK, &page(report.as_ref(), &interfaces))
}

#[derive(Debug, Default)]
struct Interface {
    mtu: u32,
    addresses: Vec<String>,
}

fn page(report: Option<&NetReport>, interfaces: &BTreeMap<String, Interface>) -> Value {
    let list: Vec<Value> = interfaces
        .iter()
        .map(|(name, i)| json!({"name": name, "mtu": i.mtu, "addresses": i.addresses}))
        .collect();
    let small: Vec<Value> = interfaces
        .iter()
        .filter(|(_, i)| (1..SMALLEST_MTU).contains(&i.mtu))
        .map(|(name, i)| {
            json!({
                "code": "EIF01",
                "message": format!("Network interface {name} has MTU {}, less than {SMALLEST_MTU}: direct connections may lose packets.", i.mtu),
            })
        })
        .collect();
    let (severity, warnings) = if small.is_empty() {
        ("ok", Value::Null)
    } else {
        ("warning", Value::Array(small))
    };
    json!({
        "severity": severity,
        "warnings": null,
        "dismissed": false,
        "net_info": report.filter(|r| r.home_region != 0).map(net_info),
        "interfaces": {
            "severity": severity,
            "warnings": warnings,
            "dismissed": false,
            "interfaces": list,
        },
    })
}

fn net_info(report: &NetReport) -> Value {
    let latencies: BTreeMap<String, f64> = report
        .latencies
        .iter()
        .map(|(region, l)| (format!("{region}-v4"), l.as_secs_f64()))
        .collect();
    json!({
        "MappingVariesByDestIP": report.udp.then_some(report.mapping_varies),
        "HairPinning": null,
        "WorkingIPv6": report.endpoints.iter().any(|e| e.is_ipv6()),
        "OSHasIPv6": std::path::Path::new("/proc/net/if_inet6").exists(),
        "WorkingUDP": report.udp,
        "WorkingICMPv4": false,
        "UPnP": false,
        "PMP": false,
        "PCP": false,
        "PreferredDERP": report.home_region,
        "DERPLatency": latencies,
    })
}

/// Interfaces that are up and have an address beyond link-local ones.
fn interfaces() -> BTreeMap<String, Interface> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    let mut useful = Vec::new();
    let Ok(all) = nix::ifaddrs::getifaddrs() else {
        return found;
    };
    for entry in all {
        if !entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP) {
            continue;
        }
        let Some(ip) = entry.address.as_ref().and_then(ip_of) else {
            continue;
        };
        let bits = entry
            .netmask
            .as_ref()
            .and_then(ip_of)
            .map_or(0, prefix_length);
        let link_local = match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if !link_local {
            useful.push(entry.interface_name.clone());
        }
        let mtu = mtu_of(&entry.interface_name);
        let slot = found.entry(entry.interface_name).or_default();
        slot.mtu = mtu;
        slot.addresses.push(format!("{ip}/{bits}"));
    }
    found.retain(|name, _| useful.contains(name));
    found
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address
        .as_sockaddr_in6()
        .map(|v6| IpAddr::V6(Ipv6Addr::from(v6.ip().octets())))
}

fn prefix_length(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(v4) => v4.to_bits().leading_ones(),
        IpAddr::V6(v6) => v6.to_bits().leading_ones(),
    }
}

fn mtu_of(name: &str) -> u32 {
    let path = format!("/sys/class/net/{name}/mtu");
    std::fs::read_to_string(path)
        .ok()
        .and_then(|t| t.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_mtu_is_a_warning() {
        let mut found = BTreeMap::new();
        found.insert(
            "wg0".to_owned(),
            Interface {
                mtu: 1_280,
                addresses: vec!["10.0.0.1/24".to_owned()],
            },
        );
        let page = page(None, &found);
        assert_eq!(page["severity"], "warning");
        assert_eq!(page["net_info"], Value::Null);
        assert_eq!(page["interfaces"]["interfaces"][0]["mtu"], 1_280);
    }
}
