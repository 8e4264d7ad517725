//! Takes jobs from the queue and carries them out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use adit_rest::{JobType, LogLevel, LogSource, ReinitializationEvent, Time, Transition};
use adit_store::{
    BuildResult, Error as StoreError, NewJobLog,
    model::{Build, Job, PrebuildStage, Template},
    spec::ResourceSpec,
};
use tokio::{sync::Semaphore, task::JoinSet};
use uuid::Uuid;

use super::supervisor::Supervisor;
use crate::{
    app::App,
    pubsub::{JobEvent, WorkspaceEventKind},
    template::LOCAL,
};

/// Jobs carried out at the same time.
const PARALLEL: usize = 16;

/// How long the agent of a workspace may take to stop, stop scripts included.
const STOP_GRACE: Duration = Duration::from_secs(60);

/// How often the queue is looked at although nobody announced a job.
const POLL: Duration = Duration::from_secs(30);

/// When the queue is looked at again after the database failed.
const RETRY: Duration = Duration::from_secs(1);

/// Carries out the jobs of this server.
#[derive(Debug)]
pub(crate) struct Runner {
    app: App,
    supervisor: Arc<Supervisor>,
    worker: Uuid,
}

/// Why a build failed: the text its initiator sees.
type Failure = String;

impl Runner {
    pub(crate) fn new(app: App, supervisor: Arc<Supervisor>, worker: Uuid) -> Self {
        Self {
            app,
            supervisor,
            worker,
        }
    }

