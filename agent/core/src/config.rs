//! How an agent is set up.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adit_http::{ClientConfig, HeaderName, HeaderValue, TlsOptions, Url};

use crate::backoff::Limits;
use crate::identity::{IdentityError, InstanceIdentity};

/// How the agent proves who it is.
#[derive(Clone)]
pub enum Auth {
    /// A fixed token.
    Token(String),
    /// A file that holds the token. It is read again for each connection and
    /// each command, so that a replaced token takes effect.
    TokenFile(PathBuf),
    /// The cloud's word for which machine this is, exchanged for a token
    /// before each connection.
    Instance(Arc<InstanceIdentity>),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token"),
            Self::TokenFile(path) => f.debug_tuple("TokenFile").field(path).finish(),
            Self::Instance(identity) => f.debug_tuple("Instance").field(identity).finish(),
        }
    }
}

/// There is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// It holds nothing.
    #[error("the token file {} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The identity of the machine was not accepted.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl TokenError {
    /// What can be done about it, in one line.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreadable { .. } | Self::Empty { .. } => {
                "Put the agent's token into the file.".to_owned()
            }
            Self::Identity(error) => error.remedy(),
        }
    }

    /// Whether a new attempt may help without anyone changing something.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreadable { .. } | Self::Empty { .. } => false,
            Self::Identity(error) => error.is_passing(),
        }
    }
}

impl Auth {
    /// The token for a new connection: where it comes from an exchange, that
    /// is made anew, since a new build has another token.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn refreshed(&self) -> Result<String, TokenError> {
        match self {
            Self::Instance(identity) => Ok(identity.exchange().await?),
            _ => self.token(),
        }
    }

    /// The token of this moment. Reads a small file, if any.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn token(&self) -> Result<String, TokenError> {
        match self {
            Self::Token(token) => Ok(token.clone()),
            Self::TokenFile(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| TokenError::Unreadable {
                    path: path.clone(),
                    reason: e.to_string(),
                })?;
                let token = text.trim();
                if token.is_empty() {
                    return Err(TokenError::Empty { path: path.clone() });
                }
                Ok(token.to_owned())
            }
            Self::Instance(identity) => Ok(identity.token()?),
        }
    }
}

/// Everything an agent is told by its command line and environment.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Address of the deployment.
    pub url: Url,
    /// Who this agent is.
    pub auth: Auth,
    /// Sent with every request to the control plane and the relays.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whom to trust, and a certificate of this agent's own.
    pub tls: TlsOptions,
    /// Semantic version with a leading `v`, as reported.
    pub version: String,
    /// What runs around the agent, numbered as on the wire.
    pub subsystems: Vec<i32>,
    /// Directory of script logs.
    pub log_dir: PathBuf,
    /// The agent's own log file, for support bundles.
    pub log_file: PathBuf,
    /// Directory that holds `coder-script-data`.
    pub script_data_dir: PathBuf,
    /// The running program.
    pub executable: PathBuf,
    /// The agent's environment as commands see it.
    pub environment: Vec<(OsString, OsString)>,
    /// Words in front of every command, for its priority.
    pub wrapper: Vec<OsString>,
    /// Longest silence of an SSH client.
    pub ssh_max_timeout: Duration,
    /// UDP port of the tunnel; 0 picks one.
    pub tailnet_port: u16,
    /// Refuse scp, sftp and rsync.
    pub block_file_transfer: bool,
    /// Refuse SSH forwards that listen in the workspace.
    pub block_reverse_port_forwarding: bool,
    /// Refuse SSH forwards that connect from the workspace.
    pub block_local_port_forwarding: bool,
    /// The socket for programs in the workspace.
    pub socket_path: Option<PathBuf>,
    /// Where metrics are served locally.
    pub prometheus_address: Option<SocketAddr>,
    /// Where debug pages are served locally.
    pub debug_address: Option<SocketAddr>,
    /// Dev containers are wanted; this agent only asks for their agents.
    pub devcontainers: bool,
    /// Waits between attempts to reach the control plane.
    pub retry: Limits,
    /// Ports that are not offered as the workspace's.
    pub ignored_ports: Vec<u16>,
}

impl AgentConfig {
    /// A configuration with the defaults of the command line and this
    /// process's environment; local listeners are off.
    #[must_use]
    pub fn new(url: Url, auth: Auth) -> Self {
        let tmp = std::env::temp_dir();
        Self {
            url,
            auth,
            headers: Vec::new(),
            tls: TlsOptions::default(),
            version: adit_rest::WIRE_VERSION.to_owned(),
            subsystems: Vec::new(),
            log_file: tmp.join("coder-agent.log"),
            log_dir: tmp.clone(),
            script_data_dir: tmp,
            executable: std::env::current_exe().unwrap_or_else(|_| "adit-agent".into()),
            environment: adit_agent_exec::EnvLayers::process(),
            wrapper: Vec::new(),
            ssh_max_timeout: Duration::from_secs(72 * 3_600),
            tailnet_port: 0,
            block_file_transfer: false,
            block_reverse_port_forwarding: false,
            block_local_port_forwarding: false,
            socket_path: None,
            prometheus_address: None,
            debug_address: None,
            devcontainers: true,
            retry: Limits::default(),
            ignored_ports: Vec::new(),
        }
    }

    /// A client of the control plane, without a token.
    pub(crate) fn client(&self) -> ClientConfig {
        ClientConfig {
            headers: self.headers.clone(),
            tls: self.tls.clone(),
            user_agent: format!("adit-agent/{}", self.version.trim_start_matches('v')),
            ..ClientConfig::new(self.url.clone())
        }
    }

    /// Where scripts keep their data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.script_data_dir.join("coder-script-data")
    }

    /// A variable of the agent's environment.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<OsString> {
        let found = self.environment.iter().find(|(n, _)| n == name)?;
        Some(found.1.clone())
    }

    /// The account's home directory, or the root.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        adit_agent_exec::User::current().map_or_else(|_| "/".into(), |u| u.home)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let auth = Auth::TokenFile(path.clone());
        assert!(auth.token().is_err());
        std::fs::write(&path, " \n").expect("written");
        assert!(matches!(auth.token(), Err(TokenError::Empty { .. })));
        std::fs::write(&path, "one\n").expect("written");
        assert_eq!(auth.token().ok().as_deref(), Some("one"));
        std::fs::write(&path, "two").expect("written");
        assert_eq!(auth.token().ok().as_deref(), Some("two"));
        assert!(!format!("{:?}", Auth::Token("secret".into())).contains("secret"));
    }
}
