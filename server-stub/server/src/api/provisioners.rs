//! Who carries out jobs, and the jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use adit_rest::{JobStatus, ProvisionerJob, ProvisionerJobMetadata, Time, boolean};
use adit_store::{JobFilter, ListedJob, ListedProvisioner};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};
use uuid::Uuid;

use super::organizations::named;
use crate::app::App;
use crate::auth::Actor;
use crate::convert;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Query, Two, uuid};

/// How long a provisioner may be silent.
const SILENCE: Duration = Duration::from_secs(90);
/// Entries of a list whose length is not asked for, and the most there are.
const LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 1000;
/// The key of provisioners inside the server: they need none.
const BUILT_IN_KEY: Uuid = Uuid::from_u128(1);

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(
            "/organizations/{organization}/provisionerdaemons",
            get(daemons),
        )
        .route("/organizations/{organization}/provisionerjobs", get(jobs))
        .route(
            "/organizations/{organization}/provisionerjobs/{job}",
            get(job),
        )
}

/// Who may know of them; for others they do not exist.
fn require(actor: &Actor) -> ApiResult<()> {
    let is_admin = actor.user.roles.iter().any(|role| role == "template-admin");
    if actor.is_owner() || is_admin {
        Ok(())
    } else {
        Err(ApiError::not_found())
    }
}

fn refuse<T>(name: &str, why: impl std::fmt::Display) -> ApiResult<T> {
    Err(ApiError::bad_request("Invalid query parameters.")
        .field(name, format!("Query param {name:?} {why}")))
}

/// A parameter that is there and not empty.
fn given<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.get(name).filter(|text| !text.is_empty())
}

fn limit(query: &Query) -> ApiResult<i64> {
    match given(query, "limit").map(str::parse::<i32>) {
        None | Some(Ok(0)) => Ok(LIMIT),
        Some(Ok(limit)) if limit > 0 => Ok(i64::from(limit).min(MAX_LIMIT)),
        Some(_) => refuse("limit", "must be a valid 32-bit positive integer"),
    }
}

fn ids(query: &Query) -> ApiResult<Vec<Uuid>> {
    let ids = given(query, "ids").unwrap_or_default();
    let ids = ids.split(',').filter(|id| !id.is_empty());
    match ids.map(Uuid::try_parse).collect() {
        Ok(ids) => Ok(ids),
        Err(error) => refuse("ids", format_args!("has invalid values: {error}")),
    }
}

fn tags(query: &Query) -> ApiResult<BTreeMap<String, String>> {
    match given(query, "tags").map(serde_json::from_str) {
        None => Ok(BTreeMap::new()),
        Some(Ok(tags)) => Ok(tags),
        Some(Err(error)) => refuse("tags", format_args!("must be a valid JSON object: {error}")),
    }
}

/// Several words, each of which must be known.
fn words<T>(query: &Query, name: &str, parse: impl Fn(&str) -> Option<T>) -> ApiResult<Vec<T>> {
    let mut words = Vec::new();
    for text in given(query, name).unwrap_or_default().split(',') {
        match parse(text) {
            Some(word) => words.push(word),
            None if text.is_empty() => {}
            None => return refuse(name, format_args!("has an unknown value {text:?}")),
        }
    }
    Ok(words)
}

/// What a provisioner is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Idle,
    Busy,
    Offline,
}

impl Status {
    const ALL: [Self; 3] = [Self::Idle, Self::Busy, Self::Offline];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Offline => "offline",
        }
    }

    fn of(listed: &ListedProvisioner, now: Time) -> Self {
        if listed.current.is_some() {
            Self::Busy
        } else if age(listed, now) > SILENCE {
            Self::Offline
        } else {
            Self::Idle
        }
    }
}

