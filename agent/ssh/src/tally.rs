//! What is counted, under the names and labels of Coder's agent.

use adit_agent_exec::{ConnectionKind, Tally};

/// Connections that ended before the client was let in.
pub(crate) fn connection_failed(tally: &dyn Tally) {
    tally.count("agent_ssh_server_failed_connections_total", &[]);
}

pub(crate) fn sftp_begun(tally: &dyn Tally) {
    tally.count("agent_ssh_server_sftp_connections_total", &[]);
}

pub(crate) fn sftp_failed(tally: &dyn Tally) {
    tally.count("agent_ssh_server_sftp_server_errors_total", &[]);
}

/// `what` failed: `hostname`, `listen` or `xauthority`.
pub(crate) fn x11_failed(tally: &dyn Tally, what: &str) {
    tally.count("agent_x11_handler_errors_total", &[("error_type", what)]);
}

/// Where a session can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There is nothing to run a command with.
    Command,
    /// The socket for the client's SSH agent.
    Listener,
    /// The program does not start.
    Start,
    /// How the program ended is not known.
    Wait,
}

impl Failure {
    fn label(self) -> &'static str {
        match self {
            Self::Command => "create_command",
            Self::Listener => "listener",
            Self::Start => "start_command",
            Self::Wait => "wait",
        }
    }
}

/// One session that runs a program.
#[derive(Clone, Copy)]
pub(crate) struct SessionTally<'a> {
    pub(crate) tally: &'a dyn Tally,
    pub(crate) kind: ConnectionKind,
    pub(crate) pty: bool,
}

impl SessionTally<'_> {
    pub(crate) fn begun(&self) {
        self.tally.count("agent_sessions_total", &self.labels());
    }

    pub(crate) fn failed(&self, failure: Failure) {
        let [kind, pty] = self.labels();
        let labels = [kind, pty, ("error_type", failure.label())];
        self.tally.count("agent_sessions_errors_total", &labels);
    }

    fn labels(&self) -> [(&'static str, &'static str); 2] {
        let kind = match self.kind {
            ConnectionKind::Ssh => "ssh",
            ConnectionKind::VsCode => "vscode",
            ConnectionKind::JetBrains => "jetbrains",
            ConnectionKind::Unspecified | ConnectionKind::ReconnectingPty => "unknown",
        };
        let pty = if self.pty { "yes" } else { "no" };
        [("magic_type", kind), ("pty", pty)]
    }
}
