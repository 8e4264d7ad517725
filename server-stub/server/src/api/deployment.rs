//! Facts about the deployment.

use std::collections::BTreeMap;

use adit_rest::{
    AppHostResponse, Appearance, AuthorizationRequest, BuildInfo, JobStatus, Region,
    RegionsResponse, Response as Message, SshConfig, Time, Transition, UpdateCheck,
};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Actor, AgentActor};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Body, Json, Query};

const SOURCE: &str = "https://github.com/coder/coder";
/// Version of the agent API clients expect to read here; the real one is
/// negotiated per connection.
const AGENT_API: &str = "1.0";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/buildinfo", get(buildinfo))
        .route("/appearance", get(appearance))
        .route("/deployment/ssh", get(ssh))
        .route("/deployment/stats", get(stats))
        .route("/deployment/config", get(config))
        .route("/experiments", get(experiments))
        .route("/experiments/available", get(available_experiments))
        .route("/regions", get(regions))
        .route("/applications/host", get(host))
        .route("/updatecheck", get(updatecheck))
        .route("/authcheck", post(authcheck))
        .route("/debug/health", get(health))
        .route("/insights/daus", get(daus))
        .route("/external-auth", get(external_auth))
        .route("/notifications/inbox", get(inbox))
        .route(
            "/notifications/settings",
            get(notification_settings).put(set_notification_settings),
        )
        .route("/notifications/templates/system", get(empty_list))
        .route("/notifications/dispatch-methods", get(dispatch_methods))
        .route("/tasks", get(tasks))
        .route("/tasks/{user}/{task}", get(task))
        .route("/users/{user}/secrets", get(secrets))
        .route("/audit", get(audit))
}

/// The API's own path, with and without a slash at its end.
pub(super) fn root() -> Router<App> {
    Router::new()
        .route("/api/v2", get(greeting))
        .route("/api/v2/", get(greeting))
}

async fn greeting() -> Json<Message> {
    Json(Message::new("👋"))
}

async fn buildinfo(State(app): State<App>) -> Json<BuildInfo> {
    Json(BuildInfo {
        external_url: SOURCE.to_owned(),
        version: app.version().to_owned(),
        dashboard_url: base_url(&app),
        telemetry: false,
        workspace_proxy: false,
        agent_api_version: AGENT_API.to_owned(),
        provisioner_api_version: crate::provision::API_VERSION.to_owned(),
        upgrade_message: String::new(),
        deployment_id: app.deployment_id.clone(),
        webpush_public_key: String::new(),
    })
}

/// The access URL without a slash at its end.
pub(super) fn base_url(app: &App) -> String {
    app.access_url.as_str().trim_end_matches('/').to_owned()
}

/// For users and agents. Answered although Coder's free edition has no such
/// route: one editor plugin cannot log in without it.
async fn appearance(
    State(app): State<App>,
    request: axum::extract::Request,
) -> ApiResult<Json<Appearance>> {
    use axum::extract::FromRequestParts as _;
    let (mut parts, _) = request.into_parts();
    if let Err(refused) = Actor::from_request_parts(&mut parts, &app).await
        && AgentActor::from_request_parts(&mut parts, &app)
            .await
            .is_err()
    {
        return Err(refused);
    }
    Ok(Json(Appearance {
        docs_url: "https://coder.com/docs".to_owned(),
        ..Appearance::default()
    }))
}

async fn ssh(State(app): State<App>, _: Actor) -> Json<SshConfig> {
    Json(SshConfig {
        hostname_prefix: "coder.".to_owned(),
        hostname_suffix: app.config.hostname_suffix.clone(),
        ssh_config_options: BTreeMap::new(),
    })
}

async fn experiments(_: Actor) -> Json<[Value; 0]> {
    Json([])
}

async fn available_experiments(_: Actor) -> Json<Value> {
    Json(json!({"safe": []}))
}

async fn regions(State(app): State<App>, _: Actor) -> Json<RegionsResponse> {
    Json(RegionsResponse {
        regions: vec![Region {
            id: Uuid::try_parse(&app.deployment_id).unwrap_or_default(),
            name: "primary".to_owned(),
            display_name: "Default".to_owned(),
            icon_url: "/emojis/1f3e1.png".to_owned(),
            healthy: true,
            path_app_url: base_url(&app),
            wildcard_hostname: app.config.wildcard_host.clone(),
        }],
    })
}

async fn host(State(app): State<App>, _: Actor) -> Json<AppHostResponse> {
    Json(AppHostResponse {
        host: app.config.wildcard_host.clone(),
    })
}

async fn updatecheck(State(app): State<App>) -> Json<UpdateCheck> {
    Json(UpdateCheck {
        current: true,
        version: app.version().to_owned(),
        url: SOURCE.to_owned(),
    })
}

async fn config(State(app): State<App>, actor: Actor) -> ApiResult<Json<Value>> {
    actor.require_owner()?;
    Ok(Json(json!({
        "config": {
            "access_url": base_url(&app),
            "http_address": app.config.listen.to_string(),
            "wildcard_access_url": app.config.wildcard_host,
        },
        "options": [],
    })))
}

/// Answers "may I …" questions: owners may everything, everyone may what is
/// their own.
async fn authcheck(
    actor: Actor,
    Body(request): Body<AuthorizationRequest>,
) -> ApiResult<Json<BTreeMap<String, bool>>> {
    let own = actor.user.id.to_string();
    let mut reply = BTreeMap::new();
    for (name, check) in request.checks {
        if check.object.resource_type.is_empty() {
            return Err(ApiError::bad_request(format!(
                "Object's \"resource_type\" field must be defined for key {name:?}."
            )));
        }
        let mine = check.object.owner_id == "me" || check.object.owner_id == own;
        let readable = matches!(
            check.object.resource_type.as_str(),
            "template" | "organization" | "deployment_config"
        ) && check.action == "read"
            && check.object.resource_type != "deployment_config";
        reply.insert(name, actor.is_owner() || mine || readable);
    }
    Ok(Json(reply))
}

