//! What the agent tells the server.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adit_agent_exec::{ConnectionReporter, ContextProvider, Silent, Tally};

/// Default of [`Config::max_timeout`].
const DEFAULT_MAX_TIMEOUT: Duration = Duration::from_secs(72 * 3600);

/// Settings of a [`Server`](crate::Server).
#[derive(Clone)]
pub struct Config {
    /// Account, environment and directory of commands, asked for each time
    /// one starts.
    pub context: Arc<dyn ContextProvider>,
    /// Told about each session and each JetBrains forward.
    pub reporter: Arc<dyn ConnectionReporter>,
    /// Counts sessions and failures under the names that Coder's agent uses.
    pub tally: Arc<dyn Tally>,
    /// What a login shell on a terminal prints first.
    pub greeting: Arc<dyn Greeting>,
    /// Longest silence of a client. From 3 s on the server asks for a sign of
    /// life every third of it and drops a connection after three unanswered
    /// questions; below, it is the longest life of a connection. `None`
    /// disables both.
    pub max_timeout: Option<Duration>,
    /// Refuse `sftp`, and commands that are `scp`, `rsync`, `nc` or `sftp`.
    pub block_file_transfer: bool,
    /// Refuse forwards that listen in the workspace.
    pub block_reverse_port_forwarding: bool,
    /// Refuse forwards that connect from the workspace.
    pub block_local_port_forwarding: bool,
}

impl Config {
    /// Everything allowed, nothing counted, no greeting, 72 h of silence.
    #[must_use]
    pub fn new(context: Arc<dyn ContextProvider>, reporter: Arc<dyn ConnectionReporter>) -> Self {
        Self {
            context,
            reporter,
            tally: Arc::new(Silent),
            greeting: Arc::new(NoGreeting),
            max_timeout: Some(DEFAULT_MAX_TIMEOUT),
            block_file_transfer: false,
            block_reverse_port_forwarding: false,
            block_local_port_forwarding: false,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("max_timeout", &self.max_timeout)
            .field("block_file_transfer", &self.block_file_transfer)
            .field(
                "block_reverse_port_forwarding",
                &self.block_reverse_port_forwarding,
            )
            .field(
                "block_local_port_forwarding",
                &self.block_local_port_forwarding,
            )
            .finish_non_exhaustive()
    }
}

/// Text for people who open a login shell on a terminal.
pub trait Greeting: Send + Sync + 'static {
    /// Messages of the enabled announcement banners, in order.
    fn banners(&self) -> Vec<String>;

    /// The message of the day: a file, used verbatim. It is not shown to
    /// users with a `~/.hushlogin`; a missing file is silent.
    fn motd_file(&self) -> Option<PathBuf>;
}

/// Prints nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoGreeting;

impl Greeting for NoGreeting {
    fn banners(&self) -> Vec<String> {
        Vec::new()
    }

    fn motd_file(&self) -> Option<PathBuf> {
        None
    }
}
