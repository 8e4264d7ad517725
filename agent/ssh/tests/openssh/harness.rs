//! A server on a loopback port and the clients that use it.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use adit_agent_exec::{
    CommandContext, ConnectionKind, ConnectionReporter, EnvLayers, StaticContext, User,
};
use adit_agent_ssh::{Config, HostKey, Server};
use adit_test_harness::need_tool;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

/// No test step takes this long on a working server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static KEY: LazyLock<HostKey> = LazyLock::new(|| HostKey::derive("alice", "dev", "main").unwrap());

/// True if all tools exist; otherwise says so, and fails where CI runs.
pub(crate) fn have(tools: &[&str]) -> bool {
    tools.iter().all(|tool| need_tool(tool).is_some())
}

/// A report of the server: kind, and how it ended if it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) kind: ConnectionKind,
    pub(crate) ip: String,
    pub(crate) end: Option<(i32, String)>,
}

/// Remembers reports.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    log: watch::Sender<Vec<(Uuid, Report)>>,
}

impl ConnectionReporter for Recorder {
    fn connected(&self, id: Uuid, kind: ConnectionKind, ip: &str) {
        let report = Report {
            kind,
            ip: ip.to_owned(),
            end: None,
        };
        self.log.send_modify(|log| log.push((id, report)));
    }

    fn disconnected(&self, id: Uuid, kind: ConnectionKind, _: &str, code: i32, reason: &str) {
        self.log.send_modify(|log| {
            let entry = log.iter_mut().find(|(i, _)| *i == id).unwrap();
            assert_eq!(entry.1.kind, kind);
            assert!(entry.1.end.is_none(), "reported twice");
            entry.1.end = Some((code, reason.to_owned()));
        });
    }
}

impl Recorder {
    /// Waits until all of at least `n` reports have ended.
    pub(crate) async fn ended(&self, n: usize) -> Vec<Report> {
        let mut log = self.log.subscribe();
        let done = log.wait_for(|log| log.len() >= n && log.iter().all(|(_, r)| r.end.is_some()));
        let log = within(done).await.unwrap();
        log.iter().map(|(_, r)| r.clone()).collect()
    }
}

/// A running server with a home directory of its own.
pub(crate) struct Fixture {
    pub(crate) home: TempDir,
    pub(crate) server: Server,
    pub(crate) port: u16,
    pub(crate) reports: Arc<Recorder>,
    _accept: JoinSet<()>,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .try_init();
        let home = tempfile::tempdir().unwrap();
        let reports = Arc::new(Recorder::default());
        let context = StaticContext(Ok(context(home.path())));
        let mut config = Config::new(Arc::new(context), Arc::clone(&reports) as _);
        adjust(&mut config);
        let server = Server::new(config, &KEY);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut accept = JoinSet::new();
        accept.spawn(accept_loop(listener, server.clone()));
        Self {
            home,
            server,
            port,
            reports,
            _accept: accept,
        }
    }

    /// `ssh` with everything but the command. The client takes the first
    /// value of an option, so `options` win.
    pub(crate) fn ssh(&self, options: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(options).args(ssh_options());
        command.args(["-p", &self.port.to_string(), "127.0.0.1"]);
        self.prepare(&mut command);
        command
    }

    /// `sftp` or `scp` with the options that lead to the server.
    pub(crate) fn copy_tool(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command
            .args(ssh_options())
            .args(["-P", &self.port.to_string()]);
        self.prepare(&mut command);
        command
    }

    /// The `ssh` command line for tools that run it themselves.
    pub(crate) fn ssh_command_line(&self) -> String {
        format!("ssh {} -p {}", ssh_options().join(" "), self.port)
    }

    pub(crate) fn prepare(&self, command: &mut Command) {
        command
            .env("HOME", self.home.path())
            .env("GIT_SSH_COMMAND", self.ssh_command_line())
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("DISPLAY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
    }

    /// Runs `command` on the server.
    pub(crate) async fn exec(&self, command: &str) -> Output {
        run(self.ssh(&["-T"]).arg(command)).await
    }

    /// The text `command` prints; it must succeed.
    pub(crate) async fn text(&self, command: &str) -> String {
        text(&self.exec(command).await)
    }

    /// Waits until no session and no connection is left.
    pub(crate) async fn quiet(&self) {
        let mut counts = self.server.watch_counts();
        within(counts.wait_for(|c| *c == Default::default()))
            .await
            .unwrap();
    }
}

fn ssh_options() -> Vec<&'static str> {
    vec![
        "-F",
        "none",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "PreferredAuthentications=none",
    ]
}

fn context(home: &Path) -> CommandContext {
    let mut process: Vec<(OsString, OsString)> = EnvLayers::process()
        .into_iter()
        .filter(|(name, _)| name == "PATH" || name == "LANG")
        .collect();
    process.push(("HOME".into(), home.into()));
    CommandContext {
        user: User {
            name: "tester".into(),
            home: home.to_owned(),
            shell: "/bin/bash".into(),
        },
        layers: EnvLayers {
            process,
            fixed: vec![("CODER".into(), "true".into())],
            ..EnvLayers::default()
        },
        directory: None,
        wrapper: Vec::new(),
    }
}

async fn accept_loop(listener: TcpListener, server: Server) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, remote) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let server = server.clone();
        connections.spawn(async move { server.serve(stream, Some(remote)).await });
    }
}

/// The result of `work`, which must not take long.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

/// Runs a command to its end.
pub(crate) async fn run(command: &mut Command) -> Output {
    let child = command.spawn().unwrap();
    within(child.wait_with_output()).await.unwrap()
}

/// Runs a command with `input` as standard input.
pub(crate) async fn run_with(command: &mut Command, input: Vec<u8>) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move {
        // The other side may stop reading.
        let _ = stdin.write_all(&input).await;
    };
    let (output, ()) = within(async { tokio::join!(child.wait_with_output(), feed) }).await;
    output.unwrap()
}

/// Standard output of a command that must have succeeded.
pub(crate) fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Reads until `what` has appeared, and returns all that was read.
pub(crate) async fn read_until(from: &mut (impl AsyncReadExt + Unpin), what: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let n = within(from.read(&mut buffer)).await.unwrap();
        seen.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&seen).into_owned();
        if text.contains(what) {
            return text;
        }
        assert!(n > 0, "{what:?} did not appear in {text:?}");
    }
}

/// Waits until `condition` holds, looking again whenever the clock ticks.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let tick = Duration::from_millis(20);
    let look = async {
        while !condition() {
            tokio::time::sleep(tick).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "{what}");
}

/// Bytes that do not compress and do not repeat.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}
