//! A real Coder server with one workspace, whose agent is started by the test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use adit_test_harness::{
    Process,
    dev::COMMAND_LIMIT,
    dev::success,
    echo_template::{self, AgentTemplate},
    process::run,
    until,
};
use serde_json::Value;
use tempfile::TempDir;

const AGENT_TOKEN: &str = "11111111-2222-4333-8444-555555555555";

/// The server and its data; both are gone when it is dropped.
pub(crate) struct RealServer {
    _process: Process,
    binary: PathBuf,
    dir: TempDir,
    url: String,
    session: String,
}

impl RealServer {
    /// Starts the server, makes a user, a template and a workspace. `None`,
    /// and SKIPPED, without a database.
    pub(crate) fn start(binary: &Path) -> Option<Self> {
        let Some(database) = std::env::var_os("ADIT_CODER_PG_URL") else {
            eprintln!("SKIPPED: ADIT_CODER_PG_URL does not name a database for the real server");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let url = format!("http://127.0.0.1:{}", super::free_port());
        let mut command = Command::new(binary);
        command
            .arg("server")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", dir.path())
            .env("CODER_PG_CONNECTION_URL", database)
            .env("CODER_HTTP_ADDRESS", url.trim_start_matches("http://"))
            .env("CODER_ACCESS_URL", &url)
            .env("CODER_PROVISIONER_TYPES", "echo")
            .env("CODER_DERP_SERVER_STUN_ADDRESSES", "disable")
            .env("CODER_TELEMETRY_ENABLE", "false")
            .env("CODER_UPDATE_CHECK", "false")
            .env("CODER_CACHE_DIRECTORY", dir.path().join("cache"))
            .env("CODER_CONFIG_DIR", dir.path().join("server"));
        let process = Process::start(&mut command, &dir.path().join("server.log"));
        let mut server = Self {
            _process: process,
            binary: binary.to_owned(),
            dir,
            url,
            session: String::new(),
        };
        until("the real server to answer", || {
            let mut probe = Command::new("curl");
            probe.args(["-sf", &format!("{}/api/v2/buildinfo", server.url)]);
            let output = run(&mut probe, COMMAND_LIMIT);
            if output.status.success() {
                Ok(())
            } else {
                Err(server._process.output())
            }
        });
        server.ok(&[
            "login",
            &server.url.clone(),
            "--first-user-username",
            "admin",
            "--first-user-email",
            "admin@example.com",
            "--first-user-full-name",
            "Admin",
            "--first-user-password",
            "Password-0001-x",
            "--first-user-trial=false",
        ]);
        server.session = fs::read_to_string(server.dir.path().join("cli/session")).unwrap();
        server.push_template();
        server.ok(&["create", "dev", "--template", "base", "--yes"]);
        Some(server)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn session_token(&self) -> &str {
        &self.session
    }

    pub(crate) fn agent_token(&self) -> &'static str {
        AGENT_TOKEN
    }

    /// A command of the real client, logged in here.
    pub(crate) fn coder(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--global-config")
            .arg(self.dir.path().join("cli"))
            .args(args)
            .env_remove("CODER_URL")
            .env_remove("CODER_SESSION_TOKEN");
        command
    }

    fn ok(&self, args: &[&str]) -> String {
        success(run(&mut self.coder(args), COMMAND_LIMIT))
    }

    /// The agent as the server shows it.
    pub(crate) fn agent(&self) -> Value {
        let listed: Value = serde_json::from_str(&self.ok(&["list", "--output", "json"])).unwrap();
        listed[0]["latest_build"]["resources"][0]["agents"][0].clone()
    }

    /// The agent's logs as the server has them.
    pub(crate) fn agent_logs(&self) -> Value {
        let id = self.agent()["id"].as_str().unwrap().to_owned();
        let mut get = Command::new("curl");
        get.args([
            "-sf",
            "-H",
            &format!("Coder-Session-Token: {}", self.session),
        ])
        .arg(format!("{}/api/v2/workspaceagents/{id}/logs", self.url));
        serde_json::from_str(&success(run(&mut get, COMMAND_LIMIT))).unwrap()
    }

    /// Makes a new build with the same template, so that the next agent
    /// starts from nothing.
    pub(crate) fn restart_build(&self) {
        self.ok(&["restart", "dev", "--yes"]);
    }

    fn push_template(&self) {
        let source = self.dir.path().join("template");
        fs::create_dir(&source).unwrap();
        for (name, content) in echo_template::files(&template()) {
            fs::write(source.join(name), content).unwrap();
        }
        let archive = self.dir.path().join("template.tar");
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&archive).arg("-C").arg(&source).arg(".");
        let _ = success(run(&mut tar, COMMAND_LIMIT));
        let mut push = self.coder(&[
            "templates",
            "push",
            "base",
            "--test.provisioner",
            "echo",
            "-d",
            "-",
            "-y",
        ]);
        push.stdin(Stdio::from(fs::File::open(&archive).unwrap()));
        let _ = success(run(&mut push, COMMAND_LIMIT));
    }
}

/// One resource with one agent.
fn template() -> AgentTemplate<'static> {
    AgentTemplate {
        token: AGENT_TOKEN,
        directory: "/tmp",
        start_script: "echo hello from start",
        stop_script: "echo bye",
        metadata_script: "echo 1.5",
        metadata_interval: 5,
        environment: &[("FOO", "bar")],
    }
}