    /// Finishes what an earlier run of the server began, and then works on the
    /// queue until dropped.
    pub(crate) async fn run(self) {
        let this = Arc::new(self);
        let slots = Arc::new(Semaphore::new(PARALLEL));
        let mut jobs = JoinSet::new();
        match this.app.store.unfinished_jobs().await {
            Ok(unfinished) => {
                for job in unfinished {
                    jobs.spawn(Arc::clone(&this).carry_out(job));
                }
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "could not list unfinished jobs"
            ),
        }
        loop {
            while jobs.try_join_next().is_some() {}
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let mut pause = POLL;
            match this.app.store.acquire_job(this.worker).await {
                Ok(Some(job)) => {
                    let this = Arc::clone(&this);
                    jobs.spawn(async move {
                        this.carry_out(job).await;
                        drop(slot);
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    pause = RETRY;
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "could not take a job"
                    );
                }
            }
            drop(slot);
            // A job posted since the look at the queue has left a permit.
            let _ = tokio::time::timeout(pause, this.app.pubsub.queue.notified()).await;
        }
    }

    /// Starts the agents of local workspaces whose last build was a start.
    pub(crate) async fn restore(&self) -> Result<(), StoreError> {
        let store = &self.app.store;
        for workspace in store.running_workspaces(LOCAL).await? {
            let build = store.latest_build(workspace.id).await?;
            for agent in store.agents_of_job(build.job_id).await? {
                if agent.parent_id.is_some() {
                    continue;
                }
                if let Err(error) = self.supervisor.start(workspace.id, agent.auth_token).await {
                    tracing::error!(workspace = workspace.name, %error, "could not start the workspace's agent");
                }
            }
        }
        Ok(())
    }

    async fn carry_out(self: Arc<Self>, job: Job) {
        let id = job.id;
        let result = match job.job_type {
            JobType::WorkspaceBuild => self.build(&job).await,
            JobType::TemplateVersionDryRun => self.dry_run(&job).await,
            other => Err(format!("jobs of type {other} are not carried out here")),
        };
        if let Err(failure) = result {
            tracing::warn!(job = %id, failure, "job failed");
            if let Err(error) = self.app.store.fail_job(id, &failure, "", None).await {
                tracing::error!(job = %id, error = &error as &dyn std::error::Error, "could not record the failure");
            }
            if let Ok(build) = self.app.store.build_by_job(id).await {
                self.changed(&build).await;
            }
        }
        self.app.pubsub.jobs.publish(&id, JobEvent::Done);
    }

    async fn dry_run(&self, job: &Job) -> Result<(), Failure> {
        self.log(job, "Setting up", "").await;
        let version = job
            .input
            .template_version_id
            .ok_or("the dry run names no template version")?;
        let version = self.app.store.version(version).await.map_err(text)?;
        self.log(job, "Cleaning Up", "").await;
        self.app
            .store
            .complete_job(job.id, &version.spec.resources)
            .await
            .map_err(text)
    }

    async fn build(&self, job: &Job) -> Result<(), Failure> {
        let store = &self.app.store;
        let build = store.build_by_job(job.id).await.map_err(text)?;
        let workspace = store.workspace(build.workspace_id).await.map_err(text)?;
        let template = store.template(workspace.template_id).await.map_err(text)?;
        self.changed(&build).await;
        self.log(job, "Setting up", "").await;
        let resources = match build.transition {
            Transition::Start => self.start(job, &build, &template).await?,
            Transition::Stop => self.stop(job, &build, &template).await?,
            Transition::Delete => {
                self.delete(job, &build, &template).await?;
                Vec::new()
            }
            _ => return Err("unknown transition".into()),
        };
        self.log(job, "Cleaning Up", "").await;
        let result = BuildResult {
            resources,
            state: None,
        };
        let build = store.complete_build(job.id, &result).await.map_err(text)?;
        if build.transition == Transition::Start && job.input.stage() != PrebuildStage::Claim {
            self.launch(&build, &template).await;
        }
        self.changed(&build).await;
        if job.input.stage() == PrebuildStage::Claim {
            let event = ReinitializationEvent {
                workspace_id: workspace.id,
                reason: "prebuild_claimed".into(),
                owner_id: workspace.owner_id,
            };
            self.app.pubsub.claims.publish(&workspace.id, event);
        }
        self.app.pubsub.prebuilds.notify_one();
        Ok(())
    }

    /// Tells who watches the workspace of a build.
    async fn changed(&self, build: &Build) {
        self.app
            .workspace_id_changed(build.workspace_id, WorkspaceEventKind::Build)
            .await;
    }

    /// What a start build makes.
    async fn start(
        &self,
        job: &Job,
        build: &Build,
        template: &Template,
    ) -> Result<Vec<ResourceSpec>, Failure> {
        let version = self
            .app
            .store
            .version(build.template_version_id)
            .await
            .map_err(text)?;
        if let Some(error) = version
            .spec
            .driver
            .get("apply_error")
            .and_then(serde_json::Value::as_str)
        {
            return Err(error.to_owned());
        }
        let mut resources = version.spec.resources;
        self.log(job, "Starting workspace", "").await;
        if job.input.stage() == PrebuildStage::Claim {
            // The compute runs on, and so do its tokens; the sessions of the
            // agents as they were end here.
            let running = self.running_agents(build).await?;
            for agent in resources
                .iter_mut()
                .flat_map(|resource| &mut resource.agents)
            {
                agent.auth_token = running.get(&agent.name).copied();
            }
            self.app.pubsub.outdated.publish(&build.workspace_id, ());
        } else if template.provisioner == LOCAL {
            self.supervisor.check().map_err(|error| error.to_string())?;
            // An agent with the token of an earlier build is of no use.
            self.supervisor.stop(build.workspace_id, STOP_GRACE).await;
            self.log(
                job,
                "Starting workspace",
                "Starting the agent on this machine",
            )
            .await;
        }
        Ok(resources)
    }

    /// Tokens of the agents of the build before this one, by name.
    async fn running_agents(&self, build: &Build) -> Result<BTreeMap<String, Uuid>, Failure> {
        let store = &self.app.store;
        let before = store
            .build_by_number(build.workspace_id, build.build_number - 1)
            .await
            .map_err(text)?;
        let agents = store.agents_of_job(before.job_id).await.map_err(text)?;
        Ok(agents
            .into_iter()
            .map(|agent| (agent.name, agent.auth_token))
            .collect())
    }

    async fn stop(
        &self,
        job: &Job,
        build: &Build,
        template: &Template,
    ) -> Result<Vec<ResourceSpec>, Failure> {
        let version = self
            .app
            .store
            .version(build.template_version_id)
            .await
            .map_err(text)?;
        self.log(job, "Stopping workspace", "").await;
        if template.provisioner == LOCAL {
            self.log(job, "Stopping workspace", "Waiting for the agent to stop")
                .await;
            self.supervisor.stop(build.workspace_id, STOP_GRACE).await;
        }
        Ok(version.spec.stop_resources)
    }

    async fn delete(&self, job: &Job, build: &Build, template: &Template) -> Result<(), Failure> {
        self.log(job, "Destroying workspace", "").await;
        if template.provisioner == LOCAL {
            self.supervisor
                .delete(build.workspace_id, STOP_GRACE)
                .await
                .map_err(|error| format!("remove the workspace's directory: {error}"))?;
        }
        Ok(())
    }

    /// Starts the agents of a completed build.
    async fn launch(&self, build: &Build, template: &Template) {
        if template.provisioner != LOCAL {
            return;
        }
        let agents = match self.app.store.agents_of_job(build.job_id).await {
            Ok(agents) => agents,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "could not list the agents of a build"
                );
                return;
            }
        };
        for agent in agents {
            if let Err(error) = self
                .supervisor
                .start(build.workspace_id, agent.auth_token)
                .await
            {
                tracing::error!(workspace = %build.workspace_id, %error, "could not start the workspace's agent");
            }
        }
    }

    /// Adds a line to the job's log; an empty one announces the stage.
    async fn log(&self, job: &Job, stage: &str, output: &str) {
        let line = NewJobLog {
            created_at: Time::now(),
            source: if output.is_empty() {
                LogSource::ProvisionerDaemon
            } else {
                LogSource::Provisioner
            },
            level: LogLevel::Info,
            stage: stage.to_owned(),
            output: output.to_owned(),
        };
        match self.app.store.append_job_logs(job.id, &[line]).await {
            Ok(Some(first)) => self.app.pubsub.jobs.publish(&job.id, JobEvent::Logs(first)),
            Ok(None) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not store a job's log"
            ),
        }
    }
}

fn text(error: StoreError) -> Failure {
    format!("{:#}", anyhow::Error::from(error))
}
