//! A successful answer, and how a failed one becomes an error.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use adit_rest::Response as ApiError;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use crate::error::one_line;
use crate::exchange::Driver;
use crate::pool::{Connection, Pool};
use crate::{Error, ErrorKind, Step};

/// Largest body that [`Response::bytes`] and [`Response::json`] take.
const MAX_BODY: usize = 64 << 20;

/// An error body beyond this is cut: only a sentence of it is shown.
const MAX_ERROR_BODY: usize = 64 << 10;

/// An answer with a 2xx status, its body not yet read.
pub struct Response {
    head: Head,
    body: Incoming,
    deadline: Option<Instant>,
    budget: Duration,
    /// Keeps the connection alive while the body is read.
    connection: Holder,
}

/// What is known before the body.
struct Head {
    status: StatusCode,
    headers: HeaderMap,
    method: Method,
    url: Url,
}

/// Who keeps the connection going.
pub(crate) enum Holder {
    /// Goes back into the pool at the end of the body.
    Pooled(Option<Connection>, Arc<Pool>),
    /// Ends with the response.
    Own(#[expect(dead_code, reason = "held for its Drop")] Driver),
}

impl Response {
    pub(crate) fn new(
        response: http::Response<Incoming>,
        method: Method,
        url: Url,
        budget: Duration,
        connection: Holder,
    ) -> Self {
        let (parts, body) = response.into_parts();
        let head = Head {
            status: parts.status,
            headers: parts.headers,
            method,
            url,
        };
        let mut new = Self {
            head,
            body,
            deadline: None,
            budget,
            connection,
        };
        if new.body.is_end_stream() {
            new.release();
        }
        new
    }

    /// Puts a limit on the time until the body is complete.
    pub(crate) fn until(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Where the answer came from, after redirects.
    pub fn url(&self) -> &Url {
        &self.head.url
    }

    /// The next piece of the body, `None` at its end. Waits as long as a whole
    /// request may take, or until the request's deadline.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let wait = match self.deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => self.budget,
        };
        self.chunk_within(wait).await
    }

    /// As [`chunk`](Self::chunk), with a limit of its own.
    pub(crate) async fn chunk_within(&mut self, wait: Duration) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(wait, self.body.frame()).await.map_err(|_| {
                let after = if self.deadline.is_some() {
                    self.budget
                } else {
                    wait
                };
                self.fail(ErrorKind::Timeout {
                    step: Step::Body,
                    after,
                })
            })?;
            match frame {
                None => {
                    self.release();
                    return Ok(None);
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    let reason = format!("the answer broke off: {error}");
                    return Err(self.fail(ErrorKind::Protocol { reason }));
                }
            }
        }
    }

    /// The whole body.
    pub async fn bytes(self) -> Result<Bytes, Error> {
        self.bytes_up_to(MAX_BODY).await
    }

    /// The whole body, unless it is larger than `limit` bytes.
    pub async fn bytes_up_to(mut self, limit: usize) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(data) = self.chunk().await? {
            if all.len() + data.len() > limit {
                return Err(self.fail(ErrorKind::TooLarge { limit }));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }

    /// The body as a JSON value.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let status = self.head.status;
        let content_type = self.head.content_type();
        let (method, url) = (self.head.method.clone(), self.head.url.clone());
        let fail = |kind| Error::new(kind).at(&url).with_method(&method);
        match content_type.as_str() {
            "" | "application/json" => {}
            "text/html" => return Err(fail(ErrorKind::Html { status })),
            _ => {
                return Err(fail(ErrorKind::NotJson {
                    status,
                    content_type,
                }));
            }
        }
        let body = self.bytes().await?;
        serde_json::from_slice(&body).map_err(|error| {
            let reason = error.to_string();
            fail(ErrorKind::Decode { reason })
        })
    }

    /// Reads and drops the body, so that the connection can be used again.
    pub async fn discard(mut self) -> Result<(), Error> {
        while self.chunk().await?.is_some() {}
        Ok(())
    }

    /// Turns an answer that is no success into the error it stands for.
    pub(crate) async fn into_error(mut self) -> Error {
        let deadline = Instant::now() + self.budget.min(Duration::from_secs(5));
        let mut body = BytesMut::new();
        while body.len() < MAX_ERROR_BODY {
            match timeout_at(deadline, self.chunk()).await {
                Ok(Ok(Some(data))) => body.extend_from_slice(&data),
                _ => break,
            }
        }
        self.fail(failure(&self.head, &body))
    }

    fn fail(&self, kind: ErrorKind) -> Error {
        Error::new(kind)
            .at(&self.head.url)
            .with_method(&self.head.method)
    }

    fn release(&mut self) {
        if let Holder::Pooled(connection, pool) = &mut self.connection
            && let Some(connection) = connection.take()
        {
            pool.put(connection);
        }
    }
}

impl Head {
    /// The media type without parameters, in lower case; empty if absent.
    fn content_type(&self) -> String {
        self.headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    }
}

/// The message with which servers refuse an API version they do not have.
const UNSUPPORTED_VERSION: &str = "Unknown or unsupported API version";

fn failure(head: &Head, body: &[u8]) -> ErrorKind {
    let status = head.status;
    let content_type = head.content_type();
    let retry_after = head
        .headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let with = |response| ErrorKind::Status {
        status,
        response,
        retry_after,
    };
    match content_type.as_str() {
        "application/json" => {
            let response: ApiError = serde_json::from_slice(body).unwrap_or_default();
            if response.message == UNSUPPORTED_VERSION {
                let detail = response
                    .validations
                    .first()
                    .map_or("", |v| v.detail.as_str());
                return ErrorKind::UnsupportedVersion {
                    detail: one_line(detail),
                };
            }
            with(response)
        }
        "text/html" => ErrorKind::Html { status },
        "" => with(ApiError::default()),
        "text/plain" if is_control_plane(head) || status.is_server_error() => {
            let text = String::from_utf8_lossy(body);
            let message = one_line(text.lines().next().unwrap_or_default());
            with(ApiError {
                message,
                ..ApiError::default()
            })
        }
        _ if body.starts_with(b"Client sent an HTTP request to an HTTPS server") => {
            let reason = "the server speaks TLS on this port: use https://".to_owned();
            ErrorKind::Protocol { reason }
        }
        _ if status.is_redirection() => with(ApiError::default()),
        _ => ErrorKind::NotJson {
            status,
            content_type,
        },
    }
}

/// Whether the control plane itself answered, or a relay.
fn is_control_plane(head: &Head) -> bool {
    head.headers.contains_key(adit_rest::BUILD_VERSION_HEADER)
        || head.status == StatusCode::UPGRADE_REQUIRED
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Response({} {})",
            self.head.status.as_u16(),
            crate::error::shown(&self.head.url)
        )
    }
}
