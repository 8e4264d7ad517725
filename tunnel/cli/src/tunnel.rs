//! The tunnel to one agent.

use std::net::Ipv6Addr;

use adit_engine::{Node, PeerStatus, TcpStream};
use adit_rest::AgentConnectionInfo;
use anyhow::{Result, bail};
use uuid::Uuid;

use crate::{api::Api, settings::Settings};

/// An agent within reach. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tunnel {
    node: Node,
    ip: Ipv6Addr,
}

impl Tunnel {
    pub(crate) async fn open(_settings: &Settings, _api: &Api, _agent: Uuid) -> Result<Self> {
        bail!("stub")
    }
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }
    pub(crate) fn ip(&self) -> Ipv6Addr {
        self.ip
    }
    pub(crate) async fn dial(&self, _port: u16) -> Result<TcpStream> {
        bail!("stub")
    }
    pub(crate) async fn close(&self) {}
    pub(crate) async fn peer_status(&self) -> Option<PeerStatus> {
        None
    }
    pub(crate) fn region_name(&self, region: u32) -> String {
        region.to_string()
    }
}

pub(crate) async fn bare_node(
    _settings: &Settings,
    _api: &Api,
    _info: &AgentConnectionInfo,
) -> Result<Node> {
    bail!("stub")
}
