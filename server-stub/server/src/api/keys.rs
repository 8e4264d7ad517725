//! API keys and named tokens.

use adit_rest::{
    ApiKey, ApiKeyWithOwner, CreateTokenRequest, GenerateApiKeyResponse, LoginType, Time,
    TokenConfig,
};
use adit_store::Error;
use adit_store::model::{PREBUILDS_USER, User};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use http::StatusCode;
use rand::Rng as _;

use crate::app::App;
use crate::auth::{Actor, new_key, scope, session_key};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Body, Json, Query, Two};
use crate::{access, convert};

const DEFAULT_LIFETIME: i64 = 30 * 24 * 3600 * 1_000_000_000;
const MAX_NAME: usize = 64;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/users/{user}/keys", post(create_session))
        .route("/users/{user}/keys/tokens", get(list).post(create_token))
        .route("/users/{user}/keys/tokens/tokenconfig", get(config))
        .route("/users/{user}/keys/tokens/{name}", get(by_name))
        .route("/users/{user}/keys/{id}", get(by_id).delete(remove))
        .route("/users/{user}/keys/{id}/expire", put(expire))
}

async fn create_session(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Response> {
    let user = key_owner(&app, &actor, &name).await?;
    let new = session_key(&app, user.id);
    if !actor.may_grant(&new.key) {
        return Err(ApiError::forbidden());
    }
    app.store.insert_key(&new.key).await?;
    Ok(created(new.token))
}

async fn key_owner(app: &App, actor: &Actor, name: &str) -> ApiResult<User> {
    let user = access::user(app, actor, name).await?;
    if user.id == PREBUILDS_USER {
        return Err(ApiError::bad_request(
            "prebuild user may not create api keys",
        ));
    }
    Ok(user)
}

fn created(key: String) -> Response {
    (StatusCode::CREATED, Json(GenerateApiKeyResponse { key })).into_response()
}

async fn create_token(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    Body(request): Body<CreateTokenRequest>,
) -> ApiResult<Response> {
    let user = key_owner(&app, &actor, &name).await?;
    let longest = max_lifetime(&app);
    let lifetime = if request.lifetime == 0 {
        DEFAULT_LIFETIME.min(longest)
    } else {
        request.lifetime
    };
    if lifetime < 0 || lifetime > longest {
        return Err(ApiError::bad_request("Failed to create API key.")
            .detail("lifetime must be positive and not above the configured maximum"));
    }
    if request.token_name.len() > MAX_NAME {
        return Err(ApiError::invalid(
            "token_name",
            format!("must be at most {MAX_NAME} characters"),
        ));
    }
    let token_name = if request.token_name.is_empty() {
        format!("token-{:08x}", rand::rng().random::<u32>())
    } else {
        request.token_name
    };
    let mut new = new_key(
        user.id,
        LoginType::Token,
        lifetime / 1_000_000_000,
        &token_name,
    );
    if request.scope == "application_connect" {
        new.key.scope = request.scope;
        new.key.scopes = vec![scope::APPLICATION_CONNECT.to_owned()];
    }
    if !request.scopes.is_empty() {
        new.key.scope = match request.scopes.as_slice() {
            [one] if one == scope::ALL => "all".to_owned(),
            [one] if one == scope::APPLICATION_CONNECT => "application_connect".to_owned(),
            _ => String::new(),
        };
        new.key.scopes = request.scopes;
    }
    if !request.allow_list.is_empty() {
        new.key.allow_list = request.allow_list;
    }
    check_limits(&new.key)?;
    if !actor.may_grant(&new.key) {
        return Err(ApiError::forbidden());
    }
    match app.store.insert_key(&new.key).await {
        Ok(()) => Ok(created(new.token)),
        Err(Error::Taken(_)) => Err(ApiError::conflict(format!(
            "A token with name {token_name:?} already exists."
        ))
        .field("name", "This value is already in use and should be unique.")),
        Err(error) => Err(error.into()),
    }
}

/// Refuses scopes and objects nobody knows: a key that seems limited has to be.
fn check_limits(key: &adit_store::model::ApiKey) -> ApiResult<()> {
    let refuse = |field: &str, text: &str| {
        ApiError::bad_request("Failed to create API key.")
            .detail(format!("{text:?} is not known"))
            .field(field, format!("{text:?} is not a valid value"))
    };
    if let Some(unknown) = key.scopes.iter().find(|scope| !scope::is_known(scope)) {
        return Err(refuse("scopes", unknown));
    }
    match key.allow_list.iter().find(|entry| !scope::is_entry(entry)) {
        Some(entry) => Err(refuse("allow_list", entry)),
        None => Ok(()),
    }
}

fn max_lifetime(app: &App) -> i64 {
    i64::try_from(app.config.max_token_lifetime.as_nanos()).unwrap_or(i64::MAX)
}

async fn config(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
) -> ApiResult<Json<TokenConfig>> {
    access::user(&app, &actor, &name).await?;
    Ok(Json(TokenConfig {
        max_token_lifetime: max_lifetime(&app),
    }))
}

async fn list(
    State(app): State<App>,
    actor: Actor,
    Path(name): Path<String>,
    query: Query,
) -> ApiResult<Response> {
    let user = access::user(&app, &actor, &name).await?;
    let all = query.flag("include_all") && actor.is_owner();
    let now = Time::now();
    let mut reply = Vec::new();
    for key in app.store.tokens((!all).then_some(user.id)).await? {
        if key.expires_at <= now && !query.flag("include_expired") {
            continue;
        }
        let username = if key.user_id == user.id {
            user.username.clone()
        } else {
            app.store.user(key.user_id).await?.username
        };
        reply.push(ApiKeyWithOwner {
            key: convert::api_key(key),
            username,
        });
    }
    Ok(Json(reply).into_response())
}

async fn by_name(
    State(app): State<App>,
    actor: Actor,
    Path((user, name)): Two,
) -> ApiResult<Json<ApiKey>> {
    let user = access::user(&app, &actor, &user).await?;
    match app.store.key_by_name(user.id, &name).await? {
        Some(key) => Ok(Json(convert::api_key(key))),
        None => Err(ApiError::not_found()),
    }
}

async fn key_of(
    app: &App,
    actor: &Actor,
    user: &str,
    id: &str,
) -> ApiResult<adit_store::model::ApiKey> {
    let user = access::user(app, actor, user).await?;
    let key = app.store.key(id).await?.ok_or_else(ApiError::not_found)?;
    if key.user_id != user.id && !actor.is_owner() {
        return Err(ApiError::not_found());
    }
    Ok(key)
}

async fn by_id(
    State(app): State<App>,
    actor: Actor,
    Path((user, id)): Two,
) -> ApiResult<Json<ApiKey>> {
    let key = key_of(&app, &actor, &user, &id).await?;
    Ok(Json(convert::api_key(key)))
}

async fn remove(
    State(app): State<App>,
    actor: Actor,
    Path((user, id)): Two,
) -> ApiResult<StatusCode> {
    let key = key_of(&app, &actor, &user, &id).await?;
    app.store.delete_key(&key.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn expire(
    State(app): State<App>,
    actor: Actor,
    Path((user, id)): Two,
) -> ApiResult<StatusCode> {
    let key = key_of(&app, &actor, &user, &id).await?;
    let now = Time::now();
    if key.expires_at > now {
        app.store.touch_key(&key.id, key.last_used, now).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
