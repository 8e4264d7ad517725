//! A real Coder, if there is one: server and agent in the far namespace.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use adit_test_harness::echo_template::{self, AgentTemplate, Metadata, Script, When};
use anyhow::{Context as _, Result};

use super::{
    COMMAND_LIMIT, Deployment, Subject, WORKSPACE,
    database::{self, Bridge, Database},
    plain_command, quote, until,
};
use crate::{
    net::{FAR, Net},
    run::{self, Output},
};

const PORT: u16 = 3000;
const AGENT_TOKEN: &str = "11111111-2222-4333-8444-555555555555";

/// How long the first start may take, with its changes to an empty database.
const FIRST_START: Duration = Duration::from_secs(120);

/// The binaries and the database of a real Coder. One for the whole run: an
/// empty database takes its server long to fill.
#[derive(Debug)]
pub(crate) struct RealCoder {
    /// Server and client.
    pub(crate) binary: PathBuf,
    /// The agent.
    pub(crate) agent: PathBuf,
    database: Database,
    dir: PathBuf,
}

impl RealCoder {
    /// From `ADIT_CODER_BIN`, `ADIT_CODER_AGENT_BIN` and `ADIT_CODER_PG_URL`;
    /// says why if there is none.
    pub(crate) fn find(dir: &Path) -> Result<Self, String> {
        let Some(binary) = std::env::var_os("ADIT_CODER_BIN").map(PathBuf::from) else {
            return Err("ADIT_CODER_BIN does not name a real coder binary".into());
        };
        if !binary.is_file() {
            return Err(format!("ADIT_CODER_BIN: no file {}", binary.display()));
        }
        let Ok(url) = std::env::var(database::ADDRESS) else {
            return Err(
                "ADIT_CODER_PG_URL does not name a PostgreSQL server for the real coder".into(),
            );
        };
        let agent =
            std::env::var_os("ADIT_CODER_AGENT_BIN").map_or_else(|| binary.clone(), PathBuf::from);
        let database = Database::create(&url).map_err(|error| format!("{error:#}"))?;
        Ok(Self {
            binary,
            agent,
            database,
            dir: dir.to_owned(),
        })
    }
}

/// A deployment of a real Coder.
#[derive(Debug)]
pub(crate) struct Coder {
    binary: PathBuf,
    agent_binary: PathBuf,
    /// Files that outlive this deployment: the database refers to them.
    kept: PathBuf,
    dir: PathBuf,
    bridge: Bridge,
    server: Child,
    agent: Option<Child>,
}

impl Coder {
    /// Starts one with its agent; makes user, template and workspace at the
    /// first time.
    pub(crate) fn start(net: &Net, real: &RealCoder, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let bridge = Bridge::open(net, &real.database)?;
        let server = launch(net, &real.binary, &real.dir, dir, &bridge)?;
        let mut this = Self {
            binary: real.binary.clone(),
            agent_binary: real.agent.clone(),
            kept: real.dir.clone(),
            dir: dir.to_owned(),
            bridge,
            server,
            agent: None,
        };
        this.wait_for_server(net)?;
        if this.kept.join("cli/session").exists() {
            // Another deployment used the workspace before.
            this.restart_agent(net)?;
        } else {
            this.set_up(net)?;
            this.start_agent(net)?;
        }
        let deployment: &dyn Deployment = &this;
        deployment.ready(net, Duration::ZERO)?;
        Ok(this)
    }

    fn set_up(&self, net: &Net) -> Result<()> {
        let url = format!("http://{FAR}:{PORT}");
        let login = [
            "login",
            &url,
            "--first-user-username",
            "admin",
            "--first-user-email",
            "admin@example.com",
            "--first-user-full-name",
            "Admin",
            "--first-user-password",
            "Password-0001-x",
            "--first-user-trial=false",
        ];
        let this: &dyn Deployment = self;
        this.run(net, &login, Output::Keep, COMMAND_LIMIT)?;
        let archive = self.dir.join("template.tar");
        self.write_template(&archive)?;
        let mut push = self.client(&[
            "templates",
            "push",
            "base",
            "--test.provisioner",
            "echo",
            "-d",
            "-",
            "-y",
        ]);
        push.stdin(File::open(&archive)?);
        run::run(&net.near, &mut push, Output::Keep, COMMAND_LIMIT)?
            .ok()
            .context("coder templates push")?;
        this.run(
            net,
            &["create", WORKSPACE, "--template", "base", "--yes"],
            Output::Keep,
            COMMAND_LIMIT,
        )?;
        Ok(())
    }

