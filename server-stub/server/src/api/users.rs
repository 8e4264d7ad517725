//! Accounts.

use adit_rest::{
    CreateUserRequest, LoginType, Response as Message, Time, UpdateRoles, UpdateUserProfileRequest,
    User, UserStatus, UsersResponse,
};
use adit_store::{Error, NewUser, UserFilter};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use http::StatusCode;
use serde_json::{Value, json};

use super::session::{check_password, failed};
use crate::app::App;
use crate::auth::{Actor, password};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Body, Json, Query, uuid};
use crate::{access, convert, git_key, search};

/// Roles a user can be given.
const ROLES: [&str; 4] = ["owner", "auditor", "template-admin", "user-admin"];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/users", get(list).post(create))
        .route("/users/roles", get(assignable))
        .route("/users/{user}", get(show).delete(remove))
        .route("/users/{user}/profile", put(profile))
        .route("/users/{user}/roles", get(roles).put(set_roles))
        .route("/users/{user}/status/suspend", put(suspend))
        .route("/users/{user}/status/activate", put(activate))
        .route("/users/{user}/password", put(set_password))
        .route("/users/{user}/login-type", get(login_type))
        .route("/users/{user}/appearance", get(appearance))
        .route("/users/{user}/organizations", get(organizations))
        .route("/users/{user}/gitsshkey", get(git_key).put(new_git_key))
        .route("/users/{user}/notifications/preferences", get(preferences))
}

/// Whether a text looks like an e-mail address.
pub(super) fn is_email(text: &str) -> bool {
    match text.split_once('@') {
        Some((local, domain)) => {
            !local.is_empty()
                && domain.contains('.')
                && !domain.starts_with('.')
                && !domain.ends_with('.')
                && !text.contains(char::is_whitespace)
                && !domain.contains('@')
        }
        None => false,
    }
}

/// Whether a text may name a user, workspace or template: 1 to 32 letters and
/// digits with single hyphens between them.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .split('-')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
        && text != "new"
        && text != "create"
}

/// Refuses a bad address or name.
pub(super) fn check_names(email: &str, username: &str) -> ApiResult<()> {
    let mut error = ApiError::bad_request("Validation failed.");
    let mut bad = false;
    if !is_email(email) {
        let tag = if email.is_empty() {
            "required"
        } else {
            "email"
        };
        error = error.field("email", failed(tag, email));
        bad = true;
    }
    if !is_name(username) {
        let tag = if username.is_empty() {
            "required"
        } else {
            "username"
        };
        error = error.field("username", failed(tag, username));
        bad = true;
    }
    if bad { Err(error) } else { Ok(()) }
}

async fn list(State(app): State<App>, actor: Actor, query: Query) -> ApiResult<Response> {
    let mut filter = UserFilter {
        limit: query.number("limit")?.unwrap_or(0),
        offset: query.number("offset")?.unwrap_or(0),
        after: query.get("after_id").map(uuid).transpose()?,
        ..UserFilter::default()
    };
    let terms = search::parse(query.get("q").unwrap_or_default())
        .map_err(|error| error.into_api("Invalid user search query."))?;
    let mut refused: Option<ApiError> = None;
    for term in terms {
        match term.key.as_str() {
            "" | "search" | "name" => filter.search = term.value,
            "status" => filter.status = UserStatus::parse(&term.value),
            "role" | "last_seen_before" | "last_seen_after" | "created_before"
            | "created_after" | "login_type" | "github_com_user_id" | "is_service_account" => {}
            key => {
                let error = refused
                    .take()
                    .unwrap_or_else(|| ApiError::bad_request("Invalid user search query."));
                refused = Some(error.field(key, format!("{key:?} is not a valid query param")));
            }
        }
    }
    if let Some(error) = refused {
        return Err(error);
    }
    if !actor.is_owner() {
        filter.only = Some(actor.user.id);
    }
    let (rows, count) = app.store.users(&filter).await?;
    let mut users = Vec::with_capacity(rows.len());
    for row in &rows {
        users.push(convert::user(&app, row).await?);
    }
    Ok(Json(UsersResponse { users, count }).into_response())
}

