//! `adit-server dev` in the far namespace.

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Deployment, Subject, WORKSPACE, plain_command, quote, until};
use crate::{
    net::{FAR, Net},
    run::Output,
};

const PORT: u16 = 7080;

/// How long a restart of the workspace may take.
const RESTART_LIMIT: Duration = Duration::from_secs(120);

/// Variables that tell `adit-server dev` something other than its flags do.
const PASSED_ON: [&str; 1] = ["RUST_LOG"];

/// A deployment of this product.
#[derive(Debug)]
pub(crate) struct Adit {
    bin: PathBuf,
    dir: PathBuf,
    prebuilds: u16,
    server: Child,
    config_dir: String,
    /// Address of the control plane.
    pub(crate) url: String,
    /// A token of the workspace's owner.
    pub(crate) session_token: String,
}

impl Adit {
    /// Starts one whose files are in `dir`, and waits until the workspace is
    /// ready. `bin` holds the programs.
    pub(crate) fn start(net: &Net, bin: &Path, dir: &Path, prebuilds: u16) -> Result<Self> {
        fs::create_dir_all(dir)?;
        // The supervisor starts this; it says when, and becomes the agent.
        let agent = dir.join("agent.sh");
        fs::write(
            &agent,
            format!(
                "#!/bin/sh\ndate +%s%N >{started}.new && mv {started}.new {started}\nexec {program} \"$@\"\n",
                started = quote(&dir.join("agent.started").to_string_lossy()),
                program = quote(&bin.join("adit-agent").to_string_lossy()),
            ),
        )?;
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))?;
        let (server, facts) = launch(net, bin, dir, prebuilds)?;
        let fact = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            bin: bin.to_owned(),
            dir: dir.to_owned(),
            prebuilds,
            server,
            config_dir: fact("config_dir"),
            url: fact("url"),
            session_token: fact("session_token"),
        })
    }

    /// Directories of the workspaces, the prebuilt ones among them.
    pub(crate) fn workspaces(&self) -> Result<Vec<PathBuf>> {
        let root = self.dir.join("data/workspaces");
        let entries = fs::read_dir(&root).with_context(|| format!("read {}", root.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    }
}

fn launch(net: &Net, bin: &Path, dir: &Path, prebuilds: u16) -> Result<(Child, Value)> {
    let ready = dir.join("ready.json");
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("server.log"))?;
    let mut command = plain_command(&bin.join("adit-server"), dir);
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .args(["dev", "--output", "json", "--workspace", WORKSPACE])
        .args(["--listen", &format!("{FAR}:{PORT}")])
        .args(["--prebuilds", &prebuilds.to_string()])
        .arg("--agent")
        .arg(dir.join("agent.sh"))
        .arg("--data-dir")
        .arg(dir.join("data"))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(File::create(&ready)?)
        .stderr(log)
        .process_group(0);
    let mut child = net.far.spawn(&mut command)?;
    let facts = until("adit-server dev to be ready", || {
        let text = fs::read_to_string(&ready)?;
        match text.split_once('\n') {
            Some((line, _)) => Ok(Ok(serde_json::from_str(line)?)),
            None => match child.try_wait()? {
                Some(status) => Ok(Err(status)),
                None => bail!("nothing printed yet"),
            },
        }
    });
    let log = || crate::run::tail(&fs::read_to_string(dir.join("server.log")).unwrap_or_default());
    match facts {
        Ok(Ok(facts)) => Ok((child, facts)),
        Ok(Err(status)) => bail!("adit-server dev ended with {status}: {}", log()),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error.context(log()))
        }
    }
}

impl Deployment for Adit {
    fn subject(&self) -> Subject {
        Subject::Adit
    }

    fn server(&self) -> i32 {
        self.server.id().cast_signed()
    }

    fn agent(&self) -> Result<i32> {
        for dir in self.workspaces()? {
            // Prebuilt workspaces have agents too; the session is in the one
            // that is named.
            let Ok(text) = fs::read_to_string(dir.join("agent.pid")) else {
                continue;
            };
            let pid = text.split_whitespace().next().and_then(|w| w.parse().ok());
            if let Some(pid) = pid {
                return Ok(pid);
            }
        }
        bail!("no agent below {}", self.dir.display())
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut command = plain_command(&self.bin.join("adit"), &self.dir);
        command
            .arg("--global-config")
            .arg(&self.config_dir)
            .args(args);
        command
    }

    fn client_line(&self) -> String {
        format!(
            "{} --global-config {}",
            quote(&self.bin.join("adit").to_string_lossy()),
            quote(&self.config_dir)
        )
    }

    fn kill_server(&mut self) -> Result<()> {
        self.server.kill()?;
        self.server.wait()?;
        Ok(())
    }

    fn start_server(&mut self, net: &Net) -> Result<()> {
        (self.server, _) = launch(net, &self.bin, &self.dir, self.prebuilds)?;
        Ok(())
    }

    fn restart_agent(&mut self, net: &Net) -> Result<Duration> {
        let started = self.dir.join("agent.started");
        let _ = fs::remove_file(&started);
        let this: &dyn Deployment = self;
        this.run(
            net,
            &["restart", WORKSPACE, "--yes"],
            Output::Count,
            RESTART_LIMIT,
        )?;
        until("the agent to be started", || {
            let text = fs::read_to_string(&started)?;
            Ok(Duration::from_nanos(text.trim().parse()?))
        })
    }

    fn logs(&self) -> Vec<PathBuf> {
        let mut logs = vec![self.dir.join("server.log")];
        for dir in self.workspaces().unwrap_or_default() {
            logs.push(dir.join("agent.log"));
        }
        logs
    }
}

impl Drop for Adit {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if let Ok(pid) = self.agent() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}
