//! `adit-server dev`: everything on one machine, from one command.

mod report;
mod setup;

use std::{
    fs::{File, TryLockError},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use adit_rest::AgentStatus;
use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{App, Config, Server, provision};
use report::{Output, Progress, Ready};
use setup::Step;

/// How often prebuilt workspaces are looked after, besides after each change.
const PREBUILDS_INTERVAL: Duration = Duration::from_secs(15);

/// How long everything may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(180);

/// How long agents get to end their sessions and run their stop scripts.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long the server gets to end once the workspaces are gone.
const SERVER_GRACE: Duration = Duration::from_secs(10);

/// Start a control plane on this machine with a user, a template and a running
/// workspace. Needs no other services and no privileges.
#[derive(Debug, clap::Args)]
pub struct DevArgs {
    /// Directory of the database and the workspaces [default: adit/dev in the user's data directory]
    #[arg(long, env = "ADIT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address to listen on; port 0 picks a free one
    #[arg(
        long,
        env = "ADIT_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:7080"
    )]
    listen: SocketAddr,
    /// Name of the workspace
    #[arg(long, value_name = "NAME", default_value = "dev")]
    workspace: String,
    /// Number of further workspaces to keep ready for `adit create`
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=100))]
    prebuilds: u16,
    /// How to tell that everything is ready
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// Program to run in workspaces [default: adit-agent beside this program]
    #[arg(long, env = "ADIT_AGENT_BIN", value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// Runs it until it is told to stop.
///
/// # Errors
/// When the server cannot start or fails.
pub async fn run(args: DevArgs) -> anyhow::Result<()> {
    if !crate::api::is_name(&args.workspace) {
        bail!(
            "{:?} cannot be the name of a workspace: it takes 1 to 32 letters and digits with single hyphens between them",
            args.workspace
        );
    }
    let mut stop = Stop::new()?;
    let progress = Progress::new();
    let data_dir = match &args.data_dir {
        Some(dir) => std::path::absolute(dir)?,
        None => default_data_dir()?,
    };
    let _lock = lock(&data_dir)?;
    progress.step("Starting the control plane");
    let config = Config {
        data_dir: data_dir.clone(),
        listen: args.listen,
        agent_program: args.agent.clone(),
        prebuilds_interval: PREBUILDS_INTERVAL,
        // One person, one address: there is nobody to share the server with.
        rate_limit: 0,
        ..Config::default()
    };
    let server = Server::bind(config).await?;
    let app = server.app();
    let serving = tokio::spawn(server.run());
    let started = tokio::select! {
        started = start(&app, &args, &data_dir, &progress) => started.map(Some),
        () = stop.recv() => Ok(None),
    };
    let result = match started {
        Ok(Some(ready)) => {
            progress.finish();
            let adit = provision::program_beside("adit").unwrap_or_else(|_| "adit".into());
            report::print(&ready, args.output, &adit).context("print the result")?;
            stop.recv().await;
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    let progress = Progress::new();
    progress.step("Stopping the workspaces");
    tokio::select! {
        () = provision::stop_workspaces(&app, STOP_GRACE) => {}
        () = stop.recv() => provision::stop_workspaces(&app, Duration::ZERO).await,
    }
    progress.step("Stopping the control plane");
    app.shutdown.cancel();
    let ended = tokio::time::timeout(SERVER_GRACE, serving).await;
    progress.finish();
    match (result, ended) {
        (Err(error), _) => Err(error),
        (Ok(()), Ok(ended)) => ended.context("the server failed")?,
        (Ok(()), Err(_)) => bail!("the server did not end in time"),
    }
}

/// Sets everything up and waits for it.
async fn start(
    app: &App,
    args: &DevArgs,
    data_dir: &Path,
    progress: &Progress,
) -> anyhow::Result<Ready> {
    progress.step("Setting up the user and the template");
    let user = setup::user(app, data_dir).await?;
    let config_dir = data_dir.join("cli");
    let session_token = setup::login(app, &user, &config_dir).await?;
    setup::prebuilds(app, i64::from(args.prebuilds)).await?;
    let workspace = setup::workspace(app, &user, &args.workspace).await?;
    let wait = async {
        let agent_id = setup::ready(app, workspace, |step| {
            progress.step(&match step {
                Step::Build => format!("Building the workspace {:?}", args.workspace),
                Step::Connect(AgentStatus::Timeout) => {
                    "Still waiting for the agent to connect".to_owned()
                }
                Step::Connect(_) => "Waiting for the agent to connect".to_owned(),
                Step::Scripts => "Running the start scripts".to_owned(),
            });
        })
        .await?;
        if args.prebuilds > 0 {
            progress.step(&format!("Building {} more to be claimed", args.prebuilds));
            setup::prebuilds_ready(app, usize::from(args.prebuilds)).await?;
        }
        anyhow::Ok(agent_id)
    };
    let agent_id = tokio::time::timeout(READY_TIMEOUT, wait)
        .await
        .with_context(|| {
            format!(
                "not ready within {READY_TIMEOUT:?}; see the files agent.log below {}",
                data_dir.display()
            )
        })??;
    Ok(Ready {
        url: app.access_url.as_str().trim_end_matches('/').to_owned(),
        session_token,
        user: user.username,
        workspace: args.workspace.clone(),
        agent_id,
        config_dir,
    })
}

/// The two signals that end the program.
#[derive(Debug)]
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Keeps a second server away from the data as long as the file is open.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(data_dir)
        .with_context(|| format!("make directory {}", data_dir.display()))?;
    let path = data_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another adit-server uses {}; stop it, or choose another --data-dir and --listen",
                data_dir.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

/// Where data is kept when nothing is said.
fn default_data_dir() -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    let base = match absolute("XDG_DATA_HOME") {
        Some(dir) => dir,
        None => {
            let home =
                absolute("HOME").context("HOME is not set; choose a directory with --data-dir")?;
            if cfg!(target_os = "macos") {
                home.join("Library/Application Support")
            } else {
                home.join(".local/share")
            }
        }
    };
    Ok(base.join("adit/dev"))
}
