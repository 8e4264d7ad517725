//! A real Coder server with workspaces whose agents are started by the test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use adit_test_harness::{
    Process,
    dev::{COMMAND_LIMIT, success},
    echo_template::{self, AgentTemplate},
    free_port,
    process::run,
    skip::need_tool,
    until,
};
use serde_json::Value;
use tempfile::TempDir;

/// How often agents tell the server what they moved.
const STATS_INTERVAL: &str = "2s";

/// The server and its data; both are gone when it is dropped.
pub(crate) struct RealServer {
    _process: Process,
    binary: PathBuf,
    database: String,
    dir: TempDir,
    url: String,
    session: String,
}

impl RealServer {
    /// Starts the server and makes a user. `None`, and SKIPPED, without a
    /// database.
    pub(crate) fn start(binary: &Path) -> Option<Self> {
        let Ok(database) = std::env::var("ADIT_CODER_PG_URL") else {
            eprintln!("SKIPPED: ADIT_CODER_PG_URL does not name a database for the real server");
            return None;
        };
        let _ = need_tool("psql")?;
        let dir = tempfile::tempdir().unwrap();
        let url = format!("http://127.0.0.1:{}", free_port());
        let mut command = Command::new(binary);
        command
            .arg("server")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", dir.path())
            .env("CODER_PG_CONNECTION_URL", &database)
            .env("CODER_HTTP_ADDRESS", url.trim_start_matches("http://"))
            .env("CODER_ACCESS_URL", &url)
            .env("CODER_PROVISIONER_TYPES", "echo")
            .env("CODER_DERP_SERVER_STUN_ADDRESSES", "disable")
            .env("CODER_AGENT_STATS_REFRESH_INTERVAL", STATS_INTERVAL)
            .env("CODER_TELEMETRY_ENABLE", "false")
            .env("CODER_UPDATE_CHECK", "false")
            .env("CODER_CACHE_DIRECTORY", dir.path().join("cache"))
            .env("CODER_CONFIG_DIR", dir.path().join("server"));
        let process = Process::start(&mut command, &dir.path().join("server.log"));
        let mut server = Self {
            _process: process,
            binary: binary.to_owned(),
            database,
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

    pub(crate) fn ok(&self, args: &[&str]) -> String {
        success(run(&mut self.coder(args), COMMAND_LIMIT))
    }

    /// Makes a template and a workspace of it, both with this name.
    pub(crate) fn make(&self, name: &str, template: &AgentTemplate<'_>) {
        let source = self.dir.path().join(format!("template-{name}"));
        fs::create_dir(&source).unwrap();
        for (name, content) in echo_template::files(template) {
            fs::write(source.join(name), content).unwrap();
        }
        let archive = self.dir.path().join(format!("template-{name}.tar"));
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&archive).arg("-C").arg(&source).arg(".");
        let _ = success(run(&mut tar, COMMAND_LIMIT));
        let mut push = self.coder(&[
            "templates",
            "push",
            name,
            "--test.provisioner",
            "echo",
            "-d",
            "-",
            "-y",
        ]);
        push.stdin(Stdio::from(fs::File::open(&archive).unwrap()));
        let _ = success(run(&mut push, COMMAND_LIMIT));
        let _ = self.ok(&["create", name, "--template", name, "--yes"]);
    }

    /// Makes a new build of a workspace, so that its next agent starts from
    /// nothing.
    pub(crate) fn restart_build(&self, workspace: &str) {
        let _ = self.ok(&["restart", workspace, "--yes"]);
    }

    /// The agent of a workspace as the server shows it.
    pub(crate) fn agent(&self, workspace: &str) -> Value {
        let listed: Value = serde_json::from_str(&self.ok(&["list", "--output", "json"])).unwrap();
        let found = listed
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == workspace)
            .unwrap();
        found["latest_build"]["resources"][0]["agents"][0].clone()
    }

    /// What the server answers to a request.
    pub(crate) fn get(&self, path: &str) -> Value {
        let mut get = Command::new("curl");
        get.args([
            "-s",
            "-H",
            &format!("Coder-Session-Token: {}", self.session),
        ])
        .arg(format!("{}/api/v2/{path}", self.url));
        serde_json::from_str(&success(run(&mut get, COMMAND_LIMIT))).unwrap()
    }

    /// Rows that a query finds in the server's database.
    pub(crate) fn query(&self, query: &str) -> Value {
        let mut psql = Command::new("psql");
        psql.args(["-XtA", "-v", "ON_ERROR_STOP=1", "-c"])
            .arg(format!(
                "select coalesce(json_agg(found), '[]') from ({query}) found"
            ))
            .arg(&self.database);
        serde_json::from_str(&success(run(&mut psql, COMMAND_LIMIT))).unwrap()
    }
}
