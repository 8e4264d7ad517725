//! What is not JSON: health, login page, the page that shows a token.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::deployment::base_url;
use crate::app::App;
use crate::auth::{Actor, session_key};
use crate::error::ApiResult;
use crate::extract::Json;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(ok))
        .route("/latency-check", get(ok))
        .route("/cli-auth", get(cli_auth))
        .route("/login", get(login))
        .route(
            "/.well-known/oauth-authorization-server",
            get(authorization_server),
        )
}

async fn ok() -> &'static str {
    "OK"
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;\
         padding:0 1rem}}input,button{{font:inherit;padding:.4rem .6rem;margin:.2rem 0}}\
         code{{font:14px monospace;background:#8882;padding:.3rem .5rem;user-select:all;\
         word-break:break-all}}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    );
    let mut response = (status, [(header::CONTENT_TYPE, HTML)], html).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
             connect-src 'self'; form-action 'self'; frame-ancestors 'none'",
        ),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A token to paste into a program.
async fn cli_auth(
    State(app): State<App>,
    actor: Result<Actor, crate::error::ApiError>,
) -> ApiResult<Response> {
    let Ok(actor) = actor else {
        return Ok(login_page());
    };
    let new = session_key(&app, actor.user.id);
    app.store.insert_key(&new.key).await?;
    let body = format!(
        "<p>Copy this token into the program that asks for it:</p><p><code>{}</code></p>",
        new.token
    );
    Ok(page(StatusCode::OK, "Session token", &body))
}

async fn login() -> Response {
    login_page()
}

fn login_page() -> Response {
    let body = "<form id=\"f\"><p><input name=\"email\" type=\"email\" placeholder=\"E-mail\" \
                autocomplete=\"username\" required></p><p><input name=\"password\" \
                type=\"password\" placeholder=\"Password\" autocomplete=\"current-password\" \
                required></p><p><button>Sign in</button> <span id=\"m\"></span></p></form>\
                <script>f.onsubmit=async e=>{e.preventDefault();const r=await \
                fetch('/api/v2/users/login',{method:'POST',headers:{'Content-Type':\
                'application/json'},body:JSON.stringify({email:f.email.value,\
                password:f.password.value})});if(r.ok){const t=new \
                URLSearchParams(location.search).get('redirect')||'/cli-auth';\
                location=t.startsWith('/')&&!t.startsWith('//')?t:'/cli-auth'}else{\
                m.textContent=(await r.json()).message}}</script>";
    page(StatusCode::OK, "Sign in", body)
}

/// Where OAuth2 clients find their endpoints. There are none: clients fall
/// back to tokens when this is a 404.
async fn authorization_server(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let detail = format!("{} does not issue OAuth2 tokens", base_url(&app));
    let body = json!({"message": "Route not found.", "detail": detail});
    (StatusCode::NOT_FOUND, Json(body))
}

/// Everything that is no route and not below the API.
pub(crate) fn fallback(request: &Request) -> Response {
    let path = request.uri().path();
    if path == "/bin/" {
        // A list of programs to download: there are none.
        let body = "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n\
                    <pre>\n</pre>\n";
        return axum::response::Html(body).into_response();
    }
    if path.starts_with("/bin/") || path == "/install.sh" {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    }
    if path.starts_with("/@") {
        return page(
            StatusCode::NOT_FOUND,
            "Application not found",
            "<p>The application or workspace does not exist, or you have no access to it.</p>",
        );
    }
    page(
        StatusCode::OK,
        "Adit",
        "<p>This server has no web interface yet. Use <code>adit login</code>, or \
         <a href=\"/cli-auth\">get a token</a>.</p>",
    )
}
