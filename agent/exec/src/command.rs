//! Starting, signalling and waiting for processes.
//!
//! A process leads its own session, so its process group is its process id.
//! It can only be signalled while it has not been reaped, and only
//! [`Child::wait`] reaps, so a signal never reaches a recycled id.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{kill, killpg};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use crate::env::Environment;
use crate::modes::TerminalModes;
use crate::pty::{Pty, WindowSize};
use crate::sys;

pub use nix::sys::signal::Signal;

/// How long a killed process may take to be reaped. SIGKILL works at once
/// unless the process hangs in the kernel.
const REAP_DEADLINE: Duration = Duration::from_secs(2);

/// Why a process could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The argument vector is empty.
    #[error("no program given")]
    Empty,
    /// The working directory cannot be entered.
    #[error("working directory {}: {source}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No terminal could be opened.
    #[error("open a terminal: {0}")]
    Terminal(#[source] io::Error),
    /// The program cannot be executed.
    #[error("start {}: {source}", program.to_string_lossy())]
    Start {
        /// The program.
        program: OsString,
        /// What the system said.
        source: io::Error,
    },
}

/// A process to be started.
#[derive(Debug, Clone)]
pub struct Command {
    argv: Vec<OsString>,
    env: Environment,
    dir: PathBuf,
}

impl Command {
    /// `argv[0]` is searched for on the environment's `PATH` if it has no
    /// slash. Nothing but `env` is inherited.
    #[must_use]
    pub fn new(argv: Vec<OsString>, env: Environment, dir: impl Into<PathBuf>) -> Self {
        Self {
            argv,
            env,
            dir: dir.into(),
        }
    }

    /// The argument vector.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// The environment, for additions.
    pub fn env_mut(&mut self) -> &mut Environment {
        &mut self.env
    }

    /// The working directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts it with three pipes. The process is not killed when the
    /// [`PipedChild`] is dropped; it is still reaped.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub fn spawn_piped(&self) -> Result<PipedChild, SpawnError> {
        let mut command = self.prepare(false)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.start(command)?;
        Ok(PipedChild {
            stdin: child.inner.stdin.take(),
            stdout: child.inner.stdout.take(),
            stderr: child.inner.stderr.take(),
            child,
        })
    }

    /// Starts it on a new terminal of the given size. `SSH_TTY` is set if
    /// `announce_tty`. The process is killed when the [`PtyChild`] is dropped.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub fn spawn_pty(
        &self,
        size: WindowSize,
        modes: &TerminalModes,
        announce_tty: bool,
    ) -> Result<PtyChild, SpawnError> {
        let (pty, slave) = Pty::open(size, modes).map_err(SpawnError::Terminal)?;
        let mut command = self.prepare(true)?;
        if announce_tty {
            command.env("SSH_TTY", pty.path());
        }
        let another = || slave.try_clone().map_err(SpawnError::Terminal);
        command
            .stdin(another()?)
            .stdout(another()?)
            .stderr(another()?)
            .kill_on_drop(true);
        let child = self.start(command)?;
        Ok(PtyChild { child, pty })
    }

    fn prepare(&self, terminal: bool) -> Result<tokio::process::Command, SpawnError> {
        let (program, args) = self.argv.split_first().ok_or(SpawnError::Empty)?;
        let mut command = std::process::Command::new(program);
        command
            .args(args)
            .env_clear()
            .envs(self.env.iter())
            .current_dir(&self.dir);
        sys::lead_session(&mut command, terminal);
        Ok(command.into())
    }

    /// The error of a failed start does not say whether the program or the
    /// directory is at fault, so look.
    fn start(&self, mut command: tokio::process::Command) -> Result<Child, SpawnError> {
        match command.spawn() {
            Ok(inner) => Ok(Child { inner }),
            Err(source) => match std::fs::metadata(&self.dir) {
                Err(dir_error) => Err(SpawnError::Directory {
                    dir: self.dir.clone(),
                    source: dir_error,
                }),
                Ok(_) => Err(SpawnError::Start {
                    program: self.argv.first().cloned().unwrap_or_default(),
                    source,
                }),
            },
        }
    }
}

/// A process on pipes.
#[derive(Debug)]
pub struct PipedChild {
    /// The process.
    pub child: Child,
    /// Its standard input; drop it for end-of-file.
    pub stdin: Option<ChildStdin>,
    /// Its standard output.
    pub stdout: Option<ChildStdout>,
    /// Its standard error.
    pub stderr: Option<ChildStderr>,
}

/// A process on a terminal.
#[derive(Debug)]
pub struct PtyChild {
    /// The process.
    pub child: Child,
    /// The terminal.
    pub pty: Pty,
}

/// A started process.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
}

impl Child {
    /// Process id, until it has been reaped.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.inner.id()
    }

    /// Waits for the end and reaps. May be called again; cancel safe.
    ///
    /// # Errors
    /// The system's error; practically impossible.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        Ok(self.inner.wait().await?.into())
    }

    /// Signals the process alone. Nothing happens once it has been reaped.
    ///
    /// # Errors
    /// The system's error, for example lacking permission.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.pid() {
            Some(pid) => ignore_gone(kill(pid, signal)),
            None => Ok(()),
        }
    }

    /// Signals the process and all others in its group. Nothing happens once
    /// it has been reaped.
    ///
    /// # Errors
    /// The system's error, for example lacking permission.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        match self.pid() {
            Some(pid) => ignore_gone(killpg(pid, signal)),
            None => Ok(()),
        }
    }

    /// Ends the process group: `first`, then after `grace` SIGKILL. Returns
    /// within `grace` plus two seconds.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if even SIGKILL did not end the process.
    pub async fn terminate(&mut self, first: Signal, grace: Duration) -> io::Result<ExitStatus> {
        self.signal_group(first)?;
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        self.signal_group(Signal::SIGKILL)?;
        match tokio::time::timeout(REAP_DEADLINE, self.wait()).await {
            Ok(status) => status,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn pid(&self) -> Option<Pid> {
        let id = i32::try_from(self.inner.id()?).ok()?;
        Some(Pid::from_raw(id))
    }
}

fn ignore_gone(result: nix::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// A signal with this number ended it.
    Signal(i32),
}

impl ExitStatus {
    /// True for code 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The status as Coder's agent reports it: the code, or 255 for a signal.
    #[must_use]
    pub fn report_code(self) -> u32 {
        match self {
            Self::Code(code) => u32::try_from(code).unwrap_or(255),
            Self::Signal(_) => 255,
        }
    }
}

impl From<std::process::ExitStatus> for ExitStatus {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Code(255),
        }
    }
}
