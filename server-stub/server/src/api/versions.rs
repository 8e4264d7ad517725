//! Template versions.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch};
use serde_json::Value;

use crate::app::App;
use crate::auth::Actor;
use crate::convert;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Id, Json};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/templateversions/{version}", get(show))
        .route("/templateversions/{version}/cancel", patch(cancel))
        .route("/templateversions/{version}/presets", get(presets))
        .route(
            "/templateversions/{version}/rich-parameters",
            get(parameters),
        )
        .route(
            "/templateversions/{version}/external-auth",
            get(external_auth),
        )
        .route("/templateversions/{version}/variables", get(variables))
        .route("/templateversions/{version}/resources", get(resources))
}

async fn show(
    State(app): State<App>,
    _: Actor,
    Id(id): Id,
) -> ApiResult<Json<adit_rest::TemplateVersion>> {
    let version = app.store.version(id).await?;
    Ok(Json(convert::version(&app, &version).await?))
}

/// Imports are done before they are visible.
async fn cancel(State(app): State<App>, _: Actor, Id(id): Id) -> ApiResult<Response> {
    app.store.version(id).await?;
    Err(ApiError::bad_request("Job has already completed!"))
}

/// The list, or `null` if there are none.
async fn presets(State(app): State<App>, _: Actor, Id(id): Id) -> ApiResult<Response> {
    let version = app.store.version(id).await?;
    let rows = app.store.presets(version.id).await?;
    if rows.is_empty() {
        return Ok(Json(Value::Null).into_response());
    }
    let all: Vec<_> = rows.into_iter().map(convert::preset).collect();
    Ok(Json(all).into_response())
}

async fn parameters(State(app): State<App>, _: Actor, Id(id): Id) -> ApiResult<Response> {
    let version = app.store.version(id).await?;
    Ok(Json(convert::parameters(&version)).into_response())
}

async fn external_auth(State(app): State<App>, _: Actor, Id(id): Id) -> ApiResult<Json<Value>> {
    app.store.version(id).await?;
    Ok(Json(Value::Array(Vec::new())))
}

async fn variables(State(app): State<App>, _: Actor, Id(id): Id) -> ApiResult<Json<Value>> {
    app.store.version(id).await?;
    Ok(Json(Value::Array(Vec::new())))
}

async fn resources(State(app): State<App>, _: Actor, Id(id): Id) -> ApiResult<Response> {
    let version = app.store.version(id).await?;
    let all = convert::resources(&app, version.job_id, None).await?;
    Ok(Json(all).into_response())
}
