//! Reading requests and writing JSON.

use adit_rest::boolean;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::app::App;
use crate::error::{ApiError, ApiResult};

/// A JSON reply: one line, with a newline at its end.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = match serde_json::to_vec(&self.0) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, "reply cannot be written as JSON");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        };
        body.push(b'\n');
        ([(header::CONTENT_TYPE, JSON)], body).into_response()
    }
}

/// A JSON request body, whatever its content type says.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &App) -> ApiResult<Self> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            ApiError::bad_request("Failed to read the request body.").detail(error.to_string())
        })?;
        parse(&bytes).map(Self)
    }
}

/// A JSON request body that may be missing.
#[derive(Debug)]
pub(crate) struct OptionalBody<T>(pub(crate) Option<T>);

impl<T: DeserializeOwned> FromRequest<App> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &App) -> ApiResult<Self> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            ApiError::bad_request("Failed to read the request body.").detail(error.to_string())
        })?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(None));
        }
        parse(&bytes).map(|value| Self(Some(value)))
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let refuse =
        |detail: String| ApiError::bad_request("Request body must be valid JSON.").detail(detail);
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(refuse("expected an object, found an array".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))
}

/// A UUID in a path: any case; anything else is a 400.
pub(crate) fn uuid(text: &str) -> ApiResult<Uuid> {
    Uuid::try_parse(text).map_err(|error| {
        ApiError::bad_request(format!("Invalid UUID {text:?}.")).detail(error.to_string())
    })
}

/// The only UUID of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(pub(crate) Uuid);

impl FromRequestParts<App> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &App) -> ApiResult<Self> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::not_found())?;
        uuid(&text).map(Self)
    }
}

/// Two segments of a path.
pub(crate) type Two = Path<(String, String)>;

/// Decoded query parameters, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// First value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is there, with or without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A parameter that is there and says yes.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(boolean).unwrap_or(false)
    }

    /// A whole number; a bad one is a 400.
    pub(crate) fn number(&self, name: &str) -> ApiResult<Option<i64>> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => match text.parse::<i64>() {
                Ok(number) if number >= 0 => Ok(Some(number)),
                _ => Err(
                    ApiError::bad_request("Query parameters have invalid values.").field(
                        name,
                        format!("Query param {name:?} must be a valid whole number"),
                    ),
                ),
            },
        }
    }

    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }
}

impl FromRequestParts<App> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        Ok(Self::parse(parts.uri.query()))
    }
}
