//! A provisioner that makes what the template version describes and says what
//! the recorded provisioner said. It works through the store, as any
//! provisioner does, and can be told to wait in the middle of a job, so that a
//! replay sees the states the recording saw.

use std::time::Duration;

use adit_rest::{JobType, LogLevel, LogSource, ReinitializationEvent, Time, Transition};
use adit_server::App;
use adit_server::pubsub::{JobEvent, WorkspaceEventKind};
use adit_store::model::{Job, PrebuildStage};
use adit_store::spec::ResourceSpec;
use adit_store::{BuildResult, NewJobLog};
use serde::Deserialize;
use tokio::sync::watch;

/// State left by a failed build: `partial` in base64.
const PARTIAL: &str = "cGFydGlhbA==";

/// What the version's driver settings say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Script {
    /// Lines by transition: source, level, stage, output.
    logs: std::collections::BTreeMap<String, Vec<(String, String, String, String)>>,
    /// How every build ends.
    error: String,
}

/// Takes jobs until dropped. While `hold` is true, jobs stop after their first
/// lines.
pub async fn run(app: App, mut hold: watch::Receiver<bool>) {
    let worker = uuid::Uuid::new_v4();
    loop {
        match app.store.acquire_job(worker).await {
            // The server is being stopped.
            Err(_) => return,
            Ok(Some(job)) => build(&app, &job, &mut hold).await,
            Ok(None) => {
                let wake = app.pubsub.queue.notified();
                let _ = tokio::time::timeout(Duration::from_millis(100), wake).await;
            }
        }
    }
}

async fn build(app: &App, job: &Job, hold: &mut watch::Receiver<bool>) {
    assert_eq!(job.job_type, JobType::WorkspaceBuild);
    let build = app.store.build_by_job(job.id).await.unwrap();
    let version = app.store.version(build.template_version_id).await.unwrap();
    let script: Script = serde_json::from_value(version.spec.driver.clone()).unwrap_or_default();
    app.workspace_id_changed(build.workspace_id, WorkspaceEventKind::Build)
        .await;
    let lines: Vec<NewJobLog> = script
        .logs
        .get(build.transition.as_str())
        .cloned()
        .unwrap_or_default()
        .into_iter()
        .map(|(source, level, stage, output)| NewJobLog {
            created_at: Time::now(),
            source: LogSource::parse(&source).unwrap(),
            level: LogLevel::parse(&level).unwrap(),
            stage,
            output,
        })
        .collect();
    let (first, rest) = lines.split_at(lines.len().min(2));
    say(app, job, first).await;
    let hangs = script.error == "canceled";
    let mut news = app.pubsub.jobs.subscribe(job.id);
    loop {
        let current = app.store.job(job.id).await.unwrap();
        if current.canceled_at.is_some() {
            // Ending takes a moment.
            tokio::time::sleep(Duration::from_millis(300)).await;
            break;
        }
        tokio::select! {
            result = hold.wait_for(|hold| !hold), if !hangs => {
                if result.is_err() {
                    return;
                }
                break;
            }
            _ = news.recv() => {}
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    say(app, job, rest).await;
    let orphan = job.input.orphan;
    if script.error.is_empty() || orphan {
        let resources = match build.transition {
            Transition::Start => version.spec.resources.clone(),
            _ => version.spec.stop_resources.clone(),
        };
        let mut resources = if orphan { Vec::new() } else { resources };
        if build.transition == Transition::Delete {
            resources
                .iter_mut()
                .for_each(|resource| resource.agents.clear());
        }
        let claims = job.input.stage() == PrebuildStage::Claim;
        if claims {
            keep_tokens(app, build.workspace_id, &mut resources).await;
        }
        let result = BuildResult {
            resources,
            state: None,
        };
        app.store.complete_build(job.id, &result).await.unwrap();
        if claims {
            let workspace = app.store.workspace(build.workspace_id).await.unwrap();
            let event = ReinitializationEvent {
                workspace_id: workspace.id,
                reason: "prebuild_claimed".into(),
                owner_id: workspace.owner_id,
            };
            app.pubsub.claims.publish(&workspace.id, event);
        }
    } else {
        app.store
            .fail_job(job.id, &script.error, "", Some(PARTIAL))
            .await
            .unwrap();
    }
    app.pubsub.jobs.publish(&job.id, JobEvent::Done);
    app.workspace_id_changed(build.workspace_id, WorkspaceEventKind::Build)
        .await;
}

/// The running compute keeps its agents' tokens.
async fn keep_tokens(app: &App, workspace: uuid::Uuid, resources: &mut [ResourceSpec]) {
    let first = app.store.build_by_number(workspace, 1).await.unwrap();
    let running = app.store.agents_of_job(first.job_id).await.unwrap();
    let new = resources
        .iter_mut()
        .flat_map(|resource| &mut resource.agents);
    for (new, old) in new.zip(running) {
        new.auth_token = Some(old.auth_token);
    }
}

async fn say(app: &App, job: &Job, lines: &[NewJobLog]) {
    if let Some(first) = app.store.append_job_logs(job.id, lines).await.unwrap() {
        app.pubsub.jobs.publish(&job.id, JobEvent::Logs(first));
    }
}
