//! How a server is set up.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

/// Everything an operator can choose.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the database and of local workspaces.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// URL by which agents and clients reach this server. When absent, the
    /// address it listens on.
    pub access_url: Option<Url>,
    /// Host name pattern of subdomain apps (`*.apps.example.com`), or empty.
    pub wildcard_host: String,
    /// Users may rename their workspaces.
    pub allow_workspace_renames: bool,
    /// Length of a session.
    pub session_duration: Duration,
    /// Longest validity of a named token.
    pub max_token_lifetime: Duration,
    /// Requests a minute, user and route; 0 switches the limit off.
    pub rate_limit: u32,
    /// How often agents report statistics.
    pub agent_stats_interval: Duration,
    /// STUN servers as `host:port`.
    pub stun_servers: Vec<String>,
    /// Everything goes through the relay.
    pub block_direct_connections: bool,
    /// Relays are reached over WebSocket.
    pub force_websockets: bool,
    /// DNS suffix of workspace names.
    pub hostname_suffix: String,
    /// Program to run in local workspaces; when absent, `adit-agent` next to
    /// this program.
    pub agent_program: Option<PathBuf>,
    /// How often prebuilt workspaces are checked.
    pub prebuilds_interval: Duration,
    /// Which provisioners this process runs.
    pub provisioners: Provisioners,
    /// Version string to report instead of [`crate::VERSION`].
    pub version: Option<String>,
}

/// Which provisioners a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provisioners {
    /// Local processes.
    Local,
    /// None: jobs wait until someone else takes them through the store.
    None,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("."),
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            access_url: None,
            wildcard_host: String::new(),
            allow_workspace_renames: false,
            session_duration: Duration::from_secs(24 * 3600),
            max_token_lifetime: Duration::from_secs(876_600 * 3600),
            rate_limit: 512,
            agent_stats_interval: Duration::from_secs(30),
            stun_servers: Vec::new(),
            block_direct_connections: false,
            force_websockets: false,
            hostname_suffix: "coder".to_owned(),
            agent_program: None,
            prebuilds_interval: Duration::from_secs(60),
            provisioners: Provisioners::Local,
            version: None,
        }
    }
}
