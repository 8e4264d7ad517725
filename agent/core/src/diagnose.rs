//! Turning failures of the control connection into one line that helps.

use adit_http::{Error, ErrorKind, StatusCode};

/// Why a control session could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no token.
    #[error(transparent)]
    Token(#[from] crate::config::TokenError),
    /// The connection could not be opened.
    #[error(transparent)]
    Dial(#[from] Error),
    /// A call failed that the session cannot do without.
    #[error("{call}: {source}")]
    Call {
        /// Which call.
        call: &'static str,
        /// Why.
        source: adit_rpc::Error,
    },
    /// The control plane sent something unusable.
    #[error(transparent)]
    Manifest(#[from] crate::manifest::ManifestError),
    /// The control plane closed the session.
    #[error("the control plane closed the session")]
    Closed,
    /// A stream that should stay open ended.
    #[error("the control plane ended {0}")]
    StreamEnded(&'static str),
    /// The tunnel could not be set up.
    #[error("the tunnel: {0}")]
    Tunnel(#[from] adit_engine::Error),
}

impl SessionError {
    /// What can be done about it, in one line.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Token(error) => error.remedy(),
            Self::Dial(error) => dial_remedy(error),
            Self::Call { source, .. } if is_outdated(source) => OUTDATED.to_owned(),
            _ => "The agent connects again by itself.".to_owned(),
        }
    }

    /// Whether a new attempt may help without anyone changing something.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Token(error) => error.is_passing(),
            Self::Dial(error) => error.is_retryable(),
            Self::Call { source, .. } => !is_outdated(source),
            _ => true,
        }
    }
}

const OUTDATED: &str = "The workspace has a newer build, so this agent is outdated: nothing needs to be done if the workspace is being stopped or restarted, else restart it.";

fn dial_remedy(error: &Error) -> String {
    match (error.kind(), error.status()) {
        (ErrorKind::Html { .. } | ErrorKind::UnsupportedVersion { .. }, _) => error.remedy(),
        (_, Some(StatusCode::UNAUTHORIZED)) => "The token does not belong to a running build of this workspace: restart the workspace, or check CODER_AGENT_TOKEN and CODER_AGENT_URL.".to_owned(),
        (_, Some(StatusCode::FORBIDDEN)) => "Something between this workspace and the control plane forbids the connection: check proxies and CODER_AGENT_URL.".to_owned(),
        _ => error.remedy(),
    }
}

/// A control plane that has replaced this agent fails its calls with a
/// database error before it closes the session.
fn is_outdated(error: &adit_rpc::Error) -> bool {
    error.status().is_some_and(|s| {
        s.message.contains("no rows in result set") || s.message.contains("build is outdated")
    })
}

/// Logs failures: each new one with its remedy, repeats quietly.
#[derive(Debug, Default)]
pub struct Told {
    last: String,
}

impl Told {
    /// Logs one failure and how long the agent waits now.
    pub fn tell(&mut self, error: &SessionError, wait: std::time::Duration) {
        let line = error.to_string();
        let retry_ms = wait.as_millis();
        if line == self.last {
            tracing::debug!(retry_ms, "{line}");
            return;
        }
        if error.is_passing() {
            tracing::info!(retry_ms, "{line} {}", error.remedy());
        } else {
            tracing::warn!(retry_ms, "{line} {}", error.remedy());
        }
        self.last = line;
    }

    /// A session is up: the next failure is news again.
    pub fn reset(&mut self) {
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outdated_build_is_recognised() {
        let error = SessionError::Call {
            call: "BatchCreateLogs",
            source: adit_rpc::Status::new(
                "get workspace agent by id \"x\": sql: no rows in result set",
            )
            .into(),
        };
        assert!(!error.is_passing());
        assert!(error.remedy().contains("newer build"));
        let error = SessionError::Closed;
        assert!(error.is_passing());
        assert!(!error.remedy().is_empty());
    }
}
