//! The agent's HTTP API on tunnel port 4.
//!
//! There is no authentication: who can reach it was let in by the
//! coordinator. Known paths that this agent does not serve answer 501 in JSON,
//! unknown ones 404 in plain text.

mod containers;
mod debug;
mod directory;
mod files;
mod netcheck;
mod reply;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::manifest::Manifest;
use crate::metrics::Metrics;
use crate::ports::{self, ListeningPort};
use reply::{api_error, json, not_found, text};

/// How long a request's head may take, and how long a quiet connection stays.
const HEAD_TIME: Duration = Duration::from_secs(20);
/// How long answering may take.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// Largest request in JSON, in bytes.
const BODY: usize = 1 << 20;
/// Largest file that is written, in bytes.
const FILE: usize = 64 << 20;
/// How long a port scan stays good.
const SCAN_AGE: Duration = Duration::from_secs(1);

type Reply = Response<Full<Bytes>>;

/// Which part of the API a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of it, inside the tunnel.
    Tunnel,
    /// Debug pages only.
    Debug,
    /// Metrics on every path.
    Metrics,
}

/// What the API can tell about. Shared by all connections.
pub struct Api {
    /// The node, for network questions.
    pub node: Option<adit_engine::Node>,
    /// The current manifest.
    pub manifest: watch::Receiver<Option<Arc<Manifest>>>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// The agent's log file.
    pub log_file: PathBuf,
    /// Ports of the agent's own listeners.
    pub ignored_ports: Vec<u16>,
    /// Newest port scan.
    pub scan: Mutex<Option<(Instant, Vec<ListeningPort>)>>,
    /// What is served.
    pub scope: Scope,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// Serves one connection to its end.
    pub async fn serve(self: Arc<Self>, io: impl AsyncRead + AsyncWrite + Unpin) {
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            let api = Arc::clone(&self);
            async move {
                let answer = tokio::time::timeout(ANSWER_TIME, api.answer(request)).await;
                Ok::<_, Infallible>(answer.unwrap_or_else(|_| {
                    api_error(
                        StatusCode::GATEWAY_TIMEOUT,
                        "The agent did not answer in time.",
                        None,
                    )
                }))
            }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .serve_connection(TokioIo::new(io), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "HTTP connection ended");
        }
    }

    async fn answer<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default();
        if self.scope == Scope::Metrics {
            return text(StatusCode::OK, "text/plain", self.metrics.to_text());
        }
        if let Some(rest) = path.strip_prefix("/debug/") {
            return match head.method {
                Method::GET => self.debug(rest, query).await,
                _ => reply::method_not_allowed("GET"),
            };
        }
        if self.scope == Scope::Debug {
            return reply::plain(StatusCode::NOT_FOUND, "404 not found");
        }
        if let Some(rest) = path.strip_prefix("/api/v0/containers") {
            return containers::answer(rest, self.manifest.borrow().as_deref());
        }
        let allowed = match path.as_str() {
            "/"
            | "/api/v0/listening-ports"
            | "/api/v0/netcheck"
            | "/api/v0/context-config"
            | "/api/v0/read-file"
            | "/api/v0/read-file-lines"
            | "/api/v0/resolve-path"
            | "/api/v0/git/watch"
            | "/api/v0/desktop/vnc" => Method::GET,
            "/api/v0/list-directory"
            | "/api/v0/bundle-files"
            | "/api/v0/write-file"
            | "/api/v0/edit-files"
            | "/api/v0/desktop/action"
            | "/api/v0/mcp/call-tool"
            | "/api/v0/context/resync" => Method::POST,
            _ if path.starts_with("/api/v0/processes/")
                || path.starts_with("/api/v0/context/")
                || path.starts_with("/api/v0/desktop/") =>
            {
                head.method.clone()
            }
            _ => return not_found(),
        };
        if head.method != allowed {
            return reply::method_not_allowed(allowed.as_str());
        }
        match path.as_str() {
            "/" => json(
                StatusCode::OK,
                &serde_json::json!({"message": "Hello from the agent!"}),
            ),
            "/api/v0/listening-ports" => self.listening_ports().await,
            "/api/v0/netcheck" => netcheck::answer(self.node.as_ref()).await,
            "/api/v0/context-config" => json(StatusCode::OK, &serde_json::json!({"parts": []})),
            "/api/v0/list-directory" => match read_body(body, BODY).await {
                Ok(body) => directory::answer(query, &body).await,
                Err(reply) => *reply,
            },
            "/api/v0/read-file" => {
                const KNOWN: &[&str] = &["path", "offset", "limit"];
                on_files(query, KNOWN, files::read).await
            }
            "/api/v0/read-file-lines" => {
                on_files(query, files::LINE_PARAMETERS, files::read_lines).await
            }
            "/api/v0/resolve-path" => on_files(query, &["path"], files::resolve).await,
            "/api/v0/write-file" => match read_body(body, FILE).await {
                Ok(body) => on_files(query, &["path"], move |q| files::write(q, &body)).await,
                Err(reply) => *reply,
            },
            _ => api_error(
                StatusCode::NOT_IMPLEMENTED,
                "This agent does not offer this function.",
                None,
            ),
        }
    }

    async fn listening_ports(&self) -> Reply {
        let fresh = {
            let scan = self
                .scan
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            scan.as_ref()
                .filter(|(at, _)| at.elapsed() < SCAN_AGE)
                .map(|(_, ports)| ports.clone())
        };
        let ports = match fresh {
            Some(ports) => ports,
            None => {
                let ignored = self.ignored_ports.clone();
                let scanned = tokio::task::spawn_blocking(move || ports::scan(&ignored)).await;
                match scanned.map_err(std::io::Error::other).flatten() {
                    Ok(ports) => {
                        let mut scan = self
                            .scan
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner);
                        *scan = Some((Instant::now(), ports.clone()));
                        ports
                    }
                    Err(error) => {
                        return api_error(
                            StatusCode::INTERNAL_SERVER_ERROR,
                            "Could not scan for listening ports.",
                            Some(&error.to_string()),
                        );
                    }
                }
            }
        };
        json(StatusCode::OK, &serde_json::json!({ "ports": ports }))
    }

    async fn debug(&self, path: &str, query: &str) -> Reply {
        match path {
            "logs" => debug::logs(self.log_file.clone(), query).await,
            "manifest" => debug::manifest(self.manifest.borrow().as_deref()),
            "magicsock" => debug::network(self.node.as_ref()).await,
            "prometheus" => text(StatusCode::OK, "text/plain", self.metrics.to_text()),
            _ => match path.strip_prefix("magicsock/debug-logging/") {
                Some(state) => debug::logging(state),
                None => not_found(),
            },
        }
    }
}

/// Does something to files, on a thread for what blocks.
async fn on_files(
    query: &str,
    known: &[&str],
    work: impl FnOnce(&files::Query) -> Result<Reply, files::Refusal> + Send + 'static,
) -> Reply {
    let query = match files::Query::parse(query, known) {
        Ok(query) => query,
        Err(refusal) => return refusal.into(),
    };
    match tokio::task::spawn_blocking(move || work(&query)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(refusal)) => refusal.into(),
        Err(error) => api_error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The agent failed.",
            Some(&error.to_string()),
        ),
    }
}

async fn read_body<B>(body: B, most: usize) -> Result<Bytes, Box<Reply>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(Box::new(api_error(
            StatusCode::BAD_REQUEST,
            "The request body could not be read.",
            Some(&error.to_string()),
        ))),
    }
}

#[cfg(test)]
mod tests;
