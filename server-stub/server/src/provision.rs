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

use adit_rest::Time;
use url::Url;
use uuid::Uuid;

use crate::{app::App, config::Config, template::LOCAL};
use runner::Runner;
use supervisor::{LocalConfig, Supervisor};

/// Version of the provisioner API; the worker is part of this program and
/// speaks none on a wire.
pub(crate) const API_VERSION: &str = "1.18";
/// How often the worker says that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

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
    let (shutdown, app_of_work) = (app.shutdown.clone(), app.clone());
    let work = async move {
        let app = app_of_work;
        let worker = register(&app).await;
        let runner = Runner::new(app.clone(), Arc::clone(&app.provision.supervisor), worker);
        if let Err(error) = runner.restore().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "could not bring back local workspaces"
            );
        }
        tokio::join!(runner.run(), autobuild::run(&app), give_signs(&app, worker));
    };
    app.tasks.spawn(async move {
        tokio::select! {
            () = work => {}
            () = shutdown.cancelled() => {}
        }
    });
}

/// Makes this server's worker known; gives its id.
async fn register(app: &App) -> Uuid {
    let known = async {
        let organization = app.store.default_organization().await?.id;
        let name = format!("{}-0", host_name());
        let store = &app.store;
        store
            .register_provisioner(organization, &name, app.version(), API_VERSION, &[LOCAL])
            .await
    };
    known.await.unwrap_or_else(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "could not make the provisioner known"
        );
        Uuid::new_v4()
    })
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Notes now and then that the worker lives.
async fn give_signs(app: &App, worker: Uuid) {
    let mut signs = tokio::time::interval(SIGN_OF_LIFE);
    loop {
        signs.tick().await;
        if let Err(error) = app.store.provisioner_seen(worker, Time::now()).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not note a sign of life"
            );
        }
    }
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
