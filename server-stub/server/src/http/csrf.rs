//! Requests a browser sends with its cookies although another site caused
//! them.
//!
//! A request is trusted if it carries the session token outside the cookie, or
//! the token of the `csrf_token` cookie in a header, which other sites cannot
//! read.

use adit_rest::{SESSION_TOKEN_COOKIE, SESSION_TOKEN_HEADER};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, StatusCode, header};
use rand::Rng as _;

use crate::app::App;
use crate::auth::cookie;
use crate::extract::Query;

const COOKIE: &str = "csrf_token";
const HEADER: &str = "x-csrf-token";

/// Whether the reply should set the cookie.
pub(crate) fn needs_cookie(request: &Request) -> bool {
    cookie(request.headers(), COOKIE).is_none()
}

/// Sets the cookie.
pub(crate) fn add_cookie(app: &App, response: &mut Response) {
    let token: [u8; 24] = rand::rng().random();
    let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    let secure = if app.access_url.scheme() == "https" {
        "; Secure"
    } else {
        ""
    };
    let value = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax{secure}");
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// Whether a request may go on.
pub(crate) fn is_allowed(request: &Request) -> bool {
    if matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    ) {
        return true;
    }
    let path = request.uri().path();
    if path == "/api/v2/users/first" || path.starts_with("/api/v2/workspaceagents/me") {
        return true;
    }
    let headers = request.headers();
    let Some(session) = cookie(headers, SESSION_TOKEN_COOKIE) else {
        return true;
    };
    let by_header = headers
        .get(SESSION_TOKEN_HEADER)
        .is_some_and(|value| value.as_bytes() == session.as_bytes());
    let query = Query::parse(request.uri().query());
    let by_query = query.get(SESSION_TOKEN_COOKIE) == Some(session);
    let by_token = match (headers.get(HEADER), cookie(headers, COOKIE)) {
        (Some(sent), Some(stored)) => !stored.is_empty() && sent.as_bytes() == stored.as_bytes(),
        _ => false,
    };
    by_header || by_query || by_token
}

/// The reply to a request that may not.
pub(crate) fn refusal() -> Response {
    let text = "Something is wrong with your CSRF token. Please refresh the page. If this error \
                persists, try clearing your cookies.";
    (StatusCode::BAD_REQUEST, text).into_response()
}
