//! The relay map as JSON, with the key spelling of Tailscale's `DERPMap`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All relay regions a peer may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DerpMap {
    /// Regions by id.
    #[serde(rename = "Regions", deserialize_with = "crate::nullable")]
    pub regions: BTreeMap<i64, DerpRegion>,
    /// Whether the map replaces built-in regions.
    #[serde(rename = "omitDefaultRegions", skip_serializing_if = "crate::is_false")]
    pub omit_default_regions: bool,
    /// Latency scores.
    #[serde(rename = "HomeParams", skip_serializing_if = "Option::is_none")]
    pub home_params: Option<DerpHomeParams>,
}

/// Tuning of the home relay choice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DerpHomeParams {
    /// Latency multiplier by region id.
    #[serde(
        rename = "RegionScore",
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "crate::nullable"
    )]
    pub region_score: BTreeMap<i64, f64>,
}

/// One region: relays that know each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DerpRegion {
    /// The relay runs inside the control plane: clients replace its host and
    /// port by those they reach the control plane at.
    pub embedded_relay: bool,
    /// Id, unique in the map.
    #[serde(rename = "RegionID")]
    pub region_id: i64,
    /// Short name.
    pub region_code: String,
    /// Display name.
    pub region_name: String,
    /// Not to be chosen as home.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub avoid: bool,
    /// Relays in order of preference.
    #[serde(deserialize_with = "crate::nullable")]
    pub nodes: Vec<DerpNode>,
}

/// One relay or STUN server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DerpNode {
    /// Unique name.
    pub name: String,
    /// Region it belongs to.
    #[serde(rename = "RegionID")]
    pub region_id: i64,
    /// Host name or address.
    pub host_name: String,
    /// Expected TLS name when it differs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cert_name: String,
    /// Fixed IPv4 address, or `none`.
    #[serde(rename = "IPv4", skip_serializing_if = "String::is_empty")]
    pub ipv4: String,
    /// Fixed IPv6 address, or `none`.
    #[serde(rename = "IPv6", skip_serializing_if = "String::is_empty")]
    pub ipv6: String,
    /// UDP port of STUN; 0 stands for 3478, -1 for "no STUN".
    #[serde(rename = "STUNPort", skip_serializing_if = "crate::is_zero")]
    pub stun_port: i64,
    /// Answers STUN but relays nothing.
    #[serde(rename = "STUNOnly", skip_serializing_if = "crate::is_false")]
    pub stun_only: bool,
    /// TCP port of the relay; 0 stands for 443.
    #[serde(rename = "DERPPort", skip_serializing_if = "crate::is_zero")]
    pub derp_port: i64,
    /// Skip certificate checks (tests only).
    #[serde(skip_serializing_if = "crate::is_false")]
    pub insecure_for_tests: bool,
    /// Plain HTTP instead of TLS.
    #[serde(rename = "ForceHTTP", skip_serializing_if = "crate::is_false")]
    pub force_http: bool,
    /// Address to answer STUN from (tests only).
    #[serde(rename = "STUNTestIP", skip_serializing_if = "String::is_empty")]
    pub stun_test_ip: String,
    /// Answers captive-portal probes on port 80.
    #[serde(rename = "CanPort80", skip_serializing_if = "crate::is_false")]
    pub can_port80: bool,
}

/// How to reach an agent (`GET /workspaceagents/{agent}/connection`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentConnectionInfo {
    /// Relay map; never `null` from a server.
    pub derp_map: Option<DerpMap>,
    /// Use WebSockets towards relays.
    pub derp_force_websockets: bool,
    /// Relay only.
    pub disable_direct_connections: bool,
    /// DNS suffix of the deployment, without a leading dot.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname_suffix: String,
}
