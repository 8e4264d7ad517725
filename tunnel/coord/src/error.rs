//! Why an agent could not be reached.

use std::time::Duration;

/// A failed dial. The display is one line; [`remedy`](Self::remedy) says what
/// would help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The server does not say how to connect to the agent.
    #[error("cannot get the agent's connection details: {0}")]
    Info(#[source] adit_http::Error),
    /// The server refuses the coordination session.
    #[error("cannot coordinate with the agent: {0}")]
    Coordinate(#[source] adit_http::Error),
    /// The local node failed.
    #[error("cannot start the tunnel: {0}")]
    Node(#[source] adit_engine::Error),
    /// The agent answers, but not on that port.
    #[error("connect to port {port} of the agent: {error}")]
    Port {
        /// The port dialed.
        port: u16,
        /// What the tunnel says.
        #[source]
        error: adit_engine::Error,
    },
    /// The agent did not answer in time.
    #[error("the agent did not answer within {} s: {why}", waited.as_secs())]
    Unreachable {
        /// How long was waited.
        waited: Duration,
        /// What is known about the reason.
        why: Unreachable,
    },
}

/// What keeps an agent out of reach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// The coordinator itself is out of reach.
    #[error("no coordination session{}", .0.as_ref().map(|e| format!(" ({e})")).unwrap_or_default())]
    NoCoordinator(Option<String>),
    /// The server's relay map has no relay.
    #[error("the server offers no relay")]
    NoRelayMap,
    /// No relay can be reached from here.
    #[error("no relay connection ({0})")]
    NoRelay(String),
    /// The coordinator does not know the agent (yet).
    #[error("the agent is not connected to the server")]
    AgentUnknown,
    /// Everything is set up, and no packet comes back.
    #[error("it is connected to the server, but nothing comes back through the tunnel")]
    Silent,
}

impl DialError {
    /// What to do about it, for people.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Info(error) | Self::Coordinate(error) => error.remedy(),
            Self::Node(_) => "Check that this machine may open UDP sockets.".into(),
            Self::Port { .. } => "Restart the workspace: its agent is not as it should be.".into(),
            Self::Unreachable { why, .. } => why.remedy().into(),
        }
    }
}

impl Unreachable {
    fn remedy(&self) -> &'static str {
        match self {
            Self::NoCoordinator(_) => {
                "Check that the server is up and WebSockets pass any proxy in between."
            }
            Self::NoRelayMap => "Ask an administrator to enable the server's relay.",
            Self::NoRelay(_) => "Check that the relay's URL can be reached from this machine.",
            Self::AgentUnknown => "Check that the workspace is running and its agent is connected.",
            Self::Silent => {
                "Check that the agent's machine reaches the server's relay, and look at the agent's log."
            }
        }
    }
}
