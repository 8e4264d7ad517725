//! Keeps the agent processes of local workspaces running.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use url::Url;
use uuid::Uuid;

use super::process::{self, AgentProcess, Launch};

/// A process that lived this long is restarted at once when it ends.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// The longest pause between two starts of a failing agent.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How long an agent that looks for the server at an old address has to end.
const OUTDATED_GRACE: Duration = Duration::from_secs(1);

/// Where local workspaces live and what runs in them.
#[derive(Clone, Debug)]
pub(crate) struct LocalConfig {
    /// The directory that holds one directory per workspace.
    pub(crate) root: PathBuf,
    /// The agent program.
    pub(crate) program: PathBuf,
    /// Where agents find the control plane.
    pub(crate) access_url: Url,
}

/// The agent processes of all local workspaces.
#[derive(Debug)]
pub(crate) struct Supervisor {
    config: LocalConfig,
    running: Mutex<HashMap<Uuid, Supervised>>,
    /// Nothing is started any more.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Supervised {
    stop: oneshot::Sender<Stop>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
enum Stop {
    /// End the process, forcibly after this time.
    Terminate(Duration),
    /// Leave the process running.
    Detach,
}

impl Supervisor {
    pub(crate) fn new(config: LocalConfig) -> Self {
        Self {
            config,
            running: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Fails if there is no agent program to start.
    pub(crate) fn check(&self) -> io::Result<()> {
        let program = &self.config.program;
        let problem = match std::fs::metadata(program) {
            Ok(metadata) if metadata.is_file() => return Ok(()),
            Ok(_) => "not a file".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(io::Error::other(format!(
            "agent program {}: {problem}; build it with `cargo build -p adit-agent`, or choose one \
             with --agent or ADIT_AGENT_BIN",
            program.display()
        )))
    }

    /// Makes sure the workspace's agent runs: keeps it if it does, adopts the
    /// one an earlier run of the server started, or starts it.
    pub(crate) async fn start(&self, workspace: Uuid, token: Uuid) -> io::Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(io::Error::other("the server is shutting down"));
        }
        if self.lock().contains_key(&workspace) {
            return Ok(());
        }
        let launch = self.launch(workspace);
        let process = {
            let launch = launch.clone();
            tokio::task::spawn_blocking(move || -> io::Result<Option<AgentProcess>> {
                launch.prepare(&token)?;
                Ok(launch.adopt())
            })
            .await
            .map_err(io::Error::other)??
        };
        let process = match process {
            Some(process) if process.is_current() => {
                tracing::info!(%workspace, pid = process.pid(), "found the agent still running");
                process
            }
            outdated => {
                if let Some(process) = outdated {
                    process.terminate(OUTDATED_GRACE).await;
                }
                // Whatever a crashed agent left would confuse the new one.
                process::end_leftovers(workspace).await;
                launch.spawn()?
            }
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(supervise(launch, process, stopped));
        if let Some(other) = self.lock().insert(workspace, Supervised { stop, task }) {
            // Two starts at once: the first one's watcher goes, the process is
            // the same or ends as a duplicate.
            let _ = other.stop.send(Stop::Detach);
        }
        Ok(())
    }

    /// Ends the workspace's agent and everything started in the workspace.
    pub(crate) async fn stop(&self, workspace: Uuid, grace: Duration) {
        let supervised = self.lock().remove(&workspace);
        match supervised {
            Some(supervised) => {
                let _ = supervised.stop.send(Stop::Terminate(grace));
                let _ = supervised.task.await;
            }
            None => {
                if let Some(process) = self.launch(workspace).adopt() {
                    process.terminate(grace).await;
                } else {
                    process::end_leftovers(workspace).await;
                }
            }
        }
    }

    /// Ends the workspace and deletes its directory.
    pub(crate) async fn delete(&self, workspace: Uuid, grace: Duration) -> io::Result<()> {
        self.stop(workspace, grace).await;
        match tokio::fs::remove_dir_all(self.launch(workspace).dir).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Ends all workspaces, at the same time. Nothing is started after that.
    pub(crate) async fn shutdown(&self, grace: Duration) {
        self.closed.store(true, Ordering::SeqCst);
        let all: Vec<_> = self.lock().drain().collect();
        let mut tasks = Vec::with_capacity(all.len());
        for (_, supervised) in all {
            let _ = supervised.stop.send(Stop::Terminate(grace));
            tasks.push(supervised.task);
        }
        for task in tasks {
            let _ = task.await;
        }
    }

    fn launch(&self, workspace: Uuid) -> Launch {
        Launch {
            program: self.config.program.clone(),
            access_url: self.config.access_url.clone(),
            dir: self.config.root.join(workspace.to_string()),
            workspace,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Supervised>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Restarts the agent whenever it ends without having been told to.
async fn supervise(launch: Launch, mut process: AgentProcess, mut stop: oneshot::Receiver<Stop>) {
    let workspace = launch.workspace;
    let mut pause = Duration::ZERO;
    loop {
        let started = Instant::now();
        let status = tokio::select! {
            how = &mut stop => {
                if let Ok(Stop::Terminate(grace)) = how {
                    process.terminate(grace).await;
                }
                return;
            }
            status = process.wait() => status,
        };
        pause = if started.elapsed() > HEALTHY_AFTER {
            Duration::ZERO
        } else {
            next_pause(pause)
        };
        tracing::warn!(%workspace, status, ?pause, "the agent of a local workspace ended; starting it again");
        process = loop {
            tokio::select! {
                how = &mut stop => {
                    if let Ok(Stop::Terminate(_)) = how {
                        process::end_leftovers(workspace).await;
                    }
                    return;
                }
                () = tokio::time::sleep(pause) => {}
            }
            match launch.spawn() {
                Ok(process) => break process,
                Err(error) => {
                    pause = next_pause(pause);
                    tracing::warn!(%workspace, %error, ?pause, "could not start the agent of a local workspace");
                }
            }
        };
    }
}

fn next_pause(pause: Duration) -> Duration {
    (pause * 2).clamp(Duration::from_millis(500), MAX_PAUSE)
}
