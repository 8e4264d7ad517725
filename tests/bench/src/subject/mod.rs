//! What is measured: a whole deployment in two namespaces, of this product or
//! of a real Coder.

mod adit;
mod coder;
mod database;
mod state;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    net::Net,
    run::{self, Finished, Output},
};

pub(crate) use adit::Adit;
pub(crate) use coder::{Coder, RealCoder};
pub(crate) use state::AgentState;

/// Whose figures they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Adit,
    Coder,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adit => "Adit",
            Self::Coder => "Coder",
        })
    }
}

/// Name of the workspace in every deployment.
pub(crate) const WORKSPACE: &str = "dev";

/// How long a state may take to come about.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a command that moves little may take.
pub(crate) const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A control plane with one running workspace in the far namespace, and a
/// client that is logged in to it in the near one.
pub(crate) trait Deployment: fmt::Debug {
    fn subject(&self) -> Subject;
    /// Process id of the server.
    fn server(&self) -> i32;
    /// Process id of the workspace's agent.
    fn agent(&self) -> Result<i32>;
    /// A command of the client.
    fn client(&self, args: &[&str]) -> Command;
    /// The client's command line, for use in a shell.
    fn client_line(&self) -> String;
    /// Kills the server at once, and nothing else.
    fn kill_server(&mut self) -> Result<()>;
    /// Starts the server again, at the same address with the same data.
    fn start_server(&mut self, net: &Net) -> Result<()>;
    /// Ends the agent, starts a new one after a new build, and returns when
    /// that was started, as time since 1970.
    fn restart_agent(&mut self, net: &Net) -> Result<Duration>;
    /// Where its logs are.
    fn logs(&self) -> Vec<PathBuf>;
}

impl dyn Deployment + '_ {
    /// Runs a command of the client in the near namespace.
    pub(crate) fn run(
        &self,
        net: &Net,
        args: &[&str],
        output: Output,
        limit: Duration,
    ) -> Result<Finished> {
        let mut command = self.client(args);
        command.stdin(Stdio::null());
        run::run(&net.near, &mut command, output, limit)
            .and_then(Finished::ok)
            .with_context(|| format!("{} {}", self.subject(), args.join(" ")))
    }

    /// A workspace's agent as the server shows it.
    pub(crate) fn state(&self, net: &Net, workspace: &str) -> Result<AgentState> {
        let args = ["list", "--output", "json"];
        let listed = self.run(net, &args, Output::Keep, COMMAND_LIMIT)?;
        let listed: Value = serde_json::from_slice(&listed.stdout).context("list of workspaces")?;
        AgentState::of_list(&listed, workspace)
    }

    /// Waits until the agent has been ready since `after`, which is time since
    /// 1970, and returns its state.
    pub(crate) fn ready(&self, net: &Net, after: Duration) -> Result<AgentState> {
        until("the agent to be ready", || {
            let state = self.state(net, WORKSPACE)?;
            if state.lifecycle == "ready"
                && state.status == "connected"
                && state.ready_at.is_some_and(|at| at >= after)
            {
                Ok(state)
            } else {
                bail!("{state:?}")
            }
        })
    }
}

/// Polls until `look` succeeds.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("waited {PATIENCE:?} for {what}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Drops the database that the process `of` may have left behind.
pub(crate) fn drop_database(of: u32) {
    if let Ok(admin) = std::env::var(database::ADDRESS) {
        database::Database::drop_of(&admin, of);
    }
}

/// A word for a shell.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A command that has nothing of the caller's environment but what programs
/// need to run.
fn plain_command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home);
    for name in ["PATH", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
