//! What a command inherits from the agent at the moment it starts.
//!
//! The agent's control session owns this knowledge (it changes with every
//! manifest); SSH sessions, terminals and scripts ask for it through
//! [`ContextProvider`] each time they start a command.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::argv::{Invocation, shell_argv};
use crate::command::Command;
use crate::env::{EnvLayers, Environment};
use crate::user::{User, UserError};

/// Source of [`CommandContext`]s. Called for every new command; must not
/// block.
pub trait ContextProvider: Send + Sync + 'static {
    /// The context of this moment.
    ///
    /// # Errors
    /// [`ContextError::NoManifest`] before the workspace is known.
    fn context(&self) -> Result<CommandContext, ContextError>;
}

/// Why no command can be started.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContextError {
    /// The control plane has not described the workspace yet.
    #[error("no manifest")]
    NoManifest,
    /// The account of this process is unknown.
    #[error(transparent)]
    User(#[from] UserError),
}

/// Everything a command takes from the agent.
#[derive(Debug, Clone)]
pub struct CommandContext {
    /// The account commands run as.
    pub user: User,
    /// The agent's share of the environment.
    pub layers: EnvLayers,
    /// Configured working directory, already expanded. Used if it is a
    /// directory, else home.
    pub directory: Option<PathBuf>,
    /// Words placed in front of every command (process priority wrapper);
    /// normally empty.
    pub wrapper: Vec<OsString>,
}

impl CommandContext {
    /// The working directory of commands: the configured one if it exists,
    /// else home. It is never created.
    #[must_use]
    pub fn working_dir(&self) -> &Path {
        match &self.directory {
            Some(dir) if dir.is_dir() => dir,
            _ => &self.user.home,
        }
    }

    /// The environment of a command; see [`EnvLayers::build`].
    #[must_use]
    pub fn environment(
        &self,
        client: &[(OsString, OsString)],
        display: Option<&str>,
    ) -> Environment {
        self.layers.build(&self.user, client, display)
    }

    /// A command ready to be started: the user's shell with `invocation`, in
    /// the working directory, with `env`.
    #[must_use]
    pub fn command(&self, invocation: &Invocation<'_>, env: Environment) -> Command {
        let mut argv = self.wrapper.clone();
        argv.extend(shell_argv(&self.user.shell, invocation));
        Command::new(argv, env, self.working_dir())
    }
}

/// A provider whose answer never changes: for tests and small tools.
#[derive(Debug, Clone)]
pub struct StaticContext(pub Result<CommandContext, ContextError>);

impl StaticContext {
    /// This process's account and environment, home as working directory.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self(
            User::current()
                .map_err(ContextError::from)
                .map(|user| CommandContext {
                    user,
                    layers: EnvLayers {
                        process: EnvLayers::process(),
                        ..EnvLayers::default()
                    },
                    directory: None,
                    wrapper: Vec::new(),
                }),
        )
    }
}

impl ContextProvider for StaticContext {
    fn context(&self) -> Result<CommandContext, ContextError> {
        self.0.clone()
    }
}
