//! Requests to the HTTP API of an agent, on port 4 of its tunnel address.

use std::net::SocketAddrV6;
use std::pin::pin;
use std::time::Duration;

use adit_keys::addr;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use uuid::Uuid;

use super::{Link, Unreachable, dial};
use crate::app::App;

/// Where agents serve it.
const PORT: u16 = 4;
/// How long one exchange may take once the connection is up.
const LIMIT: Duration = Duration::from_secs(30);
/// The most an agent may answer, in bytes.
const MAX_ANSWER: usize = 4 << 20;
/// Headers of an upgrade that the ends have to agree on.
const UPGRADE: [header::HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

/// What an agent answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) content_type: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// There is no connection.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The exchange failed.
    #[error("ask the agent: {0}")]
    Http(#[from] hyper::Error),
    /// The answer ended early or is too large.
    #[error("read the agent's answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Neither this nor that.
    #[error("the agent did not answer within {} s", LIMIT.as_secs())]
    Silent,
}

/// Sends an agent a request without a body.
pub(crate) async fn ask(
    app: &App,
    agent: Uuid,
    method: Method,
    path: &str,
) -> Result<Answer, NoAnswer> {
    let link = dial(app, agent, PORT).await?;
    let request = request(agent, method, path, &HeaderMap::new());
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(link.stream)).await?;
        let mut work = pin!(async {
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            Ok(Answer {
                status: head.status,
                body: body.map_err(NoAnswer::Body)?.to_bytes(),
                content_type: text(&head.headers, &header::CONTENT_TYPE),
            })
        });
        tokio::select! {
            answer = &mut work => answer,
            // All has arrived, or the reason is in the answer.
            _ = connection => work.await,
        }
    };
    timeout(LIMIT, exchange)
        .await
        .unwrap_or(Err(NoAnswer::Silent))
}

/// Hands an upgrade request on, and then moves bytes between the two ends until
/// either closes. The agent's answer to a request it does not take as an
/// upgrade comes back as an [`Answer`].
pub(crate) async fn relay(
    app: &App,
    request: &mut Request,
    agent: Uuid,
    path: &str,
) -> Result<Result<Response, Answer>, NoAnswer> {
    let Link { stream, tunnel } = dial(app, agent, PORT).await?;
    let forwarded = self::request(agent, request.method().clone(), path, request.headers());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let shutdown = app.shutdown.clone();
    app.tasks.spawn(async move {
        // Ends when the exchange does; an upgrade takes the stream out of it.
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = connection.with_upgrades() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection to an agent ended");
                }
            }
        }
    });
    let answered = timeout(LIMIT, sender.send_request(forwarded)).await;
    let mut answer = answered.map_err(|_| NoAnswer::Silent)??;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade)) = (answer.status(), upgrade) else {
        let (head, body) = answer.into_parts();
        let body = timeout(LIMIT, Limited::new(body, MAX_ANSWER).collect()).await;
        let body = body.map_err(|_| NoAnswer::Silent)?;
        return Ok(Err(Answer {
            status: head.status,
            body: body.map_err(NoAnswer::Body)?.to_bytes(),
            content_type: text(&head.headers, &header::CONTENT_TYPE),
        }));
    };
    let far = hyper::upgrade::on(&mut answer);
    let shutdown = app.shutdown.clone();
    app.tasks.spawn(async move {
        let both = async {
            let (near, far) = tokio::try_join!(upgrade, far)?;
            let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            Ok::<_, hyper::Error>(())
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = both => {}
        }
        drop(tunnel);
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy(answer.headers(), response.headers_mut());
    Ok(Ok(response))
}

fn request(agent: Uuid, method: Method, path: &str, from: &HeaderMap) -> http::Request<Body> {
    let host = SocketAddrV6::new(addr::tailnet_ip(agent), PORT, 0, 0).to_string();
    let mut request = http::Request::new(Body::empty());
    *request.method_mut() = method;
    // Paths are made of routes and ids; one that is none asks for the root.
    *request.uri_mut() = path.parse().unwrap_or_default();
    if let Ok(host) = host.parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    copy(from, request.headers_mut());
    request
}

fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    for name in UPGRADE {
        if let Some(value) = from.get(&name) {
            to.insert(name, value.clone());
        }
    }
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}