fn age(listed: &ListedProvisioner, now: Time) -> Duration {
    let micros = now.as_micros() - listed.provisioner.last_seen_at.as_micros();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Whether it takes jobs with these tags: it must have them all.
fn takes(listed: &ListedProvisioner, tags: &BTreeMap<String, String>) -> bool {
    tags.iter()
        .all(|(name, value)| listed.provisioner.tags.get(name) == Some(value))
}

async fn daemons(
    State(app): State<App>,
    actor: Actor,
    Path(organization): Path<String>,
    query: Query,
) -> ApiResult<Response> {
    let organization = named(&app, &organization).await?;
    require(&actor)?;
    let limit = limit(&query)?;
    let (ids, tags) = (ids(&query)?, tags(&query)?);
    let statuses = words(&query, "status", |text| {
        Status::ALL.into_iter().find(|known| known.as_str() == text)
    })?;
    let offline = match given(&query, "offline").map(boolean) {
        None => statuses.contains(&Status::Offline),
        Some(Some(offline)) => offline,
        Some(None) => return refuse("offline", "must be a valid boolean"),
    };
    let max_age = match given(&query, "max_age").map(str::parse::<jiff::SignedDuration>) {
        None => Duration::MAX,
        Some(Ok(age)) => age.unsigned_abs(),
        Some(Err(_)) => {
            let why = "must be a valid duration (e.g., '24h', '30m', '1h30m')";
            return refuse("max_age", why);
        }
    };
    let now = Time::now();
    let wanted = |listed: &ListedProvisioner| {
        let status = Status::of(listed, now);
        (offline || status != Status::Offline)
            && (statuses.is_empty() || statuses.contains(&status))
            && (ids.is_empty() || ids.contains(&listed.provisioner.id))
            && takes(listed, &tags)
            && age(listed, now) <= max_age
    };
    let all = app.store.provisioners(organization.id).await?;
    let all: Vec<Value> = all
        .into_iter()
        .filter(wanted)
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|listed| daemon(&listed, now))
        .collect();
    Ok(Json(all).into_response())
}

fn daemon(listed: &ListedProvisioner, now: Time) -> Value {
    let job = |job: &Option<ListedJob>| {
        job.as_ref().map(|listed| {
            let template = listed.template.clone().unwrap_or_default();
            json!({
                "id": listed.job.id,
                "status": listed.job.status(),
                "template_name": template.name,
                "template_icon": template.icon,
                "template_display_name": template.display_name,
            })
        })
    };
    let row = &listed.provisioner;
    json!({
        "id": row.id,
        "organization_id": row.organization_id,
        "key_id": BUILT_IN_KEY,
        "created_at": row.created_at,
        "last_seen_at": row.last_seen_at,
        "name": row.name,
        "version": row.version,
        "api_version": row.api_version,
        "provisioners": row.provisioners,
        "tags": row.tags,
        "key_name": "built-in",
        "status": Status::of(listed, now).as_str(),
        "current_job": job(&listed.current),
        "previous_job": job(&listed.previous),
    })
}

async fn jobs(
    State(app): State<App>,
    actor: Actor,
    Path(organization): Path<String>,
    query: Query,
) -> ApiResult<Response> {
    let organization = named(&app, &organization).await?;
    require(&actor)?;
    let initiator_id = match given(&query, "initiator").map(Uuid::try_parse) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => return refuse("initiator", "must be a valid uuid"),
    };
    let filter = JobFilter {
        organization_id: organization.id,
        ids: ids(&query)?,
        statuses: words(&query, "status", JobStatus::parse)?,
        initiator_id,
        tags: tags(&query)?,
        limit: limit(&query)?,
    };
    Ok(Json(listed(&app, &filter).await?).into_response())
}

async fn job(
    State(app): State<App>,
    actor: Actor,
    Path((organization, id)): Two,
) -> ApiResult<Json<ProvisionerJob>> {
    let organization = named(&app, &organization).await?;
    let id = uuid(&id)?;
    require(&actor)?;
    let filter = JobFilter {
        organization_id: organization.id,
        ids: vec![id],
        limit: 1,
        ..JobFilter::default()
    };
    match listed(&app, &filter).await?.pop() {
        Some(job) => Ok(Json(job)),
        None => Err(ApiError::not_found()),
    }
}

async fn listed(app: &App, filter: &JobFilter) -> ApiResult<Vec<ProvisionerJob>> {
    let rows = app.store.find_jobs(filter).await?;
    let mut jobs = Vec::with_capacity(rows.len());
    for row in rows {
        let mut job = convert::job(app, &row.job).await?;
        if job.status == JobStatus::Pending {
            job.available_workers = workers(app, &row).await?;
        }
        job.worker_name = row.worker_name;
        let template = row.template.unwrap_or_default();
        job.metadata = ProvisionerJobMetadata {
            template_version_name: template.version_name,
            template_id: template.id.unwrap_or_default(),
            template_name: template.name,
            template_display_name: template.display_name,
            template_icon: template.icon,
            ..ProvisionerJobMetadata::default()
        };
        if let Some((id, name, transition)) = row.workspace {
            job.metadata.workspace_id = Some(id);
            job.metadata.workspace_name = name;
            job.metadata.workspace_build_transition = Some(transition);
        }
        jobs.push(job);
    }
    Ok(jobs)
}

/// Who could take a waiting job.
async fn workers(app: &App, job: &ListedJob) -> ApiResult<Vec<Uuid>> {
    let now = Time::now();
    let all = app.store.provisioners(job.job.organization_id).await?;
    let able = all
        .iter()
        .filter(|listed| age(listed, now) <= SILENCE && takes(listed, &job.job.tags));
    Ok(able.map(|listed| listed.provisioner.id).collect())
}
