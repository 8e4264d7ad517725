//! One agent, from its first connection to `off`.
//!
//! A claimed workspace gets a new instance in the same process; nothing of the
//! old one's environment, keys or queues is shared with it.

mod shutdown;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use adit_rpc::AgentClient;
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;
use crate::context::Workspace;
use crate::diagnose::SessionError;
use crate::lifecycle::{Lifecycle, State};
use crate::manifest::{Manifest, Script, Secret};
use crate::metrics::Metrics;
use crate::reports::ConnectionReports;
use crate::scripts::{Runner, Stage, StageOutcome, run_cron};
use crate::shared::{Completions, Logs};
use crate::tunnel::Tunnel;
use crate::{files, session};

/// The agent of one owner. Everything in here outlives control connections.
pub(crate) struct Instance {
    pub(crate) config: Arc<AgentConfig>,
    pub(crate) http: adit_http::Client,
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) manifest: watch::Sender<Option<Arc<Manifest>>>,
    pub(crate) lifecycle: watch::Sender<Lifecycle>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) completions: Arc<Completions>,
    pub(crate) reports: Arc<ConnectionReports>,
    pub(crate) metrics: Arc<Metrics>,
    /// The control plane, while it is connected.
    pub(crate) control: watch::Sender<Option<AgentClient>>,
    /// Cancelled when shutdown begins.
    pub(crate) graceful: CancellationToken,
    /// Cancelled when start scripts have ended.
    pub(crate) started: CancellationToken,
    pub(crate) sub_agents_listed: AtomicBool,
    /// Cancelled when scheduled scripts have to end.
    cron: CancellationToken,
    /// Never cancelled: stop scripts end by themselves.
    never: CancellationToken,
    tunnel: OnceCell<Tunnel>,
    runner: Mutex<Option<(Runner, Vec<Script>)>>,
    scripts: Mutex<JoinSet<()>>,
}

impl Instance {
    pub(crate) fn new(config: Arc<AgentConfig>, http: adit_http::Client) -> Arc<Self> {
        Arc::new(Self {
            workspace: Arc::new(Workspace::new(Arc::clone(&config))),
            config,
            http,
            manifest: watch::Sender::new(None),
            lifecycle: watch::Sender::new(Lifecycle::default()),
            logs: Arc::default(),
            completions: Arc::default(),
            reports: Arc::default(),
            metrics: Arc::default(),
            control: watch::Sender::new(None),
            graceful: CancellationToken::new(),
            started: CancellationToken::new(),
            sub_agents_listed: AtomicBool::new(false),
            cron: CancellationToken::new(),
            never: CancellationToken::new(),
            tunnel: OnceCell::new(),
            runner: Mutex::default(),
            scripts: Mutex::default(),
        })
    }

    /// Runs until `stop` is cancelled and the shutdown that follows is over.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let shutdown = async {
            stop.cancelled().await;
            self.shut_down().await;
        };
        tokio::select! {
            biased;
            () = shutdown => {}
            () = session::run(&self) => {}
        }
        self.end().await;
    }

    /// Moves on to `state`; a step back is ignored.
    pub(crate) fn enter(&self, state: State) {
        let mut moved = false;
        self.lifecycle.send_modify(|l| {
            moved = l.handle_transition(state, SystemTime::now());
        });
        if moved {
            tracing::info!(?state, "lifecycle");
        } else {
            tracing::debug!(?state, "lifecycle state ignored");
        }
    }

    /// The tunnel, started on first use.
    pub(crate) async fn tunnel(self: &Arc<Self>) -> Result<&Tunnel, SessionError> {
        let manifest = self.manifest.borrow().clone();
        let Some(manifest) = manifest else {
            return Err(SessionError::Closed);
        };
        let mut is_new = false;
        let tunnel = self
            .tunnel
            .get_or_try_init(|| {
                is_new = true;
                Tunnel::start(self, &manifest)
            })
            .await?;
        if !is_new {
            tunnel.handle_manifest(&manifest).await;
        }
        Ok(tunnel)
    }

    /// Somebody is connected through the tunnel.
    pub(crate) async fn is_in_use(&self) -> bool {
        match self.tunnel.get() {
            Some(tunnel) => tunnel.node().connection_stats().await.open_connections > 0,
            None => false,
        }
    }

    /// Takes a manifest over; the first one starts the scripts.
    pub(crate) async fn handle_manifest(
        self: &Arc<Self>,
        manifest: Manifest,
        secrets: Vec<Secret>,
    ) {
        let first = self.manifest.borrow().is_none();
        self.workspace.handle_manifest(&manifest, &secrets);
        let git_auth = manifest.git_auth_configs;
        let scripts = manifest.scripts.clone();
        self.manifest.send_replace(Some(Arc::new(manifest)));
        if !secrets.is_empty() {
            let home = self.config.home();
            let write = move || files::write_secrets(&secrets, &home);
            let _ = tokio::task::spawn_blocking(write).await;
        }
        if !first {
            return;
        }
        self.enter(State::Starting);
        if git_auth > 0 {
            let home = self.config.home();
            let data = self.config.var("XDG_DATA_HOME");
            let prepare = move || {
                files::prepare_editors(&home, data.as_deref().map(std::path::Path::new));
            };
            let _ = tokio::task::spawn_blocking(prepare).await;
        }
        self.start_scripts(scripts);
    }

    fn start_scripts(self: &Arc<Self>, scripts: Vec<Script>) {
        let runner = Runner {
            context: self.workspace.clone(),
            logs: Arc::clone(&self.logs),
            completions: Arc::clone(&self.completions),
            log_dir: self.config.log_dir.clone(),
            data_dir: self.config.data_dir(),
            metrics: Arc::clone(&self.metrics),
        };
        *self.runner.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((runner.clone(), scripts.clone()));
        // Without anything to run there is nothing to wait for either.
        if !scripts.iter().any(|s| s.on_start) {
            self.handle_started(StageOutcome::Ok, Instant::now());
        }
        let agent = Arc::clone(self);
        let mut tasks = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(async move {
            let began = Instant::now();
            let to_start: Vec<Script> = scripts.iter().filter(|s| s.on_start).cloned().collect();
            if !to_start.is_empty() {
                let outcome = runner
                    .run_stage(to_start, Stage::Start, &agent.graceful)
                    .await;
                agent.handle_started(outcome, began);
            }
            run_cron(&runner, &scripts, &agent.cron).await;
        });
    }

    fn handle_started(&self, outcome: StageOutcome, began: Instant) {
        let ok = outcome == StageOutcome::Ok;
        self.metrics.set(
            "coderd_agentstats_startup_script_seconds",
            &[("success", if ok { "true" } else { "false" })],
            began.elapsed().as_secs_f64(),
        );
        if !self.graceful.is_cancelled() {
            self.enter(match outcome {
                StageOutcome::Ok => State::Ready,
                StageOutcome::TimedOut => State::StartTimeout,
                StageOutcome::Failed => State::StartError,
            });
        }
        self.started.cancel();
    }
}
