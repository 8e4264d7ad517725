//! Organizations and memberships.

use adit_store::model::Organization;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::auth::Actor;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Two};
use crate::{access, convert};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/organizations", get(list))
        .route("/organizations/{organization}", get(show))
        .route("/organizations/{organization}/members", get(members))
        .route("/organizations/{organization}/members/", get(members))
        .route("/organizations/{organization}/members/{user}", get(member))
        .route("/organizations/{organization}/members/roles", get(roles))
}

/// The organization a path names: an id, a name or `default`.
pub(super) async fn named(app: &App, name: &str) -> ApiResult<Organization> {
    if name == "default" {
        return Ok(app.store.default_organization().await?);
    }
    Ok(match Uuid::try_parse(name) {
        Ok(id) => app.store.organization(id).await?,
        Err(_) => app.store.organization_by_name(name).await?,
    })
}

async fn list(State(app): State<App>, actor: Actor) -> ApiResult<Response> {
    let rows = if actor.is_owner() {
        app.store.organizations().await?
    } else {
        app.store.organizations_of(actor.user.id).await?
    };
    let all: Vec<_> = rows.iter().map(convert::organization).collect();
    Ok(Json(all).into_response())
}

async fn show(
    State(app): State<App>,
    _: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<adit_rest::Organization>> {
    Ok(Json(convert::organization(&named(&app, &name).await?)))
}

async fn members(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Response> {
    let organization = named(&app, &name).await?;
    let all: Vec<_> = app
        .store
        .members(organization.id)
        .await?
        .iter()
        .filter(|(_, user)| actor.is_owner() || user.id == actor.user.id)
        .map(|(member, user)| convert::member(member, user))
        .collect();
    Ok(Json(all).into_response())
}

async fn member(
    State(app): State<App>,
    actor: Actor,
    Path((organization, user)): Two,
) -> ApiResult<Json<adit_rest::OrganizationMember>> {
    let organization = named(&app, &organization).await?;
    let user = access::user(&app, &actor, &user).await?;
    let member = app.store.member(organization.id, user.id).await?;
    Ok(Json(convert::member(&member, &user)))
}

async fn roles(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    let organization = named(&app, &name).await?;
    if !actor.is_owner() {
        return Err(ApiError::forbidden());
    }
    let role = |name: &str, display: &str| {
        json!({
            "name": name,
            "display_name": display,
            "organization_id": organization.id,
            "site_permissions": [],
            "user_permissions": [],
            "organization_permissions": [
                {"negate": false, "resource_type": "*", "action": "read"},
            ],
            "organization_member_permissions": [],
            "assignable": true,
            "built_in": true,
        })
    };
    Ok(Json(json!([
        role("organization-admin", "Organization Admin"),
        role("organization-auditor", "Organization Auditor"),
    ])))
}
