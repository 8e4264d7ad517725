//! Brings a deployment for one person into being, or back.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use adit_rest::{
    AgentStatus, BuildReason, JobStatus, LifecycleState, LoginType, Transition, UserStatus,
};
use adit_store::{
    Error as StoreError, NewBuild, NewUser, NewWorkspace,
    model::{Agent, User},
};
use anyhow::{Context as _, bail};
use uuid::Uuid;

use crate::{
    App,
    auth::{authenticate, new_key, password},
    pubsub::WorkspaceEventKind,
    template::{DEFAULT_PRESET, LOCAL},
};

/// The user's name.
const USER: &str = "admin";

/// The name of the token the client is logged in with.
const TOKEN: &str = "adit-server-dev";

/// How long that token is good for, in seconds.
const TOKEN_LIFETIME: i64 = 365 * 24 * 60 * 60;

/// How often a state is looked at while nothing announces a change.
const POLL: Duration = Duration::from_secs(1);

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The build.
    Build,
    /// The agent's session.
    Connect(AgentStatus),
    /// The start scripts.
    Scripts,
}

/// The user, made at the first start. The password for the web pages is kept
/// in the file `password`.
pub(super) async fn user(app: &App, data_dir: &Path) -> anyhow::Result<User> {
    match app.store.user_by_name(USER).await {
        Ok(user) => return Ok(user),
        Err(StoreError::NotFound) => {}
        Err(error) => return Err(error.into()),
    }
    let password = Uuid::new_v4().simple().to_string();
    write_private(&data_dir.join("password"), &password)?;
    let new = NewUser {
        username: USER.into(),
        email: format!("{USER}@localhost.localdomain"),
        password_hash: password::hash(password).await?,
        status: UserStatus::Active,
        login_type: LoginType::Password,
        roles: vec!["owner".into()],
        ..NewUser::default()
    };
    let organization = app.store.default_organization().await?;
    app.store
        .create_user(&new, &[organization.id])
        .await
        .context("make the user")
}

/// Logs the client in that is told to use `config_dir`; returns the token.
pub(super) async fn login(app: &App, user: &User, config_dir: &Path) -> anyhow::Result<String> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(config_dir)
        .with_context(|| format!("make directory {}", config_dir.display()))?;
    let session = config_dir.join("session");
    let url = app.access_url.as_str().trim_end_matches('/');
    write_private(&config_dir.join("url"), url)?;
    if let Ok(token) = fs::read_to_string(&session) {
        let token = token.trim().to_owned();
        if authenticate(app, Some(&token))
            .await
            .is_ok_and(|actor| actor.user.id == user.id)
        {
            return Ok(token);
        }
    }
    if let Some(old) = app.store.key_by_name(user.id, TOKEN).await? {
        app.store.delete_key(&old.id).await?;
    }
    let new = new_key(user.id, LoginType::Token, TOKEN_LIFETIME, TOKEN);
    app.store.insert_key(&new.key).await?;
    write_private(&session, &new.token)?;
    Ok(new.token)
}

/// Sets how many workspaces of the built-in template are kept ready.
pub(super) async fn prebuilds(app: &App, count: i64) -> anyhow::Result<()> {
    let organization = app.store.default_organization().await?;
    let template = app.store.template_by_name(organization.id, LOCAL).await?;
    for preset in app.store.presets(template.active_version_id).await? {
        if preset.name == DEFAULT_PRESET && preset.desired_instances != Some(count) {
            app.store
                .set_desired_instances(preset.id, Some(count))
                .await?;
        }
    }
    app.pubsub.prebuilds.notify_one();
    Ok(())
}