async fn stats(State(app): State<App>, _: Actor) -> ApiResult<Json<Value>> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for (job, transition, n) in app.store.count_workspaces().await? {
        let name = match (job, transition) {
            (JobStatus::Pending, _) => "pending",
            (JobStatus::Running, _) => "building",
            (JobStatus::Succeeded, Transition::Start) => "running",
            (JobStatus::Succeeded, _) => "stopped",
            _ => "failed",
        };
        *counts.entry(name).or_default() += n;
    }
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    let now = Time::now();
    Ok(Json(json!({
        "aggregated_from": app.started_at,
        "collected_at": now,
        "next_update_at": now.plus_micros(30_000_000),
        "workspaces": {
            "pending": count("pending"),
            "building": count("building"),
            "running": count("running"),
            "failed": count("failed"),
            "stopped": count("stopped"),
            "connection_latency_ms": {"P50": 0, "P95": 0},
            "rx_bytes": 0,
            "tx_bytes": 0,
        },
        "session_count": {
            "vscode": 0,
            "ssh": 0,
            "jetbrains": 0,
            "reconnecting_pty": 0,
        },
    })))
}

/// Health in short; only what this server can know about itself.
async fn health(State(app): State<App>, actor: Actor) -> ApiResult<Json<Value>> {
    actor.require_owner()?;
    let part = || json!({"healthy": true, "severity": "ok", "warnings": [], "dismissed": false});
    app.store.setting("deployment_id").await?;
    Ok(Json(json!({
        "time": Time::now(),
        "healthy": true,
        "severity": "ok",
        "derp": part(),
        "access_url": part(),
        "websocket": part(),
        "database": part(),
        "workspace_proxy": part(),
        "provisioner_daemons": part(),
        "coder_version": app.version(),
    })))
}

/// Users of the last sixty days; not collected.
async fn daus(actor: Actor, query: Query) -> ApiResult<Json<Value>> {
    actor.require_owner()?;
    let offset = query
        .get("tz_offset")
        .and_then(|text| text.parse::<i64>().ok())
        .unwrap_or(0);
    let today = Time::now().plus_micros(offset.clamp(-24, 24) * 3_600_000_000);
    let entries: Vec<Value> = (0..=60)
        .rev()
        .map(|days: i64| {
            let day = today.plus_micros(-days * 86_400_000_000).to_string();
            let day = day.get(..10).unwrap_or_default();
            json!({"date": day, "amount": 0})
        })
        .collect();
    Ok(Json(json!({"entries": entries, "tz_hour_offset": offset})))
}

/// Who changed what. As Coder's free edition, this server keeps no account of
/// it, and lists no connections either (it has no route for them): those are
/// stored for their ninety days.
async fn audit(actor: Actor) -> ApiResult<Json<Value>> {
    let is_auditor = actor.user.roles.iter().any(|role| role == "auditor");
    if !is_auditor {
        actor.require_owner()?;
    }
    Ok(Json(
        json!({"audit_logs": [], "count": 0, "count_cap": 2000}),
    ))
}

async fn external_auth(_: Actor) -> Json<Value> {
    Json(json!({"providers": [], "links": []}))
}

async fn inbox(_: Actor) -> Json<Value> {
    Json(json!({"notifications": [], "unread_count": 0}))
}

/// What clients may switch off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct NotificationSettings {
    notifier_paused: bool,
}

/// Where they are kept.
const NOTIFICATION_SETTINGS: &str = "notification_settings";

async fn stored_notification_settings(app: &App) -> ApiResult<NotificationSettings> {
    let stored = app.store.setting(NOTIFICATION_SETTINGS).await?;
    let settings = stored.map(|text| serde_json::from_str(&text)).transpose();
    Ok(settings.map_err(ApiError::internal)?.unwrap_or_default())
}

async fn notification_settings(
    State(app): State<App>,
    _: Actor,
) -> ApiResult<Json<NotificationSettings>> {
    Ok(Json(stored_notification_settings(&app).await?))
}

async fn set_notification_settings(
    State(app): State<App>,
    actor: Actor,
    Body(settings): Body<NotificationSettings>,
) -> ApiResult<Response> {
    actor.require_owner()?;
    if settings == stored_notification_settings(&app).await? {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let text = serde_json::to_string(&settings).map_err(ApiError::internal)?;
    app.store.set_setting(NOTIFICATION_SETTINGS, &text).await?;
    Ok(Json(settings).into_response())
}

async fn dispatch_methods(_: Actor) -> Json<Value> {
    Json(json!({"available": ["smtp", "webhook"], "default": "smtp"}))
}

async fn empty_list(_: Actor) -> Response {
    (StatusCode::OK, Json(Vec::<Value>::new())).into_response()
}

async fn tasks(_: Actor) -> Json<Value> {
    Json(json!({"tasks": [], "count": 0}))
}

/// There are no tasks, so none of any name.
async fn task(_: Actor) -> ApiError {
    ApiError::not_found()
}

/// There are no secrets: nobody can store one.
async fn secrets(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<[Value; 0]>> {
    crate::access::user(&app, &actor, &name).await?;
    Ok(Json([]))
}
