//! Trying out what a template version would make.
//!
//! A dry run makes nothing: what a version describes is known, so the job
//! succeeds as soon as its log is written.

use adit_rest::{DryRunRequest, JobType, LogLevel, LogSource, ProvisionerJob, Time};
use adit_store::NewJobLog;
use adit_store::model::{Job, JobInput, TemplateVersion};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch, post};
use http::StatusCode;
use uuid::Uuid;

use super::parameters;
use crate::app::App;
use crate::auth::Actor;
use crate::convert;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Body, Id, Json, Query, Two, uuid};
use crate::pubsub::JobEvent;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/templateversions/{version}/dry-run", post(create))
        .route("/templateversions/{version}/dry-run/{job}", get(show))
        .route("/templateversions/{version}/dry-run/{job}/logs", get(logs))
        .route(
            "/templateversions/{version}/dry-run/{job}/resources",
            get(resources),
        )
        .route(
            "/templateversions/{version}/dry-run/{job}/matched-provisioners",
            get(matched),
        )
        .route(
            "/templateversions/{version}/dry-run/{job}/cancel",
            patch(cancel),
        )
}

async fn create(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    Body(request): Body<DryRunRequest>,
) -> ApiResult<Response> {
    let version = app.store.version(id).await?;
    let values = parameters::resolve(&version, &request.rich_parameter_values, &[])?;
    let import = app.store.job(version.job_id).await?;
    let job = app
        .store
        .insert_job(&Job {
            id: Uuid::new_v4(),
            organization_id: version.organization_id,
            initiator_id: actor.user.id,
            job_type: JobType::TemplateVersionDryRun,
            input: JobInput {
                template_version_id: Some(version.id),
                workspace_name: request.workspace_name,
                rich_parameter_values: values,
                ..JobInput::default()
            },
            file_id: import.file_id,
            created_at: Time::now(),
            started_at: Some(Time::now()),
            worker_id: Some(Uuid::new_v4()),
            ..Job::default()
        })
        .await?;
    let mut reply = convert::job(&app, &job).await?;
    run(&app, &version, job.id).await?;
    // As it was when it was queued.
    reply.started_at = None;
    reply.worker_id = None;
    reply.status = adit_rest::JobStatus::Pending;
    Ok((StatusCode::CREATED, Json(reply)).into_response())
}

async fn run(app: &App, version: &TemplateVersion, job: Uuid) -> ApiResult<()> {
    let line = |source, level, stage: &str, output: &str| NewJobLog {
        created_at: Time::now(),
        source,
        level,
        stage: stage.to_owned(),
        output: output.to_owned(),
    };
    let daemon = |stage| line(LogSource::ProvisionerDaemon, LogLevel::Info, stage, "");
    let mut lines = vec![daemon("Setting up")];
    for said in &version.spec.plan_output {
        let stage = "Detecting persistent resources";
        lines.push(line(
            LogSource::Provisioner,
            said.level,
            stage,
            &said.output,
        ));
    }
    lines.push(daemon("Cleaning Up"));
    app.store.append_job_logs(job, &lines).await?;
    app.store.complete_job(job, &version.spec.resources).await?;
    app.pubsub.jobs.publish(&job, JobEvent::Done);
    Ok(())
}

async fn find(app: &App, actor: &Actor, version: &str, job: &str) -> ApiResult<Job> {
    let version = app.store.version(uuid(version)?).await?;
    let job = app.store.job(uuid(job)?).await?;
    let fits = job.job_type == JobType::TemplateVersionDryRun
        && job.input.template_version_id == Some(version.id)
        && (job.initiator_id == actor.user.id || actor.is_owner());
    if fits {
        Ok(job)
    } else {
        Err(ApiError::not_found())
    }
}

async fn show(
    State(app): State<App>,
    actor: Actor,
    Path((version, job)): Two,
) -> ApiResult<Json<ProvisionerJob>> {
    let job = find(&app, &actor, &version, &job).await?;
    Ok(Json(convert::job(&app, &job).await?))
}

async fn logs(
    State(app): State<App>,
    actor: Actor,
    Path((version, job)): Two,
    query: Query,
    request: Request,
) -> ApiResult<Response> {
    let job = find(&app, &actor, &version, &job).await?;
    super::logs::job(&app, job.id, &query, request).await
}

async fn resources(
    State(app): State<App>,
    actor: Actor,
    Path((version, job)): Two,
) -> ApiResult<Response> {
    let job = find(&app, &actor, &version, &job).await?;
    let all = convert::resources(&app, job.id, None).await?;
    Ok(Json(all).into_response())
}

async fn matched(
    State(app): State<App>,
    actor: Actor,
    Path((version, job)): Two,
) -> ApiResult<Response> {
    find(&app, &actor, &version, &job).await?;
    Ok(Json(convert::matched()).into_response())
}

async fn cancel(
    State(app): State<App>,
    actor: Actor,
    Path((version, job)): Two,
) -> ApiResult<Response> {
    find(&app, &actor, &version, &job).await?;
    Err(ApiError::bad_request("Job has already completed!"))
}
