//! How a handler says no.

use adit_rest::Response as Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Result of a handler.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// A refusal with the JSON body every client understands.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    body: Body,
    headers: HeaderMap,
}

/// For a thing that is not there or not the caller's to see.
const NOT_FOUND: &str = "Resource not found or you do not have access to this resource";

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            body: Body::new(message),
            headers: HeaderMap::new(),
        }))
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, NOT_FOUND)
    }

    pub(crate) fn agent_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "Agent doesn't exist with that id, or you do not have access to it.",
        )
    }

    pub(crate) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden.")
            .detail("this needs a role your account does not have")
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn internal(error: impl std::fmt::Display + std::fmt::Debug) -> Self {
        tracing::error!(error = ?error, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "An internal server error occurred.",
        )
        .detail(error.to_string())
    }

    pub(crate) fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::bad_request("Validation failed.").field(field, detail)
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.body.detail = detail.into();
        self
    }

    pub(crate) fn field(mut self, field: &str, detail: impl Into<String>) -> Self {
        let body = std::mem::take(&mut self.0.body);
        self.0.body = body.invalid(field, detail);
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(crate) fn body(&self) -> &Body {
        &self.0.body
    }
}

impl From<adit_store::Error> for ApiError {
    fn from(error: adit_store::Error) -> Self {
        match error {
            adit_store::Error::NotFound => Self::not_found(),
            other => Self::internal(anyhow::Error::from(other)),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let inner = *self.0;
        let mut response = (inner.status, crate::extract::Json(inner.body)).into_response();
        response.headers_mut().extend(inner.headers);
        response
    }
}
