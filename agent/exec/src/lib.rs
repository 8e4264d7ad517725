//! Processes of a workspace: who runs them, with which environment, on which
//! terminal, and how they end.
//!
//! | Module | Job |
//! |---|---|
//! | [`user`] | the account the agent runs as, its home and its shell |
//! | [`env`] | the environment of a command, merged from its sources |
//! | [`context`] | what a command inherits from the agent at this moment |
//! | [`argv`] | from command text to an argument vector |
//! | [`command`] | starting a process on pipes or on a terminal |
//! | [`pty`], [`modes`] | pseudo terminals and SSH terminal modes |
//! | [`report`] | telling the control plane who is connected, and counting |
//!
//! Everything here is Unix; a process always leads its own session.

pub mod argv;
pub mod command;
pub mod context;
pub mod env;
pub mod modes;
pub mod pty;
pub mod report;
mod sys;
pub mod user;

pub use argv::{Invocation, shell_argv};
pub use command::{Child, Command, ExitStatus, PipedChild, PtyChild, Signal, SpawnError};
pub use context::{CommandContext, ContextError, ContextProvider, StaticContext};
pub use env::{EnvLayers, Environment};
pub use modes::TerminalModes;
pub use pty::{Pty, PtyReader, PtyWriter, WindowSize};
pub use report::{ConnectionKind, ConnectionReporter, ReportGuard, Silent, Tally};
pub use user::{User, UserError, expand_directory, expand_variables};