/// The user's workspace, made or started if it is not running; returns its id.
pub(super) async fn workspace(app: &App, user: &User, name: &str) -> anyhow::Result<Uuid> {
    let organization = app.store.default_organization().await?;
    let template = app.store.template_by_name(organization.id, LOCAL).await?;
    let build = NewBuild {
        template_version_id: template.active_version_id,
        initiator_id: user.id,
        reason: BuildReason::Initiator,
        ..NewBuild::default()
    };
    let workspace = match app.store.workspace_by_name(user.id, name, false).await {
        Ok(workspace) => {
            let latest = app.store.latest_build(workspace.id).await?;
            let job = app.store.job(latest.job_id).await?;
            let starts = latest.transition == Transition::Start;
            if job.is_done() && !(starts && job.status() == JobStatus::Succeeded) {
                app.store
                    .create_build(&NewBuild {
                        workspace_id: workspace.id,
                        ..build
                    })
                    .await?;
            }
            workspace
        }
        Err(StoreError::NotFound) => {
            let new = NewWorkspace {
                owner_id: user.id,
                organization_id: organization.id,
                template_id: template.id,
                name: name.to_owned(),
                ..NewWorkspace::default()
            };
            app.store
                .create_workspace(&new, &build)
                .await
                .context("make the workspace")?
                .workspace
        }
        Err(error) => return Err(error.into()),
    };
    app.workspace_changed(&workspace, WorkspaceEventKind::Build);
    app.pubsub.queue.notify_one();
    Ok(workspace.id)
}

/// Waits until a workspace's agent is there and has run its scripts; returns
/// its id.
pub(super) async fn ready(
    app: &App,
    workspace: Uuid,
    mut step: impl FnMut(Step),
) -> anyhow::Result<Uuid> {
    let owner = app.store.workspace(workspace).await?.owner_id;
    let mut events = app.pubsub.workspaces.subscribe(owner);
    let mut last = None;
    loop {
        events.drain();
        let now = match look(app, workspace).await? {
            Ok(agent) => return Ok(agent),
            Err(now) => now,
        };
        if last != Some(now) {
            step(now);
            last = Some(now);
        }
        let _ = tokio::time::timeout(POLL, events.recv()).await;
    }
}

/// The agent of a ready workspace, or what it waits for.
async fn look(app: &App, workspace: Uuid) -> anyhow::Result<Result<Uuid, Step>> {
    let build = app.store.latest_build(workspace).await?;
    let job = app.store.job(build.job_id).await?;
    match job.status() {
        JobStatus::Succeeded => {}
        JobStatus::Failed | JobStatus::Canceled => {
            bail!("the build of the workspace failed: {}", job.error)
        }
        _ => return Ok(Err(Step::Build)),
    }
    let agents = app.store.agents_of_job(job.id).await?;
    let agent = agents.first().context("the workspace has no agent")?;
    if !is_here(app, agent) {
        return Ok(Err(Step::Connect(AgentStatus::Connecting)));
    }
    Ok(match agent.lifecycle_state {
        LifecycleState::Ready | LifecycleState::StartError | LifecycleState::StartTimeout => {
            Ok(agent.id)
        }
        _ => Err(Step::Scripts),
    })
}

/// Whether the agent has a session with this run of the server.
fn is_here(app: &App, agent: &Agent) -> bool {
    agent.last_connected_at.is_some_and(|last| {
        last >= app.started_at && agent.disconnected_at.is_none_or(|gone| gone < last)
    })
}

/// Waits until so many workspaces are ready to be claimed.
pub(super) async fn prebuilds_ready(app: &App, count: usize) -> anyhow::Result<()> {
    loop {
        let mut ready = 0;
        for prebuild in app
            .store
            .prebuilds()
            .await?
            .into_iter()
            .filter(|prebuild| prebuild.ready)
        {
            let agents = app.store.agents_of_job(prebuild.job.id).await?;
            ready += usize::from(agents.iter().all(|agent| is_here(app, agent)));
        }
        if ready >= count {
            return Ok(());
        }
        tokio::time::sleep(POLL / 10).await;
    }
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("write {}", path.display()))
}
