//! The client itself.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use crate::dial::Dialer;
use crate::exchange::{Answer, exchange, handshake};
use crate::pool::{Connection, Pool};
use crate::response::Holder;
use crate::spare::Spares;
use crate::{
    BoxIo, ClientConfig, Endpoint, Error, ErrorKind, EventStream, Response, SseOptions, Step,
    UpgradeRequest, Upgraded,
};

/// As many redirects as Go's client follows.
const MOST_REDIRECTS: usize = 10;

/// A client of one control plane. Clones share connections and token.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    base: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    user_agent: HeaderValue,
    token: RwLock<Option<HeaderValue>>,
    server_version: OnceLock<String>,
    request_timeout: Duration,
    dialer: Dialer,
    pool: Arc<Pool>,
    spares: Spares,
}

/// A request body.
#[derive(Clone, Debug)]
pub struct Body {
    content_type: HeaderValue,
    bytes: Bytes,
}

impl Body {
    /// A body of any type.
    pub fn new(content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self {
            content_type: HeaderValue::from_static(content_type),
            bytes: bytes.into(),
        }
    }

    /// A JSON body.
    pub fn json<T: Serialize>(value: &T) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(value)
            .map_err(|e| Error::new(ErrorKind::Config(format!("request body: {e}"))))?;
        Ok(Self::new("application/json", bytes))
    }
}

/// One request on its way through redirects.
struct Outgoing {
    method: Method,
    body: Option<Body>,
    extra: HeaderMap,
    with_token: bool,
}

