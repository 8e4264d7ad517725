//! How a session ended, and what the client and the control plane hear of it.

use adit_agent_exec::ExitStatus;

/// Exit status for failures that are the agent's, not the command's.
const AGENT_FAILURE: u32 = 229;
/// Exit status of a blocked file transfer.
const BLOCKED: u32 = 65;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The program ended.
    Exited(ExitStatus),
    /// No program could be run.
    Failed(String),
    /// File transfer is switched off.
    Blocked,
    /// X11 forwarding was asked for and cannot be had.
    X11Failed,
    /// The SFTP client ended properly.
    SftpDone,
    /// The SFTP stream broke.
    SftpFailed(String),
    /// The client closed the channel or left.
    Gone,
    /// The server is being closed.
    ServerClosing,
}

impl Outcome {
    /// What the client is told; nothing if it has left or must see that the
    /// connection broke.
    pub(crate) fn exit_status(&self) -> Option<u32> {
        match self {
            Self::Exited(status) => Some(status.report_code()),
            Self::Failed(_) => Some(AGENT_FAILURE),
            Self::Blocked => Some(BLOCKED),
            Self::X11Failed | Self::SftpFailed(_) => Some(1),
            Self::SftpDone => Some(0),
            Self::Gone | Self::ServerClosing => None,
        }
    }

    /// Code and reason for the connection report.
    pub(crate) fn report(&self) -> (i32, String) {
        let code = self
            .exit_status()
            .map_or(1, |status| i32::try_from(status).unwrap_or(1));
        let reason = match self {
            Self::Exited(_) if code == 0 => "graceful".into(),
            Self::Exited(_) => format!("process exited with error status: {code}"),
            Self::Failed(text) | Self::SftpFailed(text) => text.clone(),
            Self::Blocked => "file transfer blocked".into(),
            Self::X11Failed => "x11 handler failed".into(),
            Self::SftpDone => String::new(),
            Self::Gone => "client_closed".into(),
            Self::ServerClosing => "server_shutdown".into(),
        };
        (code, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_reports_hear_the_same() {
        for (outcome, status, reason) in [
            (Outcome::Exited(ExitStatus::Code(0)), Some(0), "graceful"),
            (
                Outcome::Exited(ExitStatus::Code(5)),
                Some(5),
                "process exited with error status: 5",
            ),
            (
                Outcome::Exited(ExitStatus::Signal(9)),
                Some(255),
                "process exited with error status: 255",
            ),
            (
                Outcome::Failed("no manifest".into()),
                Some(229),
                "no manifest",
            ),
            (Outcome::Blocked, Some(65), "file transfer blocked"),
            (Outcome::SftpDone, Some(0), ""),
            (Outcome::Gone, None, "client_closed"),
        ] {
            assert_eq!(outcome.exit_status(), status);
            let (code, text) = outcome.report();
            assert_eq!(text, reason);
            assert_eq!(code, status.map_or(1, u32::cast_signed));
        }
    }
}
