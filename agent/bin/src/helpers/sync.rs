//! `exp sync`: order between scripts that run side by side.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use adit_agent_core::ipc::messages::{Empty, List, Named, Ready, UnitStatus, Want};
use adit_agent_core::ipc::{Client, DEFAULT_PATH};
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use tokio::time::{Instant, sleep};

use super::block_on;
use crate::cli::duration;

/// Time between two looks at whether a unit may begin.
const LOOK: Duration = Duration::from_secs(1);

/// Which agent, and what to do.
#[derive(Debug, Args)]
pub(crate) struct Sync {
    /// The agent's socket.
    #[arg(
        long,
        global = true,
        env = "CODER_AGENT_SOCKET_PATH",
        default_value = ""
    )]
    socket_path: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Ask whether the agent answers.
    Ping,
    /// Have a unit wait for others.
    Want {
        /// The unit that waits.
        unit: String,
        /// The units it waits for.
        #[arg(required = true)]
        depends_on: Vec<String>,
    },
    /// Wait until a unit may begin, and begin it.
    Start {
        /// The unit.
        unit: String,
        /// How long to wait.
        #[arg(long, default_value = "5m", value_parser = duration)]
        timeout: Duration,
    },
    /// Say that a unit has ended.
    Complete {
        /// The unit.
        unit: String,
    },
    /// Show a unit and what it waits for.
    Status {
        /// The unit.
        unit: String,
    },
    /// Show all units.
    List,
}

/// The socket's path, or the usual one for the empty name.
pub(crate) fn socket(path: &str) -> PathBuf {
    PathBuf::from(if path.is_empty() { DEFAULT_PATH } else { path })
}

pub(crate) fn run(args: &Sync) -> anyhow::Result<ExitCode> {
    let path = socket(&args.socket_path);
    let client = Client::new(&path);
    block_on(answer(&client, &args.what))
        .with_context(|| format!("agent at {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

async fn answer(client: &Client, what: &What) -> anyhow::Result<()> {
    let named = |unit: &String| Named { unit: unit.clone() };
    match what {
        What::Ping => {
            let Empty {} = client.call("Ping", &Empty {}).await?;
            println!("Success");
        }
        What::Want { unit, depends_on } => {
            for on in depends_on {
                let want = Want {
                    unit: unit.clone(),
                    depends_on: on.clone(),
                };
                let Empty {} = client.call("SyncWant", &want).await?;
            }
        }
        What::Start { unit, timeout } => {
            let until = Instant::now() + *timeout;
            loop {
                let Ready { ready } = client.call("SyncReady", &named(unit)).await?;
                if ready {
                    break;
                }
                if Instant::now() + LOOK > until {
                    bail!("{unit:?} still waits for others after {timeout:?}");
                }
                sleep(LOOK).await;
            }
            let Empty {} = client.call("SyncStart", &named(unit)).await?;
        }
        What::Complete { unit } => {
            let Empty {} = client.call("SyncComplete", &named(unit)).await?;
        }
        What::Status { unit } => {
            let status: UnitStatus = client.call("SyncStatus", &named(unit)).await?;
            println!("Unit:   {unit}");
            println!("Status: {}", shown(&status.status));
            println!("Ready:  {}", status.is_ready);
            for d in &status.dependencies {
                println!("Waits for {}: {}", d.depends_on, shown(&d.current_status));
            }
        }
        What::List => {
            let list: List = client.call("SyncList", &Empty {}).await?;
            for unit in &list.units {
                let ready = if unit.is_ready { "ready" } else { "waiting" };
                println!("{}\t{}\t{ready}", unit.unit, shown(&unit.status));
            }
        }
    }
    Ok(())
}

fn shown(status: &str) -> &str {
    if status.is_empty() {
        "not registered"
    } else {
        status
    }
}