impl Client {
    /// Makes a client; nothing is dialed and no file is read yet.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        Endpoint::from_url(&config.base)?;
        let user_agent = HeaderValue::from_str(&config.user_agent)
            .map_err(|_| Error::new(ErrorKind::Config("user agent is no header value".into())))?;
        let client = Self(Arc::new(Shared {
            base: config.base,
            headers: config.headers,
            user_agent,
            token: RwLock::default(),
            server_version: OnceLock::new(),
            request_timeout: config.request_timeout,
            dialer: Dialer::new(config.tls, config.proxy, config.connect_timeout),
            pool: Arc::default(),
            spares: Spares::default(),
        }));
        if let Some(token) = config.session_token {
            client.set_session_token(&token)?;
        }
        Ok(client)
    }

    /// The control plane's URL.
    pub fn base(&self) -> &Url {
        &self.0.base
    }

    /// The version that the server named with its first answer; `None` before,
    /// or if what answered is no control plane.
    pub fn server_version(&self) -> Option<&str> {
        self.0.server_version.get().map(String::as_str)
    }

    /// Sets the session or agent token of all requests from now on.
    pub fn set_session_token(&self, token: &str) -> Result<(), Error> {
        let mut value = HeaderValue::from_str(token.trim()).map_err(|_| {
            let text = "the session token contains characters that no token has";
            Error::new(ErrorKind::Config(text.into()))
        })?;
        value.set_sensitive(true);
        *self.0.token.write().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// Sends a request to the control plane and gives its answer if the status
    /// is a success; other statuses are errors. Redirects are followed, with
    /// token and user-defined headers only on the same host.
    pub async fn request(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Body>,
    ) -> Result<Response, Error> {
        self.request_with(method, path_and_query, body, HeaderMap::new())
            .await
    }

    /// As [`request`](Self::request), with further headers.
    pub async fn request_with(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Body>,
        extra: HeaderMap,
    ) -> Result<Response, Error> {
        let deadline = Instant::now() + self.0.request_timeout;
        let outgoing = Outgoing {
            method,
            body,
            extra,
            with_token: true,
        };
        let sent = self
            .send(path_and_query, outgoing, deadline, self.0.request_timeout)
            .await;
        Ok(sent?.until(deadline))
    }

    /// GET with a JSON answer.
    pub async fn get<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<T, Error> {
        self.request(Method::GET, path_and_query, None)
            .await?
            .json()
            .await
    }

    /// A request with a JSON body and a JSON answer.
    pub async fn call<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path_and_query: &str,
        body: &B,
    ) -> Result<T, Error> {
        let body = Body::json(&body)?;
        self.request(method, path_and_query, Some(body))
            .await?
            .json()
            .await
    }

    /// As [`request`](Self::request) for an answer that is read while it is
    /// being made: only its head has a deadline, and each
    /// [`chunk`](Response::chunk).
    pub async fn stream(&self, method: Method, path_and_query: &str) -> Result<Response, Error> {
        let deadline = Instant::now() + self.0.request_timeout;
        let outgoing = Outgoing {
            method,
            body: None,
            extra: HeaderMap::new(),
            with_token: true,
        };
        self.send(path_and_query, outgoing, deadline, self.0.request_timeout)
            .await
    }

    /// Opens a stream of server sent events.
    pub async fn sse(
        &self,
        path_and_query: &str,
        options: SseOptions,
    ) -> Result<EventStream, Error> {
        let deadline = Instant::now() + options.head_timeout;
        let mut extra = HeaderMap::new();
        extra.insert(
            header::ACCEPT,
            HeaderValue::from_static("text/event-stream"),
        );
        let outgoing = Outgoing {
            method: Method::GET,
            body: None,
            extra,
            with_token: true,
        };
        let response = self
            .send(path_and_query, outgoing, deadline, options.head_timeout)
            .await?;
        let is_stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        if is_stream {
            Ok(EventStream::new(response, options))
        } else {
            Err(response.into_error().await)
        }
    }

    /// A byte stream to `endpoint`: TCP, through the proxy if there is one for
    /// it, and TLS if it wants.
    pub async fn connect_io(&self, endpoint: &Endpoint) -> Result<BoxIo, Error> {
        self.0.dialer.tunnel(endpoint).await
    }

    /// Dials the control plane now for the next `upgrades` switches of
    /// protocols within a few seconds, there or at another service of the same
    /// server. Must be called inside a tokio runtime.
    pub fn prepare(&self, upgrades: usize) {
        let Ok(endpoint) = Endpoint::from_url(&self.0.base) else {
            return;
        };
        for _ in 0..upgrades {
            let (shared, to) = (Arc::clone(&self.0), endpoint.clone());
            let dial = async move { shared.dialer.tunnel(&to).await };
            self.0.spares.add(endpoint.clone(), dial);
        }
    }

    /// Asks a server to switch protocols.
    pub async fn upgrade(&self, request: &UpgradeRequest) -> Result<Upgraded, Error> {
        let mut url = request.url(&self.0.base)?;
        let budget = request.head_timeout.unwrap_or(self.0.request_timeout);
        let mut redirected = false;
        for _ in 0..=MOST_REDIRECTS {
            let fail = |error: Error| {
                let error = error.at(&url).with_method(&Method::GET);
                if redirected {
                    error.redirected_to(&url)
                } else {
                    error
                }
            };
            let answer = self
                .upgrade_once(request, &url, budget)
                .await
                .map_err(fail)?;
            let (response, driver) = match answer {
                Answer::Switched(upgraded) => return Ok(upgraded),
                Answer::Lost => {
                    let reason = "the upgraded connection was lost".to_owned();
                    return Err(fail(Error::new(ErrorKind::Protocol { reason })));
                }
                Answer::Refused(response, driver) => (response, driver),
            };
            let status = response.status();
            if request.follow_redirects
                && let Some(next) = redirect(&url, status, response.headers()).map_err(fail)?
            {
                url = next;
                redirected = true;
                continue;
            }
            if status.is_success() {
                let page = response
                    .headers()
                    .get(header::CONTENT_TYPE)
                    .is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
                return Err(fail(Error::new(if page {
                    ErrorKind::Html { status }
                } else {
                    ErrorKind::NotUpgraded { status }
                })));
            }
            let response = Response::new(
                response,
                Method::GET,
                url.clone(),
                budget,
                Holder::Own(driver),
            );
            return Err(fail(response.into_error().await));
        }
        Err(too_many_redirects().at(&url))
    }

    async fn upgrade_once(
        &self,
        request: &UpgradeRequest,
        url: &Url,
        budget: Duration,
    ) -> Result<Answer, Error> {
        let endpoint = match &request.target {
            crate::upgrade::Target::Elsewhere(endpoint, _) => endpoint.clone(),
            crate::upgrade::Target::Base(_) => Endpoint::from_url(url)?,
        };
        let mut head = Request::new(Full::default());
        *head.uri_mut() = origin_form(url)?;
        let headers = head.headers_mut();
        headers.insert(header::HOST, host_value(&endpoint)?);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, request.protocol.clone());
        let elsewhere = matches!(request.target, crate::upgrade::Target::Elsewhere(..));
        let trusted = elsewhere || same_site(&self.0.base, url);
        self.common_headers(headers, trusted, trusted && request.with_token);
        for (name, value) in &request.headers {
            headers.insert(name, value.clone());
        }
        let io = match self.0.spares.take(&endpoint).await {
            Some(io) => io,
            None => self.0.dialer.tunnel(&endpoint).await?,
        };
        match timeout(budget, exchange(io, head)).await {
            Ok(answer) => answer.map_err(|e| protocol(&e)),
            Err(_) => Err(late(Step::Response, budget)),
        }
    }

    /// Sends through redirects until a success or an error.
    async fn send(
        &self,
        path_and_query: &str,
        mut outgoing: Outgoing,
        deadline: Instant,
        budget: Duration,
    ) -> Result<Response, Error> {
        let mut url = join(&self.0.base, path_and_query)?;
        let mut redirected = false;
        for _ in 0..=MOST_REDIRECTS {
            let method = outgoing.method.clone();
            let fail = |error: Error| {
                let error = error.at(&url).with_method(&method);
                if redirected {
                    error.redirected_to(&url)
                } else {
                    error
                }
            };
            let response = match timeout_at(deadline, self.send_once(&outgoing, &url)).await {
                Ok(result) => result.map_err(fail)?,
                Err(_) => return Err(fail(late(Step::Response, budget))),
            };
            let status = response.status();
            self.note_version(response.headers());
            if status.is_success() {
                return Ok(response);
            }
            if let Some(next) = redirect(&url, status, response.headers()).map_err(fail)? {
                if status == StatusCode::SEE_OTHER
                    || matches!(status.as_u16(), 301 | 302) && method == Method::POST
                {
                    outgoing.method = Method::GET;
                    outgoing.body = None;
                }
                url = next;
                redirected = true;
                continue;
            }
            return Err(fail(response.into_error().await));
        }
        Err(too_many_redirects().at(&url))
    }

    /// Sends once; on a kept connection that turns out to be dead, once more.
    async fn send_once(&self, outgoing: &Outgoing, url: &Url) -> Result<Response, Error> {
        let endpoint = Endpoint::from_url(url)?;
        if let Some(connection) = self.0.pool.take(&endpoint).await {
            let repeatable = outgoing.method.is_idempotent();
            match self.send_on(connection, outgoing, url, &endpoint).await? {
                Ok(response) => return Ok(response),
                Err((error, sent)) if sent && !repeatable => return Err(protocol(&error)),
                Err(_) => {}
            }
        }
        let dialed = self.0.dialer.for_requests(&endpoint).await?;
        let (sender, driver) = handshake(dialed.io).await.map_err(|e| protocol(&e))?;
        let forward = dialed.forward;
        let connection = Connection {
            endpoint: endpoint.clone(),
            sender,
            driver,
            forward,
        };
        let sent = self.send_on(connection, outgoing, url, &endpoint).await?;
        sent.map_err(|(error, _)| protocol(&error))
    }

    /// The inner error says whether the request may have been sent.
    async fn send_on(
        &self,
        mut connection: Connection,
        outgoing: &Outgoing,
        url: &Url,
        endpoint: &Endpoint,
    ) -> Result<Result<Response, (hyper::Error, bool)>, Error> {
        let mut request = self.build(outgoing, url, endpoint)?;
        if let Some(authorization) = &connection.forward {
            *request.uri_mut() = absolute_form(url)?;
            if let Some(value) = authorization {
                request
                    .headers_mut()
                    .insert(header::PROXY_AUTHORIZATION, value.clone());
            }
        }
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                let holder = Holder::Pooled(Some(connection), self.0.pool.clone());
                let (method, url) = (outgoing.method.clone(), url.clone());
                let budget = self.0.request_timeout;
                Ok(Ok(Response::new(response, method, url, budget, holder)))
            }
            Err(mut failed) => {
                let sent = failed.take_message().is_none();
                Ok(Err((failed.into_error(), sent)))
            }
        }
    }

    fn build(
        &self,
        outgoing: &Outgoing,
        url: &Url,
        endpoint: &Endpoint,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let bytes = outgoing
            .body
            .as_ref()
            .map(|body| body.bytes.clone())
            .unwrap_or_default();
        let mut request = Request::new(Full::new(bytes));
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = origin_form(url)?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, host_value(endpoint)?);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(body) = &outgoing.body {
            headers.insert(header::CONTENT_TYPE, body.content_type.clone());
        }
        let trusted = same_site(&self.0.base, url);
        self.common_headers(headers, trusted, trusted && outgoing.with_token);
        for (name, value) in &outgoing.extra {
            headers.insert(name, value.clone());
        }
        Ok(request)
    }

    fn note_version(&self, headers: &HeaderMap) {
        if let Some(version) = headers
            .get(adit_rest::BUILD_VERSION_HEADER)
            .and_then(|value| value.to_str().ok())
            .filter(|version| !version.is_empty())
        {
            self.0.server_version.get_or_init(|| version.to_owned());
        }
    }

    fn common_headers(&self, headers: &mut HeaderMap, user_defined: bool, token: bool) {
        headers.insert(header::USER_AGENT, self.0.user_agent.clone());
        if user_defined {
            for (name, value) in &self.0.headers {
                headers.insert(name, value.clone());
            }
        }
        let known = self
            .0
            .token
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(value) = known.filter(|_| token) {
            headers.insert(session_token_header(), value);
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", crate::error::shown(&self.0.base))
    }
}

