//! Carries out queued jobs.
//!
//! ```text
//!   queue ──take──▶ Runner ──▶ driver ──▶ complete ──▶ events
//!                               │
//!                               ├ local: an agent process (Supervisor)
//!                               └ others: what the template describes is there
//! ```

mod autobuild;
mod process;
mod runner;
mod supervisor;

use std::{path::PathBuf, sync::Arc, time::Duration};

use url::Url;

use crate::{app::App, config::Config};
use runner::Runner;
use supervisor::{LocalConfig, Supervisor};

/// What this part keeps.
#[derive(Debug)]
pub(crate) struct State {
    supervisor: Arc<Supervisor>,
}

impl State {
    pub(crate) fn new(config: &Config, access_url: &Url) -> anyhow::Result<Self> {
        let program = match &config.agent_program {
            Some(program) => program.clone(),
            None => program_beside("adit-agent")?,
        };
        let local = LocalConfig {
            root: config.data_dir.join("workspaces"),
            program,
            access_url: access_url.clone(),
        };
        Ok(Self {
            supervisor: Arc::new(Supervisor::new(local)),
        })
    }
}

/// Brings back local workspaces and works on the queue until the server shuts
/// down. Nobody waits for it: agents and clients that come back after a restart
/// are served at once.
pub(crate) fn start(app: &App) {
    let runner = Runner::new(app.clone(), Arc::clone(&app.provision.supervisor));
    let (shutdown, by_clock) = (app.shutdown.clone(), app.clone());
    let work = async move {
        if let Err(error) = runner.restore().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "could not bring back local workspaces"
            );
        }
        tokio::join!(runner.run(), autobuild::run(&by_clock));
    };
    app.tasks.spawn(async move {
        tokio::select! {
            () = work => {}
            () = shutdown.cancelled() => {}
        }
    });
}

/// Ends all local workspaces and everything started in them. Their agents
/// still report meanwhile, so the server has to answer.
///
/// A server that ends without this leaves them running; its next run takes
/// them over.
pub(crate) async fn stop_workspaces(app: &App, grace: Duration) {
    app.provision.supervisor.shutdown(grace).await;
}

/// A program in the directory of this one.
pub(crate) fn program_beside(name: &str) -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}
