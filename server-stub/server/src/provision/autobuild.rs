//! Stops workspaces whose time is up, and starts those whose schedule says so.

use std::time::Duration;

use adit_rest::{BuildReason, JobStatus, Time, Transition, UserStatus};
use adit_store::{
    Error as StoreError, NewBuild, Result as StoreResult,
    model::{Build, Job, TemplateOptions, User, Workspace},
};

use crate::{
    app::App,
    pubsub::WorkspaceEventKind,
    schedule::{self, Weekly},
};

/// How often workspaces are looked at; schedules have minutes.
const PERIOD: Duration = Duration::from_secs(60);

const MINUTE_MICROS: i64 = 60_000_000;

/// Looks at all workspaces once a minute, until dropped.
pub(super) async fn run(app: &App) {
    loop {
        let now = Time::now();
        if let Err(error) = pass(app, now).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "looking for workspaces to start or stop failed"
            );
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn pass(app: &App, now: Time) -> StoreResult<()> {
    let store = &app.store;
    // Most workspaces have neither a deadline nor a schedule.
    for workspace in store.clocked_workspaces().await? {
        let build = store.latest_build(workspace.id).await?;
        let facts = Facts {
            job: store.job(build.job_id).await?,
            owner: store.user(workspace.owner_id).await?,
            options: store.template(workspace.template_id).await?.options,
            workspace,
            build,
        };
        let Some((transition, reason)) = decide(&facts, now) else {
            continue;
        };
        let Facts {
            workspace, build, ..
        } = facts;
        let new = NewBuild {
            workspace_id: workspace.id,
            template_version_id: build.template_version_id,
            transition,
            initiator_id: workspace.owner_id,
            reason,
            parameters: build.parameters,
            preset_id: build.preset_id,
            ..NewBuild::default()
        };
        match store.create_build(&new).await {
            Ok(_) => {
                tracing::info!(workspace = workspace.name, %reason, "building by the clock");
                app.pubsub.queue.notify_one();
                app.workspace_changed(&workspace, WorkspaceEventKind::Build);
            }
            // Somebody was faster.
            Err(StoreError::BuildActive | StoreError::WorkspaceDeleted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What decides about one workspace.
#[derive(Clone, Debug, Default)]
struct Facts {
    workspace: Workspace,
    build: Build,
    job: Job,
    owner: User,
    options: TemplateOptions,
}

/// The build a workspace is due for, if any. Times count in whole minutes.
fn decide(facts: &Facts, now: Time) -> Option<(Transition, BuildReason)> {
    let Facts {
        workspace,
        build,
        job,
        owner,
        options,
    } = facts;
    let minute = Time::from_micros(now.as_micros() - now.as_micros().rem_euclid(MINUTE_MICROS));
    let idle = job.is_done() && job.status() != JobStatus::Failed && workspace.dormant_at.is_none();
    if !idle {
        return None;
    }
    match build.transition {
        Transition::Start => {
            let over = build.deadline.is_some_and(|deadline| deadline < minute);
            let suspended = owner.status == UserStatus::Suspended;
            (over || suspended).then_some((Transition::Stop, BuildReason::Autostop))
        }
        Transition::Stop => {
            let allowed = options.allow_user_autostart && owner.status == UserStatus::Active;
            let schedule = workspace
                .autostart_schedule
                .as_deref()
                .filter(|_| allowed)?;
            let schedule: Weekly = schedule::parse(schedule).ok()?;
            // From the stop on: a start that was missed is made up for.
            let due = schedule.next(build.created_at)?;
            (minute >= due).then_some((Transition::Start, BuildReason::Autostart))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Time {
        // A Monday, 08:00 UTC.
        let monday: Time = "2024-01-01T08:00:00Z".parse().unwrap_or_default();
        monday.plus_micros(minutes * MINUTE_MICROS)
    }

    fn facts(transition: Transition) -> Facts {
        let mut facts = Facts::default();
        facts.build.transition = transition;
        facts.build.created_at = at(0);
        facts.job.started_at = Some(at(0));
        facts.job.completed_at = Some(at(0));
        facts.owner.status = UserStatus::Active;
        facts
    }

    #[test]
    fn a_workspace_stops_once_its_deadline_is_past() {
        let mut facts = facts(Transition::Start);
        assert_eq!(decide(&facts, at(1000)), None);
        facts.build.deadline = Some(at(60));
        // Not in the minute of the deadline itself, as elsewhere.
        assert_eq!(decide(&facts, at(60).plus_micros(30_000_000)), None);
        assert_eq!(
            decide(&facts, at(61)),
            Some((Transition::Stop, BuildReason::Autostop))
        );
        facts.job.completed_at = None;
        assert_eq!(decide(&facts, at(61)), None);
    }

    #[test]
    fn a_suspended_users_workspace_stops() {
        let mut facts = facts(Transition::Start);
        facts.owner.status = UserStatus::Suspended;
        assert_eq!(
            decide(&facts, at(0)),
            Some((Transition::Stop, BuildReason::Autostop))
        );
    }

    #[test]
    fn a_schedule_starts_a_stopped_workspace() {
        let mut facts = facts(Transition::Stop);
        facts.workspace.autostart_schedule = Some("CRON_TZ=UTC 30 9 * * 1-5".into());
        assert_eq!(decide(&facts, at(89)), None);
        assert_eq!(
            decide(&facts, at(90)),
            Some((Transition::Start, BuildReason::Autostart))
        );
        // Late, but not never.
        assert_eq!(
            decide(&facts, at(500)),
            Some((Transition::Start, BuildReason::Autostart))
        );
        facts.options.allow_user_autostart = false;
        assert_eq!(decide(&facts, at(500)), None);
    }

    #[test]
    fn failed_and_dormant_workspaces_are_left_alone() {
        let mut stopped = facts(Transition::Start);
        stopped.build.deadline = Some(at(1));
        stopped.job.error = "broken".into();
        assert_eq!(decide(&stopped, at(100)), None);
        let mut dormant = facts(Transition::Start);
        dormant.build.deadline = Some(at(1));
        dormant.workspace.dormant_at = Some(at(0));
        assert_eq!(decide(&dormant, at(100)), None);
    }
}