async fn create(
    State(app): State<App>,
    actor: Actor,
    Body(request): Body<CreateUserRequest>,
) -> ApiResult<Response> {
    check_names(&request.email, &request.username)?;
    if request.organization_ids.is_empty() {
        return Err(ApiError::bad_request(
            "No organization specified to place the user as a member of. It is required to \
             specify at least one organization id to place the user in.",
        )
        .detail("required at least 1 value for the array 'organization_ids'")
        .field("organization_ids", "Missing values, this cannot be empty"));
    }
    actor.require_owner()?;
    let login_type = match request.login_type.as_str() {
        "" => LoginType::Password,
        text => LoginType::parse(text)
            .ok_or_else(|| ApiError::invalid("login_type", failed("oneof", text)))?,
    };
    for id in &request.organization_ids {
        app.store.organization(*id).await.map_err(|_| {
            ApiError::new(
                StatusCode::NOT_FOUND,
                format!("Organization does not exist with the provided id {id:?}."),
            )
        })?;
    }
    let password_hash = if login_type == LoginType::Password {
        check_password(&request.password)?;
        password::hash(request.password)
            .await
            .map_err(ApiError::internal)?
    } else {
        String::new()
    };
    let new = NewUser {
        username: request.username,
        email: request.email,
        name: request.name,
        password_hash,
        status: request.user_status.unwrap_or(UserStatus::Dormant),
        login_type,
        ..NewUser::default()
    };
    match app.store.create_user(&new, &request.organization_ids).await {
        Ok(user) => {
            let reply = convert::user(&app, &user).await?;
            Ok((StatusCode::CREATED, Json(reply)).into_response())
        }
        Err(Error::Taken(_)) => Err(ApiError::conflict("User already exists.")),
        Err(error) => Err(error.into()),
    }
}

async fn show(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<User>> {
    let user = access::user(&app, &actor, &name).await?;
    Ok(Json(convert::user(&app, &user).await?))
}

async fn remove(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<Message>> {
    let user = access::user(&app, &actor, &name).await?;
    actor.require_owner()?;
    if user.id == actor.user.id {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "You cannot delete yourself!",
        ));
    }
    if app.store.has_workspaces(user.id).await? {
        return Err(ApiError::new(
            StatusCode::EXPECTATION_FAILED,
            "You cannot delete a user that has workspaces. Delete their workspaces and try again!",
        ));
    }
    app.store.delete_user(user.id).await?;
    Ok(Json(Message::new("User has been deleted!")))
}

async fn profile(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Body(request): Body<UpdateUserProfileRequest>,
) -> ApiResult<Json<User>> {
    let user = access::user(&app, &actor, &name).await?;
    if !is_name(&request.username) {
        return Err(ApiError::invalid(
            "username",
            failed("username", &request.username),
        ));
    }
    let changed = app
        .store
        .set_user_profile(user.id, &request.username, &request.name)
        .await;
    match changed {
        Ok(user) => Ok(Json(convert::user(&app, &user).await?)),
        Err(Error::Taken(_)) => Err(ApiError::conflict(
            "A user with this username already exists.",
        )
        .field("username", "This username is already in use.")),
        Err(error) => Err(error.into()),
    }
}

async fn roles(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    let user = access::user(&app, &actor, &name).await?;
    let mut by_organization = serde_json::Map::new();
    for organization in app.store.organizations_of(user.id).await? {
        let member = app.store.member(organization.id, user.id).await?;
        by_organization.insert(organization.id.to_string(), json!(member.roles));
    }
    Ok(Json(json!({
        "roles": user.roles,
        "organization_roles": by_organization,
    })))
}

async fn set_roles(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Body(request): Body<UpdateRoles>,
) -> ApiResult<Json<User>> {
    let user = access::user(&app, &actor, &name).await?;
    actor.require_owner()?;
    if user.id == actor.user.id {
        return Err(ApiError::bad_request("You cannot change your own roles."));
    }
    let unknown = request
        .roles
        .iter()
        .find(|role| !ROLES.contains(&role.as_str()));
    if let Some(role) = unknown {
        return Err(ApiError::bad_request(format!(
            "Role {role:?} is not assignable."
        )));
    }
    let user = app.store.set_user_roles(user.id, &request.roles).await?;
    Ok(Json(convert::user(&app, &user).await?))
}

