//! First user, login and logout.

use adit_rest::{
    AuthMethod, AuthMethods, CreateFirstUserRequest, CreateFirstUserResponse, LoginRequest,
    LoginResponse, LoginType, Response as Message, SESSION_TOKEN_COOKIE, Time, UserStatus,
};
use adit_store::{Error, NewUser};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};

use super::users::check_names;
use crate::app::App;
use crate::auth::{Actor, password, session_key};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Body, Json};

/// The cookie outlives the session; the key's own end counts.
const COOKIE_AGE: &str = "31536000";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/users/first", get(has_first).post(create_first))
        .route("/users/authmethods", get(methods))
        .route("/users/login", post(login))
        .route("/users/logout", post(logout))
}

async fn has_first(State(app): State<App>) -> ApiResult<Response> {
    if app.store.count_users().await? == 0 {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "The initial user has not been created!",
        ));
    }
    Ok(Json(Message::new("The initial user has already been created!")).into_response())
}

async fn create_first(
    State(app): State<App>,
    Body(request): Body<CreateFirstUserRequest>,
) -> ApiResult<Response> {
    let exists = || ApiError::conflict("The initial user has already been created.");
    if app.store.count_users().await? > 0 {
        return Err(exists());
    }
    check_names(&request.email, &request.username)?;
    check_password(&request.password)?;
    let new = NewUser {
        username: request.username,
        email: request.email,
        name: request.name,
        password_hash: password::hash(request.password)
            .await
            .map_err(ApiError::internal)?,
        status: UserStatus::Active,
        login_type: LoginType::Password,
        roles: vec!["owner".to_owned()],
        ..NewUser::default()
    };
    let (user, organization) = match app.store.create_first_user(&new).await {
        Ok(made) => made,
        Err(Error::Refused(_) | Error::Taken(_)) => return Err(exists()),
        Err(error) => return Err(error.into()),
    };
    let reply = CreateFirstUserResponse {
        user_id: user.id,
        organization_id: organization.id,
    };
    Ok((StatusCode::CREATED, Json(reply)).into_response())
}

/// Refuses a password that is easily guessed.
pub(super) fn check_password(text: &str) -> ApiResult<()> {
    match password::weakness(text) {
        Some(weakness) => {
            Err(ApiError::bad_request("Password is invalid").field("password", weakness))
        }
        None => Ok(()),
    }
}

async fn methods() -> Json<AuthMethods> {
    Json(AuthMethods {
        password: AuthMethod { enabled: true },
        ..AuthMethods::default()
    })
}

async fn login(State(app): State<App>, Body(request): Body<LoginRequest>) -> ApiResult<Response> {
    check_login(&request)?;
    let wrong = || ApiError::new(StatusCode::UNAUTHORIZED, "Incorrect email or password.");
    let user = app.store.user_by_email(&request.email).await?;
    let stored = user
        .as_ref()
        .filter(|user| !user.is_system)
        .map_or_else(String::new, |user| user.password_hash.clone());
    let matches = password::verify(request.password, stored)
        .await
        .map_err(ApiError::internal)?;
    let user = user.filter(|_| matches).ok_or_else(wrong)?;
    if user.login_type != LoginType::Password {
        let message = format!(
            "Incorrect login type, attempting to use \"password\" but user is of login type {:?}",
            user.login_type.as_str()
        );
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    if user.status == UserStatus::Suspended {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "Your account is suspended. Contact an admin to reactivate your account.",
        ));
    }
    let new = session_key(&app, user.id);
    app.store.insert_key(&new.key).await?;
    app.store.touch_user(user.id, Time::now()).await?;
    let secure = if app.access_url.scheme() == "https" {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!(
        "{SESSION_TOKEN_COOKIE}={}; Path=/; Max-Age={COOKIE_AGE}; HttpOnly; SameSite=Lax{secure}",
        new.token
    );
    let reply = LoginResponse {
        session_token: new.token,
    };
    with_cookie((StatusCode::CREATED, Json(reply)).into_response(), &cookie)
}

fn check_login(request: &LoginRequest) -> ApiResult<()> {
    let mut error = ApiError::bad_request("Validation failed.");
    let mut bad = false;
    if !super::users::is_email(&request.email) {
        let tag = if request.email.is_empty() {
            "required"
        } else {
            "email"
        };
        error = error.field("email", failed(tag, &request.email));
        bad = true;
    }
    if request.password.is_empty() {
        error = error.field("password", failed("required", ""));
        bad = true;
    }
    if bad { Err(error) } else { Ok(()) }
}

/// The text of a refused field.
pub(super) fn failed(tag: &str, value: &str) -> String {
    format!("Validation failed for tag {tag:?} with value: \"{value}\"")
}

async fn logout(State(app): State<App>, actor: Actor) -> ApiResult<Response> {
    app.store.delete_key(&actor.key.id).await?;
    let cookie = format!("{SESSION_TOKEN_COOKIE}=; Path=/; Max-Age=0; SameSite=Lax");
    with_cookie(Json(Message::new("Logged out!")).into_response(), &cookie)
}

fn with_cookie(mut response: Response, cookie: &str) -> ApiResult<Response> {
    let value = HeaderValue::from_str(cookie).map_err(ApiError::internal)?;
    response.headers_mut().append(header::SET_COOKIE, value);
    Ok(response)
}
