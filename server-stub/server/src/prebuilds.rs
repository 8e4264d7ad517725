//! Keeps workspaces ready that nobody asked for yet.
//!
//! An unclaimed workspace belongs to a system user. The loop here compares how
//! many there are of each preset with how many there should be, whenever
//! something changed and at intervals; [`plan`] decides. Claiming is part of
//! creating a workspace: the store hands over a ready one in the transaction
//! that would otherwise make a new one.

mod plan;

use std::{collections::BTreeMap, time::Duration};

use adit_rest::{AutomaticUpdates, JobStatus, Time, Transition};
use adit_store::{
    NewBuild, NewWorkspace, Prebuild, Result as StoreResult,
    model::{PREBUILDS_USER, PrebuildStage, Preset, Template},
};
use uuid::Uuid;

use crate::{app::App, pubsub::WorkspaceEventKind};
use plan::Action;

/// The shortest time between two passes, so that a burst of changes is one.
const SETTLE: Duration = Duration::from_millis(20);

/// Starts the loop; it ends when the server shuts down.
pub(crate) fn start(app: &App) {
    let (app, shutdown) = (app.clone(), app.shutdown.clone());
    let tasks = app.tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = run(&app) => {}
            () = shutdown.cancelled() => {}
        }
    });
}

async fn run(app: &App) {
    let interval = app.config.prebuilds_interval.max(Duration::from_secs(1));
    loop {
        let again = match pass(app).await {
            Ok(again) => again,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "looking after prebuilt workspaces failed"
                );
                None
            }
        };
        let wait = again.map_or(interval, |until| {
            let micros = until
                .as_micros()
                .saturating_sub(Time::now().as_micros())
                .max(0)
                .unsigned_abs();
            // The pause ends strictly after its last moment.
            Duration::from_micros(micros + 1).min(interval)
        });
        // What changed meanwhile has left a permit.
        let _ = tokio::time::timeout(wait, app.pubsub.prebuilds.notified()).await;
        tokio::time::sleep(SETTLE).await;
    }
}

/// Looks at everything once; returns when to look again at the latest.
async fn pass(app: &App) -> StoreResult<Option<Time>> {
    let presets = app.store.prebuild_presets().await?;
    let mut all: BTreeMap<Uuid, Vec<Prebuild>> = BTreeMap::new();
    for prebuild in app.store.prebuilds().await? {
        all.entry(prebuild.build.preset_id.unwrap_or_default())
            .or_default()
            .push(prebuild);
    }
    let now = Time::now();
    let mut next: Option<Time> = None;
    let mut note = |until: Option<Time>| {
        next = match (next, until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    };
    for (template, preset) in &presets {
        let existing = all.remove(&preset.id).unwrap_or_default();
        let active = !template.deleted && template.options.deprecation_message.is_empty();
        let desired = usize::try_from(preset.desired_instances.unwrap_or(0)).unwrap_or(0);
        let (action, until) = plan::plan(&view(active, desired, &existing), now);
        note(until);
        match action {
            Some(Action::Create(count)) => {
                for _ in 0..count {
                    create(app, template, preset).await?;
                }
            }
            Some(Action::Delete(ids)) => delete(app, &existing, &ids).await?,
            None => {}
        }
    }
    // What is left belongs to presets of versions that are not active any more.
    for existing in all.into_values() {
        let (action, until) = plan::plan(&view(false, 0, &existing), now);
        note(until);
        if let Some(Action::Delete(ids)) = action {
            delete(app, &existing, &ids).await?;
        }
    }
    Ok(next)
}

/// What there is of a preset, as the plan wants to know it.
fn view(active: bool, desired: usize, existing: &[Prebuild]) -> plan::Preset {
    let starts = || {
        existing
            .iter()
            .filter(|prebuild| prebuild.build.transition == Transition::Start)
    };
    let with = |wanted: JobStatus| starts().filter(move |prebuild| prebuild.job.status() == wanted);
    let mut newest: Vec<_> = starts().filter(|prebuild| prebuild.job.is_done()).collect();
    newest.sort_by_key(|prebuild| std::cmp::Reverse(prebuild.build.created_at));
    plan::Preset {
        active,
        desired,
        running: with(JobStatus::Succeeded)
            .map(|prebuild| (prebuild.workspace.id, prebuild.workspace.created_at))
            .collect(),
        starting: with(JobStatus::Pending).count() + with(JobStatus::Running).count(),
        failures: newest
            .into_iter()
            .take_while(|prebuild| prebuild.job.status() == JobStatus::Failed)
            .map(|prebuild| prebuild.build.created_at)
            .collect(),
    }
}

async fn create(app: &App, template: &Template, preset: &Preset) -> StoreResult<()> {
    let workspace = NewWorkspace {
        owner_id: PREBUILDS_USER,
        organization_id: template.organization_id,
        template_id: template.id,
        name: plan::workspace_name(),
        automatic_updates: AutomaticUpdates::Never,
        ..NewWorkspace::default()
    };
    let build = NewBuild {
        template_version_id: template.active_version_id,
        initiator_id: PREBUILDS_USER,
        parameters: preset
            .parameters
            .iter()
            .map(|parameter| adit_rest::BuildParameter {
                name: parameter.name.clone(),
                value: parameter.value.clone(),
            })
            .collect(),
        preset_id: Some(preset.id),
        stage: PrebuildStage::Create,
        ..NewBuild::default()
    };
    let created = app.store.create_workspace(&workspace, &build).await?;
    tracing::info!(
        workspace = created.workspace.name,
        preset = preset.name,
        "building a workspace ahead of time"
    );
    app.workspace_changed(&created.workspace, WorkspaceEventKind::Build);
    app.pubsub.queue.notify_one();
    Ok(())
}

async fn delete(app: &App, existing: &[Prebuild], ids: &[Uuid]) -> StoreResult<()> {
    for prebuild in existing
        .iter()
        .filter(|prebuild| ids.contains(&prebuild.workspace.id))
    {
        // It may have been claimed since the look.
        let current = app.store.workspace(prebuild.workspace.id).await?;
        if !current.is_prebuild() {
            continue;
        }
        let build = NewBuild {
            workspace_id: current.id,
            template_version_id: prebuild.build.template_version_id,
            transition: Transition::Delete,
            initiator_id: PREBUILDS_USER,
            ..NewBuild::default()
        };
        match app.store.create_build(&build).await {
            Ok(_) => {
                tracing::info!(
                    workspace = current.name,
                    "removing a workspace nobody claimed"
                );
                app.workspace_changed(&current, WorkspaceEventKind::Build);
                app.pubsub.queue.notify_one();
            }
            Err(adit_store::Error::BuildActive) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
