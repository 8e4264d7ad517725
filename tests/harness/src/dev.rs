//! A whole deployment on loopback: `adit-server dev`.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    netns::{Host, Hosts},
    process::{Process, run},
    programs::program,
    wait::until,
};

/// How long a client command may take on a loaded machine.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// A running `adit-server dev` with one workspace, and all that a client
/// needs to reach it.
#[derive(Debug)]
pub struct Dev {
    process: Option<Process>,
    dir: TempDir,
    extra: Vec<String>,
    hosts: Option<Hosts>,
    facts: Value,
}

impl Dev {
    /// Starts a deployment with a fresh data directory.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a deployment with more flags for `adit-server dev`.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start_with(extra: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", None, extra)
    }

    /// Starts a deployment on the far one of two hosts; its clients run on
    /// the near one.
    #[must_use]
    pub fn start_far(hosts: Hosts, extra: &[&str]) -> Self {
        let listen = format!("{}:7080", hosts.address(Host::Far));
        Self::start_at(&listen, Some(hosts), extra)
    }

    fn start_at(listen: &str, hosts: Option<Hosts>, extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("create a temporary directory");
        let mut dev = Self {
            process: None,
            dir,
            extra: extra.iter().map(|flag| (*flag).to_owned()).collect(),
            hosts,
            facts: Value::Null,
        };
        dev.launch(listen);
        dev
    }

    /// Starts the server again after [`Self::kill`] or [`Self::terminate`],
    /// at the same address and with the same data.
    pub fn restart(&mut self) {
        let listen = self.authority();
        self.launch(&listen);
    }

    fn launch(&mut self, listen: &str) {
        let ready = self.dir.path().join("ready.json");
        let log = self.dir.path().join("server.log");
        let _ = std::fs::remove_file(&ready);
        // Standard output has the one line of JSON; keep it apart from the log.
        let mut shell = Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg("exec \"$@\" >\"$READY\"")
            .arg("sh")
            .args(self.prefix(Host::Far))
            .arg(program("adit-server"))
            .args(["dev", "--output", "json", "--listen", listen, "--data-dir"])
            .arg(self.data_dir())
            .args(&self.extra)
            .env("READY", &ready)
            .env("HOME", self.dir.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("CODER_URL")
            .env_remove("CODER_SESSION_TOKEN");
        let mut process = Process::start(&mut shell, &log);
        self.facts = until("adit-server dev to become ready", || {
            if let Ok(Some(status)) = process.try_wait() {
                panic!("adit-server dev ended with {status}:\n{}", process.output());
            }
            let text = std::fs::read_to_string(&ready).map_err(|error| error.to_string())?;
            match text.split_once('\n') {
                Some((line, _)) => serde_json::from_str(line).map_err(|error| error.to_string()),
                None => Err(process.output()),
            }
        });
        self.process = Some(process);
    }

    /// A fact of the ready line, such as `url` or `workspace`.
    ///
    /// # Panics
    /// If the line has no such text.
    #[must_use]
    pub fn fact(&self, name: &str) -> &str {
        self.facts[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {}", self.facts))
    }

    /// Address of the server, `host:port`.
    #[must_use]
    pub fn authority(&self) -> String {
        let url = self.fact("url");
        url.trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned()
    }

    /// The temporary directory of this deployment.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The server's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The server process.
    ///
    /// # Panics
    /// If it was ended.
    #[must_use]
    pub fn server(&self) -> &Process {
        self.process.as_ref().expect("the server is running")
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    /// The two hosts of a deployment that [`Self::start_far`] made.
    ///
    /// # Panics
    /// If it was started otherwise.
    #[must_use]
    pub fn hosts(&self) -> &Hosts {
        self.hosts.as_ref().expect("a deployment on two hosts")
    }

    fn prefix(&self, host: Host) -> Vec<String> {
        self.hosts
            .as_ref()
            .map_or_else(Vec::new, |hosts| hosts.prefix(host))
    }

    /// A program on the near host, if there are two.
    fn near(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.hosts {
            Some(hosts) => hosts.command(Host::Near, program),
            None => Command::new(program),
        }
    }

    /// A command of the client, logged in to this deployment.
    #[must_use]
    pub fn adit<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = self.near(program("adit"));
        command
            .arg("--global-config")
            .arg(self.fact("config_dir"))
            .args(args)
            .env("HOME", self.dir.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("CODER_URL")
            .env_remove("CODER_SESSION_TOKEN");
        command
    }

    /// Runs a client command to its end and returns its output.
    #[must_use]
    pub fn run<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Output {
        run(&mut self.adit(args), COMMAND_LIMIT)
    }

    /// Runs a client command that must succeed; returns its standard output.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn ok<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> String {
        success(self.run(args))
    }

    /// Writes an OpenSSH configuration that reaches the workspaces.
    #[must_use]
    pub fn ssh_config(&self) -> PathBuf {
        let path = self.dir.path().join("ssh_config");
        let _ = self.ok([
            OsStr::new("config-ssh"),
            OsStr::new("--yes"),
            OsStr::new("--ssh-config-file"),
            path.as_os_str(),
        ]);
        path
    }

    /// Host name of the workspace in that configuration.
    #[must_use]
    pub fn ssh_host(&self) -> String {
        format!("coder.{}", self.fact("workspace"))
    }

    /// A command of an OpenSSH tool with that configuration.
    #[must_use]
    pub fn openssh(&self, tool: &str) -> Command {
        let mut command = self.near(tool);
        command
            .arg("-F")
            .arg(self.ssh_config())
            .args(["-o", "BatchMode=yes"])
            .env("HOME", self.dir.path());
        command
    }

    /// Ends the server at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGKILL);
            let _ = process.wait();
        }
    }

    /// Ends the server as an operator would, and waits for it.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn terminate(&mut self) {
        let mut process = self.process.take().expect("the server is running");
        process.signal(Signal::SIGTERM);
        let status = process.wait();
        assert!(
            status.success(),
            "adit-server ended with {status}:\n{}",
            process.output()
        );
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGTERM);
            let _ = process.wait();
        }
        // Whatever a killed server left behind names this directory.
        for pid in crate::process::processes_with(&self.dir.path().to_string_lossy()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- server log ---\n{}", self.log());
        }
    }
}

/// Standard output of a command that must have succeeded.
///
/// # Panics
/// If it failed: with both its outputs.
#[must_use]
#[expect(
    clippy::needless_pass_by_value,
    reason = "callers pass on what a command gave them"
)]
pub fn success(output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}\nstdout: {text}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
