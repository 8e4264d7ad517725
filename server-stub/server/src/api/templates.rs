//! Templates.

use adit_rest::Response as Message;
use adit_store::Error;
use adit_store::model::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use uuid::Uuid;

use super::organizations::named;
use crate::app::App;
use crate::auth::Actor;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Id, Json, Query, Two, uuid};
use crate::{convert, search};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/templates", get(list))
        .route("/templates/{template}", get(show).delete(remove))
        .route("/templates/{template}/versions", get(versions))
        .route("/templates/{template}/versions/{name}", get(version))
        .route(
            "/organizations/{organization}/templates",
            get(of_organization),
        )
        .route(
            "/organizations/{organization}/templates/{name}",
            get(of_organization_by_name),
        )
        .route(
            "/organizations/{organization}/templates/{name}/versions/{version}",
            get(version_by_names),
        )
}

/// A live template.
pub(super) async fn live(app: &App, id: Uuid) -> ApiResult<Template> {
    let template = app.store.template(id).await?;
    if template.deleted {
        return Err(ApiError::not_found());
    }
    Ok(template)
}

async fn list(State(app): State<App>, actor: Actor, query: Query) -> ApiResult<Response> {
    let terms = search::parse(query.get("q").unwrap_or_default())
        .map_err(|error| error.into_api("Invalid template search query."))?;
    let mut rows = app.store.templates().await?;
    let mut refused: Option<ApiError> = None;
    for term in terms {
        let value = term.value.as_str();
        let lower = |text: &str| text.to_lowercase();
        match term.key.as_str() {
            "" => rows.retain(|row| {
                lower(&row.name).contains(value) || lower(&row.options.display_name).contains(value)
            }),
            "exact_name" => rows.retain(|row| lower(&row.name) == value),
            "name" => rows.retain(|row| lower(&row.name).contains(value)),
            "exact_display_name" => {
                rows.retain(|row| lower(&row.options.display_name) == value);
            }
            "display_name" => {
                rows.retain(|row| lower(&row.options.display_name).contains(value));
            }
            "organization" => {
                let organization = named(&app, value).await?;
                rows.retain(|row| row.organization_id == organization.id);
            }
            "deprecated" => {
                let wanted = value == "true";
                rows.retain(|row| row.options.deprecation_message.is_empty() != wanted);
            }
            "deleted" => {
                if value == "true" {
                    rows.clear();
                }
            }
            "ids" => rows.retain(|row| value.split(',').any(|id| id == row.id.to_string())),
            "author" => {
                let id = if value == "me" {
                    actor.user.id
                } else {
                    app.store.user_by_name(value).await?.id
                };
                rows.retain(|row| row.created_by == id);
            }
            "author_id" => {
                let id = uuid(value)?;
                rows.retain(|row| row.created_by == id);
            }
            "has-ai-task" | "has_external_agent" => {
                if value == "true" {
                    rows.clear();
                }
            }
            key => {
                let error = refused
                    .take()
                    .unwrap_or_else(|| ApiError::bad_request("Invalid template search query."));
                refused = Some(error.field(key, format!("{key:?} is not a valid query param")));
            }
        }
    }
    if let Some(error) = refused {
        return Err(error);
    }
    reply(&app, &rows).await
}

async fn reply(app: &App, rows: &[Template]) -> ApiResult<Response> {
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        all.push(convert::template(app, row).await?);
    }
    Ok(Json(all).into_response())
}

async fn show(
    State(app): State<App>,
    _: Actor,
    Id(id): Id,
) -> ApiResult<Json<adit_rest::Template>> {
    let template = app.store.template(id).await?;
    Ok(Json(convert::template(&app, &template).await?))
}

async fn remove(State(app): State<App>, actor: Actor, Id(id): Id) -> ApiResult<Json<Message>> {
    let template = live(&app, id).await?;
    let in_use = || {
        ApiError::bad_request("All workspaces must be deleted before a template can be removed.")
    };
    if app.store.has_workspaces(id).await? {
        return Err(in_use());
    }
    actor.require_owner()?;
    match app.store.delete_template(template.id).await {
        Ok(()) => Ok(Json(Message::new("Template has been deleted!"))),
        Err(Error::Refused(_)) => Err(in_use()),
        Err(error) => Err(error.into()),
    }
}

async fn versions(
    State(app): State<App>,
    _: Actor,
    Id(id): Id,
    query: Query,
) -> ApiResult<Response> {
    let template = live(&app, id).await?;
    let mut all = Vec::new();
    for row in app.store.versions(template.id).await? {
        if !row.archived || query.flag("include_archived") {
            all.push(convert::version(&app, &row).await?);
        }
    }
    Ok(Json(all).into_response())
}

async fn version(
    State(app): State<App>,
    _: Actor,
    Path((id, name)): Two,
) -> ApiResult<Json<adit_rest::TemplateVersion>> {
    let template = live(&app, uuid(&id)?).await?;
    let row = app.store.version_by_name(template.id, &name).await?;
    Ok(Json(convert::version(&app, &row).await?))
}

async fn of_organization(
    State(app): State<App>,
    _: Actor,
    Path(name): Path<String>,
) -> ApiResult<Response> {
    let organization = named(&app, &name).await?;
    let mut rows = app.store.templates().await?;
    rows.retain(|row| row.organization_id == organization.id);
    reply(&app, &rows).await
}

async fn of_organization_by_name(
    State(app): State<App>,
    _: Actor,
    Path((organization, name)): Two,
) -> ApiResult<Json<adit_rest::Template>> {
    let organization = named(&app, &organization).await?;
    let row = app.store.template_by_name(organization.id, &name).await?;
    Ok(Json(convert::template(&app, &row).await?))
}

async fn version_by_names(
    State(app): State<App>,
    _: Actor,
    Path((organization, name, version)): Path<(String, String, String)>,
) -> ApiResult<Json<adit_rest::TemplateVersion>> {
    let organization = named(&app, &organization).await?;
    let template = app.store.template_by_name(organization.id, &name).await?;
    let row = app.store.version_by_name(template.id, &version).await?;
    Ok(Json(convert::version(&app, &row).await?))
}