    fn write_template(&self, archive: &Path) -> Result<()> {
        let source = self.dir.join("template");
        fs::create_dir_all(&source)?;
        let template = AgentTemplate {
            token: AGENT_TOKEN,
            directory: "/tmp",
            scripts: &[Script {
                name: "start",
                text: "echo \"Workspace of $CODER_WORKSPACE_OWNER_NAME is ready.\"",
                when: When::Start,
                timeout: 0,
            }],
            metadata: &[Metadata {
                key: "load",
                script: "uptime | sed 's/.*load average[s]*: //'",
                interval: 15,
                timeout: 2,
            }],
            ..AgentTemplate::default()
        };
        for (name, content) in echo_template::files(&template) {
            fs::write(source.join(name), content)?;
        }
        let status = Command::new("tar")
            .arg("-cf")
            .arg(archive)
            .arg("-C")
            .arg(&source)
            .arg(".")
            .status()
            .context("start tar")?;
        anyhow::ensure!(status.success(), "tar: {status}");
        Ok(())
    }

    fn wait_for_server(&self, net: &Net) -> Result<()> {
        let deadline = std::time::Instant::now() + FIRST_START;
        let mut last = Ok(());
        while std::time::Instant::now() < deadline {
            last = until("the real server to answer", || {
                let mut probe = Command::new("curl");
                probe.args(["-sf", &format!("http://{FAR}:{PORT}/api/v2/buildinfo")]);
                run::run(&net.near, &mut probe, Output::Keep, COMMAND_LIMIT)?
                    .ok()
                    .map(drop)
            });
            if last.is_ok() {
                break;
            }
        }
        last.with_context(|| {
            run::tail(&fs::read_to_string(self.dir.join("server.log")).unwrap_or_default())
        })
    }

    fn start_agent(&mut self, net: &Net) -> Result<Duration> {
        self.stop_agent();
        let log = File::create(self.dir.join("agent.log"))?;
        let logs = self.dir.join("agent-logs");
        fs::create_dir_all(&logs)?;
        let mut command = plain_command(&self.agent_binary, &self.dir);
        command
            .arg("agent")
            .env("CODER_AGENT_URL", format!("http://{FAR}:{PORT}"))
            .env("CODER_AGENT_AUTH", "token")
            .env("CODER_AGENT_TOKEN", AGENT_TOKEN)
            .env("CODER_AGENT_LOG_DIR", &logs)
            .env(
                "CODER_AGENT_SCRIPT_DATA_DIR",
                self.dir.join("agent-scripts"),
            )
            .env("CODER_AGENT_DEVCONTAINERS_ENABLE", "false")
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        self.agent = Some(net.far.spawn(&mut command)?);
        Ok(now)
    }

    fn stop_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

fn launch(net: &Net, binary: &Path, kept: &Path, dir: &Path, bridge: &Bridge) -> Result<Child> {
    fs::create_dir_all(kept)?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("server.log"))?;
    let mut command = plain_command(binary, kept);
    command
        .arg("server")
        .env("CODER_PG_CONNECTION_URL", bridge.url.as_str())
        .env("CODER_HTTP_ADDRESS", format!("{FAR}:{PORT}"))
        .env("CODER_ACCESS_URL", format!("http://{FAR}:{PORT}"))
        .env("CODER_PROVISIONER_TYPES", "echo")
        .env("CODER_DERP_SERVER_STUN_ADDRESSES", "disable")
        .env("CODER_TELEMETRY_ENABLE", "false")
        .env("CODER_UPDATE_CHECK", "false")
        .env("CODER_CACHE_DIRECTORY", kept.join("cache"))
        .env("CODER_CONFIG_DIR", kept.join("server"))
        .current_dir(kept)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    net.far.spawn(&mut command)
}

impl Deployment for Coder {
    fn subject(&self) -> Subject {
        Subject::Coder
    }

    fn server(&self) -> i32 {
        self.server.id().cast_signed()
    }

    fn agent(&self) -> Result<i32> {
        let agent = self.agent.as_ref().context("the agent does not run")?;
        Ok(agent.id().cast_signed())
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut command = plain_command(&self.binary, &self.kept);
        command
            .arg("--global-config")
            .arg(self.kept.join("cli"))
            .args(args);
        command
    }

    fn client_line(&self) -> String {
        format!(
            "{} --global-config {}",
            quote(&self.binary.to_string_lossy()),
            quote(&self.kept.join("cli").to_string_lossy())
        )
    }

    fn kill_server(&mut self) -> Result<()> {
        self.server.kill()?;
        self.server.wait()?;
        Ok(())
    }

    fn start_server(&mut self, net: &Net) -> Result<()> {
        self.server = launch(net, &self.binary, &self.kept, &self.dir, &self.bridge)?;
        self.wait_for_server(net)
    }

    fn restart_agent(&mut self, net: &Net) -> Result<Duration> {
        self.stop_agent();
        let this: &dyn Deployment = self;
        this.run(
            net,
            &["restart", WORKSPACE, "--yes"],
            Output::Count,
            COMMAND_LIMIT,
        )?;
        self.start_agent(net)
    }

    fn logs(&self) -> Vec<PathBuf> {
        vec![self.dir.join("server.log"), self.dir.join("agent.log")]
    }
}

impl Drop for Coder {
    fn drop(&mut self) {
        self.stop_agent();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
