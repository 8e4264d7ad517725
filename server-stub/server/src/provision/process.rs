//! One agent process of a local workspace: how it is started, recognised after
//! a restart of the server, and ended without leaving anything behind.
//!
//! A workspace lives in a directory of its own:
//!
//! ```text
//! <data dir>/workspaces/<workspace id>/
//!   home/       $HOME of every session: an own one, so that workspaces touch
//!               neither each other's files nor those of the person who runs
//!               the server, and so that deleting the workspace is deleting a
//!               directory
//!   token       the agent's token, readable by its user only
//!   agent.pid   which process it is
//!   agent.log   what it printed
//!   logs/  scripts/   the agent's own files
//! ```
//!
//! The process is the head of its own process group and holds no pipe to the
//! server, so it survives a crash of the server. All it starts inherits the
//! variable [`MARKER`], by which leftovers are found when the workspace stops,
//! even those that made themselves independent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::process::{Child, Command};
use url::Url;
use uuid::Uuid;

/// Set to the workspace's id in the environment of everything in it.
pub(crate) const MARKER: &str = "ADIT_WORKSPACE";

/// A log file larger than this is set aside when the agent starts.
const MAX_LOG_BYTES: u64 = 8 << 20;

/// How often an adopted process, which is nobody's child, is looked at.
const ADOPTED_POLL: Duration = Duration::from_secs(1);

/// How long processes that outlived their agent have to end by themselves.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);

/// The longest path a Unix socket may have on every supported system.
const MAX_SOCKET_PATH: usize = 100;

/// Variables of the server's environment that an agent gets. Nothing else is
/// passed on: the server's own settings may hold secrets.
const PASSED_ON: &[&str] = &[
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// What it takes to start the agent of a workspace.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// The agent program.
    pub(crate) program: PathBuf,
    /// Where it finds the control plane.
    pub(crate) access_url: Url,
    /// The workspace's directory.
    pub(crate) dir: PathBuf,
    /// The workspace.
    pub(crate) workspace: Uuid,
}

/// A running agent process.
#[derive(Debug)]
pub(crate) struct AgentProcess {
    pid: Pid,
    identity: String,
    /// `None` for a process that an earlier run of the server started.
    child: Option<Child>,
    /// It looks for the control plane where that is now.
    current: bool,
    workspace: Uuid,
    pid_file: PathBuf,
}

impl Launch {
    /// Makes the workspace's directory and writes the agent's token into it.
    pub(crate) fn prepare(&self, token: &Uuid) -> io::Result<()> {
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(&self.dir)?;
        private.create(self.home())?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.token_file())?;
        file.write_all(token.to_string().as_bytes())
    }

    /// Finds the process an earlier run of the server left running.
    pub(crate) fn adopt(&self) -> Option<AgentProcess> {
        let pid_file = self.pid_file();
        let text = fs::read_to_string(&pid_file).ok()?;
        let mut words = text.split_whitespace();
        let pid: i32 = words.next()?.parse().ok().filter(|pid| *pid > 1)?;
        let identity = words.next()?;
        let current = words.next() == Some(self.access_url.as_str());
        if process_identity(pid).as_deref() != Some(identity) {
            return None;
        }
        Some(AgentProcess {
            pid: Pid::from_raw(pid),
            identity: identity.to_owned(),
            child: None,
            current,
            workspace: self.workspace,
            pid_file,
        })
    }

    /// Starts the agent. [`Self::prepare`] must have run before.
    pub(crate) fn spawn(&self) -> io::Result<AgentProcess> {
        let log = self.open_log()?;
        let mut command = Command::new(&self.program);
        command
            .arg("agent")
            .env_clear()
            .envs(
                PASSED_ON
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .env(MARKER, self.workspace.to_string())
            .env("HOME", self.home())
            .env("CODER_AGENT_URL", self.access_url.as_str())
            .env("CODER_AGENT_AUTH", "token")
            .env("CODER_AGENT_TOKEN_FILE", self.token_file())
            .env("CODER_AGENT_LOG_DIR", self.subdirectory("logs")?)
            .env("CODER_AGENT_SCRIPT_DATA_DIR", self.subdirectory("scripts")?)
            // Several agents share this machine: no fixed ports.
            .env("CODER_AGENT_PPROF_ADDRESS", "")
            .env("CODER_AGENT_PROMETHEUS_ADDRESS", "")
            .env("CODER_AGENT_DEBUG_ADDRESS", "")
            .env("CODER_AGENT_DEVCONTAINERS_ENABLE", "false")
            .current_dir(self.home())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let socket = self.dir.join("agent.sock");
        if socket.as_os_str().len() <= MAX_SOCKET_PATH {
            command.env("CODER_AGENT_SOCKET_PATH", socket);
        } else {
            command.env("CODER_AGENT_SOCKET_SERVER_ENABLED", "false");
        }
        let child = command.spawn()?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or(io::ErrorKind::Other)?;
        let identity = process_identity(pid).unwrap_or_default();
        let pid_file = self.pid_file();
        fs::write(&pid_file, format!("{pid} {identity} {}\n", self.access_url))?;
        Ok(AgentProcess {
            pid: Pid::from_raw(pid),
            identity,
            child: Some(child),
            current: true,
            workspace: self.workspace,
            pid_file,
        })
    }

    /// The home directory of the workspace.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    fn token_file(&self) -> PathBuf {
        self.dir.join("token")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("agent.pid")
    }

    fn subdirectory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        Ok(path)
    }

    fn open_log(&self) -> io::Result<File> {
        let path = self.dir.join("agent.log");
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_LOG_BYTES) {
            fs::rename(&path, self.dir.join("agent.log.old"))?;
        }
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
    }
}