/// Roles with the shape of Coder's list; permissions are not broken down.
async fn assignable(actor: Actor) -> Json<Value> {
    let all: Vec<Value> = ROLES
        .iter()
        .map(|name| {
            let role = convert::role(name);
            json!({
                "name": role.name,
                "display_name": role.display_name,
                "site_permissions": [
                    {"negate": false, "resource_type": "*", "action": "read"},
                ],
                "user_permissions": [],
                "organization_permissions": [],
                "organization_member_permissions": [],
                "assignable": actor.is_owner(),
                "built_in": true,
            })
        })
        .collect();
    Json(Value::Array(all))
}

async fn suspend(app: State<App>, actor: Actor, name: Path<String>) -> ApiResult<Json<User>> {
    set_status(app, actor, name, UserStatus::Suspended).await
}

async fn activate(app: State<App>, actor: Actor, name: Path<String>) -> ApiResult<Json<User>> {
    set_status(app, actor, name, UserStatus::Active).await
}

async fn set_status(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    status: UserStatus,
) -> ApiResult<Json<User>> {
    let user = access::user(&app, &actor, &name).await?;
    actor.require_owner()?;
    if status == UserStatus::Suspended {
        if user.id == actor.user.id {
            return Err(ApiError::bad_request("You cannot suspend yourself."));
        }
        if user.is_owner() {
            return Err(ApiError::bad_request(
                "You cannot suspend a user with the \"owner\" role. You must remove the role first.",
            ));
        }
    }
    let user = app.store.set_user_status(user.id, status).await?;
    Ok(Json(convert::user(&app, &user).await?))
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct NewPassword {
    old_password: String,
    password: String,
}

async fn set_password(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Body(request): Body<NewPassword>,
) -> ApiResult<StatusCode> {
    let user = access::user(&app, &actor, &name).await?;
    check_password(&request.password)?;
    if user.id == actor.user.id || !request.old_password.is_empty() {
        let right = password::verify(request.old_password, user.password_hash.clone())
            .await
            .map_err(ApiError::internal)?;
        if !right {
            return Err(ApiError::bad_request("Old password is incorrect.")
                .field("old_password", "Old password is incorrect."));
        }
    }
    let hash = password::hash(request.password)
        .await
        .map_err(ApiError::internal)?;
    app.store.set_user_password(user.id, &hash).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn login_type(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    let user = access::user(&app, &actor, &name).await?;
    if user.id != actor.user.id {
        return Err(ApiError::bad_request(
            "You are not authorized to view another user's login type.",
        ));
    }
    Ok(Json(json!({"login_type": user.login_type})))
}

async fn appearance(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    access::user(&app, &actor, &name).await?;
    Ok(Json(json!({
        "theme_preference": "",
        "theme_mode": "",
        "theme_light": "",
        "theme_dark": "",
        "terminal_font": "",
    })))
}

async fn preferences(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    access::user(&app, &actor, &name).await?;
    Ok(Json(Value::Null))
}

async fn organizations(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Response> {
    let user = access::user(&app, &actor, &name).await?;
    let rows = app.store.organizations_of(user.id).await?;
    let all: Vec<_> = rows.iter().map(convert::organization).collect();
    Ok(Json(all).into_response())
}

fn git_reply(key: &adit_store::model::GitSshKey) -> Json<adit_rest::GitSshKey> {
    Json(adit_rest::GitSshKey {
        user_id: key.user_id,
        created_at: key.created_at,
        updated_at: key.updated_at,
        public_key: key.public_key.clone(),
    })
}

async fn git_key(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<adit_rest::GitSshKey>> {
    let user = access::user(&app, &actor, &name).await?;
    Ok(git_reply(&git_key::of_user(&app, user.id).await?))
}

async fn new_git_key(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<adit_rest::GitSshKey>> {
    let user = access::user(&app, &actor, &name).await?;
    tracing::info!(user = %user.username, at = %Time::now(), "new git key");
    Ok(git_reply(&git_key::renew(&app, user.id).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "bob", "BOB-2", "a-b-c", &"x".repeat(32)] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a--b",
            "a_b",
            "new",
            "with space",
            "ü",
            &"x".repeat(33),
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert!(is_email("a@example.com"));
        for bad in ["", "a", "a@", "@b.c", "a@b", "a b@c.d", "a@b@c.d"] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}
