//! The front: what every request passes, whatever it asks for.

pub(crate) mod csrf;
pub(crate) mod rate;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use std::net::SocketAddr;

use adit_rest::BYPASS_RATE_LIMIT_HEADER;

use crate::app::App;
use crate::auth::{authenticate, token_of};
use crate::error::ApiError;
use crate::extract::Query;

/// Largest request body, in bytes: an uploaded template.
const MAX_BODY: usize = 100 << 20;

const VERSION: HeaderName = HeaderName::from_static("x-coder-build-version");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// All routes of the server.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .merge(crate::api::routes())
        .merge(crate::rpc::routes())
        .merge(crate::coord::routes())
        .merge(crate::derp::routes())
        .fallback(fallback)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(app.clone(), front))
        .with_state(app)
}

/// No route: JSON below the API, a page elsewhere.
async fn fallback(request: Request) -> Response {
    let path = request.uri().path();
    if path == "/api/v2" || path.starts_with("/api/v2/") {
        return ApiError::new(StatusCode::NOT_FOUND, "Route not found.").into_response();
    }
    crate::api::pages::fallback(&request)
}

async fn front(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let version = HeaderValue::from_str(app.version()).ok();
    let mut response = if is_preflight(&request) {
        Response::new(Body::empty())
    } else {
        let wants_cookie = csrf::needs_cookie(&request);
        let mut response = checked(&app, &mut request, next).await;
        if wants_cookie {
            csrf::add_cookie(&app, &mut response);
        }
        let headers = response.headers_mut();
        headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        headers.append(header::VARY, HeaderValue::from_static("Cookie"));
        response
    };
    if let Some(version) = version {
        response.headers_mut().insert(VERSION, version);
    }
    response
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Cross-site check, rate limit, then the route.
async fn checked(app: &App, request: &mut Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    if path.starts_with("/api") && !csrf::is_allowed(request) {
        return csrf::refusal();
    }
    if !path.starts_with("/api/v2") && !path.starts_with("/@") {
        return next.run(std::mem::take(request)).await;
    }
    let query = Query::parse(request.uri().query());
    let token = token_of(request.headers(), &query);
    let bypass = request.headers().get(BYPASS_RATE_LIMIT_HEADER);
    if bypass.is_some_and(|value| value == "true") {
        match authenticate(app, token.as_deref()).await {
            Ok(actor) if actor.is_owner() => {
                request.extensions_mut().insert(actor);
            }
            Ok(_) => return bypass_refused(),
            Err(error) => return error.into_response(),
        }
    }
    let exempt = request.extensions().get::<crate::auth::Actor>().is_some();
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip());
    let subject = rate::Subject {
        peer,
        token: token.as_deref(),
    };
    let verdict = app.rate.take(subject, &path, exempt);
    if verdict.refused {
        let mut response = verdict.refusal().into_response();
        verdict.annotate(response.headers_mut());
        return response;
    }
    let mut response = if request.method() == Method::OPTIONS {
        match authenticate(app, token.as_deref()).await {
            Ok(_) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
            Err(error) => error.into_response(),
        }
    } else {
        next.run(std::mem::take(request)).await
    };
    verdict.annotate(response.headers_mut());
    response
}

fn bypass_refused() -> Response {
    let text = format!("{BYPASS_RATE_LIMIT_HEADER:?} provided but user is not owner");
    (StatusCode::PRECONDITION_REQUIRED, text).into_response()
}