impl AgentProcess {
    /// The process's id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Whether it looks for the control plane at its present address.
    pub(crate) fn is_current(&self) -> bool {
        self.current
    }

    /// Waits until the process ended. Returns what is known about how.
    pub(crate) async fn wait(&mut self) -> String {
        if let Some(child) = &mut self.child {
            return match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
        }
        while process_identity(self.pid.as_raw()).as_deref() == Some(self.identity.as_str()) {
            tokio::time::sleep(ADOPTED_POLL).await;
        }
        "exit status unknown".to_owned()
    }

    /// Asks the agent to end, which runs its stop scripts, and makes sure of it
    /// after `grace`. Then ends whatever else the workspace left running.
    pub(crate) async fn terminate(mut self, grace: Duration) {
        if !matches!(kill(self.pid, Signal::SIGTERM), Err(Errno::ESRCH)) {
            let ended = if self.child.is_some() {
                tokio::time::timeout(grace, self.wait()).await.is_ok()
            } else {
                self.poll_until_gone(grace).await
            };
            if !ended {
                tracing::warn!(workspace = %self.workspace, pid = self.pid(), "agent did not stop in time; killing it");
                // A process group of its own, so nobody else can be hit.
                let _ = killpg(self.pid, Signal::SIGKILL);
                let _ = kill(self.pid, Signal::SIGKILL);
                let _ = tokio::time::timeout(Duration::from_secs(2), self.wait()).await;
            }
        }
        let _ = fs::remove_file(&self.pid_file);
        end_leftovers(self.workspace).await;
    }

    /// Waits for the end of a process that is not a child, at shorter intervals
    /// than [`Self::wait`]: somebody waits for it.
    async fn poll_until_gone(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if process_identity(self.pid.as_raw()).as_deref() != Some(self.identity.as_str()) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

/// Ends every process that carries the workspace's [`MARKER`].
pub(crate) async fn end_leftovers(workspace: Uuid) {
    let deadline = Instant::now() + LEFTOVER_GRACE;
    let mut asked = false;
    loop {
        let left = tokio::task::spawn_blocking(move || marked_processes(workspace))
            .await
            .unwrap_or_default();
        if left.is_empty() {
            return;
        }
        let patience_over = Instant::now() >= deadline;
        for pid in left {
            let pid = Pid::from_raw(pid);
            if patience_over {
                let _ = kill(pid, Signal::SIGKILL);
            } else if !asked {
                // Interactive shells end on a hang-up, services on TERM.
                let _ = kill(pid, Signal::SIGHUP);
                let _ = kill(pid, Signal::SIGTERM);
                let _ = kill(pid, Signal::SIGCONT);
            }
        }
        asked = true;
        if Instant::now() >= deadline + Duration::from_secs(2) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Processes of this user whose environment names the workspace.
fn marked_processes(workspace: Uuid) -> Vec<i32> {
    let wanted = format!("{MARKER}={workspace}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(own))
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted.as_bytes())
        })
        .collect()
}

/// Tells a process from a later one with the same id: when it started, in clock
/// ticks since boot. `None` if there is none or if it is a zombie.
#[cfg(target_os = "linux")]
fn process_identity(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The second field is the program's name in parentheses and may itself hold
    // spaces and parentheses.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

/// Tells a process from a later one with the same id: when it started.
#[cfg(not(target_os = "linux"))]
fn process_identity(pid: i32) -> Option<String> {
    let output = std::process::Command::new("ps")
        .args(["-o", "lstart=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim().replace(' ', "_");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_apart() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(process_identity(own).is_some());
        assert_eq!(process_identity(own), process_identity(own));
        assert_eq!(process_identity(i32::MAX), None);
    }

    fn launch(dir: &Path, script: &str) -> Launch {
        use std::os::unix::fs::PermissionsExt as _;
        let program = dir.join("agent");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Launch {
            program,
            access_url: "http://127.0.0.1:1".parse().unwrap(),
            dir: dir.join("workspace"),
            workspace: Uuid::new_v4(),
        }
    }

    #[tokio::test]
    async fn nothing_is_left_behind() {
        let dir = std::env::temp_dir().join(format!("adit-process-{}", Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        // An agent that ignores TERM and starts a child in another session.
        let launch = launch(
            &dir,
            "trap '' TERM; setsid sleep 1000 & sleep 1000 & wait; sleep 1000",
        );
        launch.prepare(&Uuid::new_v4()).unwrap();
        let process = launch.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while marked_processes(launch.workspace).len() < 3 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let adopted = launch.adopt().unwrap();
        assert_eq!(adopted.pid(), process.pid());
        process.terminate(Duration::from_millis(100)).await;
        assert_eq!(marked_processes(launch.workspace), Vec::<i32>::new());
        assert!(launch.adopt().is_none());
        fs::remove_dir_all(&dir).unwrap();
    }
}
