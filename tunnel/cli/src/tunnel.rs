//! The tunnel to one agent.

use std::{net::Ipv6Addr, time::Duration};

use adit_coord::{AgentConn, DialError, DialOptions};
use adit_engine::{Node, PeerStatus, TcpStream};
use adit_rest::AgentConnectionInfo;
use anyhow::{Context as _, Result, bail};
use uuid::Uuid;

use crate::{api::Api, settings::Settings};

/// After this long without an answer, say what is being waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for an agent that the control plane calls connected.
const LIMIT: Duration = Duration::from_secs(60);

/// An agent within reach. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tunnel {
    conn: AgentConn,
}

impl Tunnel {
    /// Joins the mesh and waits until the agent answers.
    pub(crate) async fn open(settings: &Settings, api: &Api, agent: Uuid) -> Result<Self> {
        let dial = adit_coord::dial_agent(api.http(), agent, options(settings));
        Ok(Self {
            conn: patiently(dial).await?,
        })
    }

    /// Joins the mesh and connects to a port of the agent, in the least time.
    /// `info` is what the server has just said about connections, if it was
    /// asked.
    pub(crate) async fn open_to(
        settings: &Settings,
        api: &Api,
        agent: Uuid,
        port: u16,
        info: Option<AgentConnectionInfo>,
    ) -> Result<(Self, TcpStream)> {
        let options = DialOptions {
            info,
            ..options(settings)
        };
        let dial = adit_coord::dial_agent_port(api.http(), agent, port, options);
        let (conn, stream) = patiently(dial).await?;
        Ok((Self { conn }, stream))
    }

    /// This machine's node in the mesh.
    pub(crate) fn node(&self) -> &Node {
        self.conn.node()
    }

    /// Address of the agent in the tunnel.
    pub(crate) fn ip(&self) -> Ipv6Addr {
        self.conn.agent_ip()
    }

    /// Connects to a port of the agent.
    pub(crate) async fn dial(&self, port: u16) -> Result<TcpStream> {
        self.conn
            .dial(port)
            .await
            .with_context(|| format!("connect to port {port} of the agent"))
    }

    /// The agent as this machine's node sees it.
    pub(crate) async fn peer_status(&self) -> Option<PeerStatus> {
        self.conn.status().await
    }

    /// Name of a relay region.
    pub(crate) fn region_name(&self, region: u32) -> String {
        self.conn.region_name(region)
    }

    /// Leaves the mesh.
    pub(crate) async fn close(&self) {
        self.conn.close().await;
    }
}

fn options(settings: &Settings) -> DialOptions {
    DialOptions {
        block_endpoints: settings.relay_only(),
        ready_timeout: LIMIT,
        ..DialOptions::default()
    }
}

/// Says what is being waited for when that takes long.
async fn patiently<T>(dial: impl Future<Output = Result<T, DialError>>) -> Result<T> {
    tokio::pin!(dial);
    let dialled = match tokio::time::timeout(PATIENCE, &mut dial).await {
        Ok(dialled) => dialled,
        Err(_) => {
            eprintln!("adit: no answer from the workspace yet; still trying (Ctrl-C gives up)");
            dial.await
        }
    };
    match dialled {
        Ok(dialled) => Ok(dialled),
        // These carry what the control plane said, and a remedy for it.
        Err(DialError::Info(error) | DialError::Coordinate(error)) => {
            Err(error).context("connect to the agent")
        }
        Err(error) => {
            let remedy = error.remedy();
            bail!("{error}. {remedy}")
        }
    }
}

/// A node without a peer, to look at the network with.
pub(crate) async fn bare_node(api: &Api, info: &AgentConnectionInfo) -> Result<Node> {
    adit_coord::bare_node(api.http(), info)
        .await
        .context("start a node to measure with")
}
