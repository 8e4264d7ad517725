//! A session channel: from its first request to its exit status.
//!
//! ```text
//! open ─▶ Slot (collects env, pty-req, x11-req; answers each)
//!            │ shell | exec | subsystem sftp
//!            ▼
//!         Setup::run ─▶ Outcome ─▶ exit-status, EOF, close, report
//! ```

mod banner;
mod outcome;
mod program;
mod slot;

use std::sync::Arc;

use adit_agent_exec::{ConnectionKind, Invocation, ReportGuard};
use bytes::Bytes;

use crate::agent_forward::AgentSocket;
use crate::connection::Connection;
use crate::tally::{self, Failure, SessionTally};
use crate::{sftp, x11};
use outcome::Outcome;
use program::{Mode, Program};
pub(crate) use slot::{PtyRequest, Setup, Slot, X11Request};

/// Written to a command that file transfer blocking refuses.
const BLOCKED_TEXT: &[u8] = b"\x02File transfer has been disabled.\n";
/// Programs that file transfer blocking refuses. A hint, not a boundary.
const BLOCKED_PROGRAMS: [&str; 4] = ["nc", "rsync", "scp", "sftp"];

/// What the client asked to be started.
#[derive(Debug)]
pub(crate) enum Start {
    Shell,
    Exec(Bytes),
    Sftp,
}

impl Setup {
    /// Runs the session to its end.
    pub(crate) async fn run(mut self, conn: Arc<Connection>, start: Start) {
        let kind = self.take_kind();
        // JetBrains opens hundreds of sessions; its forwards count instead.
        let counts = kind != ConnectionKind::JetBrains;
        let _count = counts.then(|| conn.server.count(kind));
        let report = counts.then(|| {
            let reporter = Arc::clone(&conn.server.config.reporter);
            ReportGuard::begin(reporter, kind, &conn.peer_ip, 1, "server_shutdown")
        });
        let outcome = self.drive(&conn, kind, start).await;
        let outcome = match outcome {
            Outcome::Gone if conn.server.closing.is_cancelled() => Outcome::ServerClosing,
            other => other,
        };
        if let Some(report) = report {
            let (code, reason) = outcome.report();
            report.finish(code, reason);
        }
        self.io.finish(outcome.exit_status());
    }

    async fn drive(
        &mut self,
        conn: &Arc<Connection>,
        kind: ConnectionKind,
        start: Start,
    ) -> Outcome {
        let command = match start {
            Start::Sftp => return self.drive_sftp(conn).await,
            Start::Shell => Bytes::new(),
            Start::Exec(command) => command,
        };
        let tally = SessionTally {
            tally: &*conn.server.config.tally,
            kind,
            pty: self.pty.is_some(),
        };
        match self.drive_program(conn, &tally, &command).await {
            Ok(outcome) => outcome,
            Err((failure, text)) => {
                tally.failed(failure);
                Outcome::Failed(text)
            }
        }
    }

    async fn drive_sftp(&mut self, conn: &Arc<Connection>) -> Outcome {
        let config = &conn.server.config;
        if config.block_file_transfer {
            return Outcome::Blocked;
        }
        let context = match config.context.context() {
            Ok(context) => context,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let dir = context.working_dir().to_owned();
        let home = context.user.home;
        tally::sftp_begun(&*config.tally);
        tokio::select! {
            biased;
            () = self.io.cut() => Outcome::Gone,
            done = sftp::serve(&self.io, dir, home) => match done {
                Ok(()) => Outcome::SftpDone,
                Err(_) if self.io.is_closed() => Outcome::Gone,
                Err(error) => {
                    tally::sftp_failed(&*config.tally);
                    Outcome::SftpFailed(error.to_string())
                }
            },
        }
    }

    /// Fails if no program can be run.
    async fn drive_program(
        &mut self,
        conn: &Arc<Connection>,
        tally: &SessionTally<'_>,
        command: &[u8],
    ) -> Result<Outcome, (Failure, String)> {
        let config = &conn.server.config;
        if config.block_file_transfer && moves_files(command) {
            let _ = self.io.send(Bytes::from_static(BLOCKED_TEXT)).await;
            return Ok(Outcome::Blocked);
        }
        let context = config.context.context();
        let context = context.map_err(|error| (Failure::Command, error.to_string()))?;
        let display = match &self.x11 {
            None => None,
            Some(request) => match x11::open_display(conn, request, &context.user.home).await {
                Ok(display) => Some(display),
                Err(error) => {
                    tracing::warn!(%error, "X11 forwarding");
                    tally::x11_failed(tally.tally, error.label());
                    return Ok(Outcome::X11Failed);
                }
            },
        };
        let agent = match conn.agent_offered().then(|| AgentSocket::open(conn)) {
            None => None,
            Some(Ok(agent)) => Some(agent),
            Some(Err(error)) => {
                return Err((Failure::Listener, format!("forward agent: {error}")));
            }
        };
        let mut env = context.environment(&self.env, display.as_ref().map(x11::Display::name));
        if let Some(agent) = &agent {
            env.set("SSH_AUTH_SOCK", agent.path());
        }
        if let Some(pty) = &self.pty {
            env.set("TERM", &pty.term);
            if command.is_empty()
                && banner::write(&self.io, &*config.greeting, &context.user.home)
                    .await
                    .is_err()
            {
                return Ok(Outcome::Gone);
            }
        }
        let command = context.command(&Invocation::Script(command), env);
        let mode = match &self.pty {
            None => Mode::Pipes,
            Some(pty) => Mode::Terminal(pty.modes.clone(), *self.size.borrow_and_update()),
        };
        let mut program = match Program::start(&command, mode) {
            Ok(program) => program,
            Err(error) => {
                tracing::warn!(%error, "start program");
                return Err((Failure::Start, error.to_string()));
            }
        };
        tally.begun();
        let evicted = async {
            match &display {
                Some(display) => display.evicted().await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            () = self.io.closed() => Outcome::Gone,
            () = evicted => Outcome::Gone,
            outcome = program.drive(&self.io, &mut self.signals, &mut self.size) => outcome,
        };
        program.leave(&conn.server);
        if matches!(outcome, Outcome::Failed(_)) {
            tally.failed(Failure::Wait);
        }
        Ok(outcome)
    }
}

/// True if the first word of `command` is a program that moves files.
fn moves_files(command: &[u8]) -> bool {
    let words = adit_agent_exec::argv::split_words(command).unwrap_or_default();
    let Some(first) = words.first() else {
        return false;
    };
    let name = std::path::Path::new(first).file_name();
    BLOCKED_PROGRAMS.iter().any(|p| name == Some(p.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_moving_programs_are_recognised() {
        for command in ["scp -t .", "/usr/bin/rsync --server", "'nc' 1 2", " sftp"] {
            assert!(moves_files(command.as_bytes()), "{command}");
        }
        for command in ["", "echo scp", "scpx", "'unfinished scp"] {
            assert!(!moves_files(command.as_bytes()), "{command}");
        }
    }
}
