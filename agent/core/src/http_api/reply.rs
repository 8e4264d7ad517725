//! Building answers.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::Reply;

const JSON: &str = "application/json; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// A JSON answer; the body ends with a line feed.
pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    let mut body = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
    body.push(b'\n');
    text(status, JSON, body)
}

/// An error as API clients expect it.
pub(super) fn api_error(status: StatusCode, message: &str, detail: Option<&str>) -> Reply {
    #[derive(serde::Serialize)]
    struct Error<'a> {
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    }
    json(status, &Error { message, detail })
}

pub(super) fn text(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// Text without a line feed, as the debug routes give it.
pub(super) fn plain(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    text(status, PLAIN, body)
}

pub(super) fn not_found() -> Reply {
    let mut reply = plain(StatusCode::NOT_FOUND, "404 page not found\n");
    reply.headers_mut().insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    reply
}

pub(super) fn method_not_allowed(allowed: &str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::new()));
    *reply.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    if let Ok(value) = HeaderValue::from_str(allowed) {
        reply.headers_mut().insert(ALLOW, value);
    }
    reply
}