/// `Coder-Session-Token`.
fn session_token_header() -> HeaderName {
    HeaderName::from_static("coder-session-token")
}

/// The path and query on the control plane's origin; a path of the base URL
/// itself is dropped, as the original client does.
pub(crate) fn join(base: &Url, path_and_query: &str) -> Result<Url, Error> {
    if !path_and_query.starts_with('/') || path_and_query.starts_with("//") {
        return Err(bad_url(path_and_query));
    }
    base.join(path_and_query)
        .map_err(|_| bad_url(path_and_query))
}

pub(crate) fn bad_url(text: &str) -> Error {
    let path = text.split('?').next().unwrap_or_default();
    Error::new(ErrorKind::Config(format!(
        "{path:?} does not make a valid URL"
    )))
}

/// Whether what is secret between us and `base` may be sent to `url`: the same
/// origin, or the same host with TLS where there was none.
fn same_site(base: &Url, url: &Url) -> bool {
    base.origin() == url.origin()
        || base.scheme() == "http" && url.scheme() == "https" && base.host() == url.host()
}

/// Where a redirect leads; `None` if the status is no redirect.
fn redirect(from: &Url, status: StatusCode, headers: &HeaderMap) -> Result<Option<Url>, Error> {
    let Some(location) = headers
        .get(header::LOCATION)
        .filter(|_| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308))
    else {
        return Ok(None);
    };
    let refuse = |reason: &str| {
        Error::new(ErrorKind::Redirect {
            reason: reason.into(),
        })
    };
    let next = location
        .to_str()
        .ok()
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| refuse("its target is no URL"))?;
    match (from.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => Ok(Some(next)),
        _ => Err(refuse("it leads away from TLS")),
    }
}

fn origin_form(url: &Url) -> Result<Uri, Error> {
    let text = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    text.parse().map_err(|_| bad_url(url.path()))
}

fn absolute_form(url: &Url) -> Result<Uri, Error> {
    let mut whole = url.clone();
    whole.set_fragment(None);
    let _ = whole.set_username("");
    let _ = whole.set_password(None);
    whole.as_str().parse().map_err(|_| bad_url(url.path()))
}

fn host_value(endpoint: &Endpoint) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(&endpoint.host_header()).map_err(|_| bad_url(&endpoint.host))
}

fn protocol(error: &hyper::Error) -> Error {
    let reason = if error.is_parse() {
        "the server does not speak HTTP/1.1".to_owned()
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "the connection was closed before an answer".to_owned()
    } else {
        error.to_string()
    };
    Error::new(ErrorKind::Protocol { reason })
}

fn late(step: Step, after: Duration) -> Error {
    Error::new(ErrorKind::Timeout { step, after })
}

fn too_many_redirects() -> Error {
    let reason = format!("more than {MOST_REDIRECTS} in a row");
    Error::new(ErrorKind::Redirect { reason })
}
