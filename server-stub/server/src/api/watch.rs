//! Streams of state: workspaces and agent metadata, as server sent events and
//! as WebSockets.

use std::convert::Infallible;
use std::time::Duration;

use adit_rest::sse::{Kind, encode};
use adit_rest::{Response as Message, Time};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use futures_util::stream;
use http::{HeaderName, HeaderValue, header};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Actor;
use crate::error::ApiResult;
use crate::extract::Id;
use crate::pubsub::{Received, WorkspaceEventKind};
use crate::upgrade::{Gone, OneWay, websocket};
use crate::{access, convert};

/// Keep-alive of event streams.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Metadata is sent at most, and at least, this often.
const METADATA_MIN: Duration = Duration::from_secs(1);
const METADATA_MAX: Duration = Duration::from_secs(5);
/// Events a slow reader may leave unread.
const BUFFER: usize = 4;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaces/{workspace}/watch", get(watch))
        .route("/workspaces/{workspace}/watch-ws", get(watch_ws))
        .route("/workspaceagents/{id}/watch-metadata", get(metadata))
        .route("/workspaceagents/{id}/watch-metadata-ws", get(metadata_ws))
        .route("/notifications/inbox/watch", get(inbox_ws))
}

/// Where events go.
trait Sink {
    async fn send(&mut self, kind: Kind, data: String) -> Result<(), Gone>;
    /// Completes when the reader is gone. Cancel safe.
    async fn gone(&mut self);
    /// Whether the sink itself keeps the connection alive.
    const PINGS: bool;
}

struct EventStream(mpsc::Sender<Bytes>);

impl Sink for EventStream {
    const PINGS: bool = true;

    async fn send(&mut self, kind: Kind, data: String) -> Result<(), Gone> {
        let bytes = Bytes::from(encode(kind, &data));
        self.0.send(bytes).await.map_err(|_| Gone)
    }

    async fn gone(&mut self) {
        self.0.closed().await;
    }
}

impl Sink for OneWay {
    const PINGS: bool = false;

    async fn send(&mut self, kind: Kind, data: String) -> Result<(), Gone> {
        let text = match kind {
            Kind::Ping => "{\"type\":\"ping\",\"data\":null}\n".to_owned(),
            Kind::Data | Kind::Error => {
                format!("{{\"type\":\"{}\",\"data\":{data}}}\n", kind.as_str())
            }
        };
        Self::send(self, text).await
    }

    async fn gone(&mut self) {
        Self::gone(self).await;
    }
}

/// The reply that carries an event stream; the stream ends with the server.
pub(crate) fn event_stream<F>(app: &App, serve: impl FnOnce(mpsc::Sender<Bytes>) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(BUFFER);
    let shutdown = app.shutdown.clone();
    let work = serve(sender);
    app.tasks.spawn(async move {
        let _ = shutdown.run_until_cancelled(work).await;
    });
    let events = stream::unfold(receiver, |mut receiver| async move {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(bytes), receiver))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

async fn watch(State(app): State<App>, actor: Actor, Id(id): Id) -> ApiResult<Response> {
    access::workspace(&app, &actor, id).await?;
    let shared = app.clone();
    Ok(event_stream(&app, move |sender| async move {
        let _ = watch_workspace(&shared, &actor, id, EventStream(sender)).await;
    }))
}

async fn watch_ws(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    mut request: Request,
) -> ApiResult<Response> {
    access::workspace(&app, &actor, id).await?;
    let shared = app.clone();
    Ok(websocket(&app, &mut request, move |socket| async move {
        let _ = watch_workspace(&shared, &actor, id, OneWay::new(socket)).await;
    }))
}

/// A ping, the workspace, then the workspace again whenever it changes. When
/// the owner changes (a prebuilt workspace is claimed) the stream follows.
async fn watch_workspace<S: Sink>(
    app: &App,
    actor: &Actor,
    id: Uuid,
    mut sink: S,
) -> Result<(), Gone> {
    sink.send(Kind::Ping, String::new()).await?;
    let mut ping = tokio::time::interval(KEEP_ALIVE);
    ping.reset();
    loop {
        let Ok(row) = app.store.workspace(id).await else {
            return Ok(());
        };
        let mut news = app.pubsub.workspaces.subscribe(row.owner_id);
        send_workspace(app, actor, id, &mut sink).await?;
        loop {
            tokio::select! {
                () = sink.gone() => return Ok(()),
                _ = ping.tick(), if S::PINGS => sink.send(Kind::Ping, String::new()).await?,
                event = news.recv() => match event {
                    Received::Message(event) if event.workspace_id != id => {}
                    Received::Message(event) => match event.kind {
                        // Nothing a client waits for.
                        WorkspaceEventKind::AgentLogs | WorkspaceEventKind::Stats => {}
                        WorkspaceEventKind::Owner => break,
                        _ => {
                            news.drain();
                            send_workspace(app, actor, id, &mut sink).await?;
                        }
                    },
                    Received::Lagged => {
                        news.drain();
                        send_workspace(app, actor, id, &mut sink).await?;
                    }
                },
            }
        }
    }
}

async fn send_workspace<S: Sink>(
    app: &App,
    actor: &Actor,
    id: Uuid,
    sink: &mut S,
) -> Result<(), Gone> {
    let read = async {
        let row = app.store.workspace(id).await?;
        convert::workspace(app, actor.user.id, &row).await
    };
    match read.await {
        Ok(workspace) => {
            let data = serde_json::to_string(&workspace).unwrap_or_default();
            sink.send(Kind::Data, data).await
        }
        Err(error) => {
            let body = Message::new("Internal error fetching workspace.")
                .detail(error.body().message.clone());
            let data = serde_json::to_string(&body).unwrap_or_default();
            sink.send(Kind::Error, data).await
        }
    }
}

async fn metadata(State(app): State<App>, actor: Actor, Id(id): Id) -> ApiResult<Response> {
    access::agent(&app, &actor, id).await?;
    let shared = app.clone();
    Ok(event_stream(&app, move |sender| async move {
        let _ = watch_metadata(&shared, id, EventStream(sender)).await;
    }))
}

async fn metadata_ws(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    mut request: Request,
) -> ApiResult<Response> {
    access::agent(&app, &actor, id).await?;
    let shared = app.clone();
    Ok(websocket(&app, &mut request, move |socket| async move {
        let _ = watch_metadata(&shared, id, OneWay::new(socket)).await;
    }))
}

async fn watch_metadata<S: Sink>(app: &App, agent: Uuid, mut sink: S) -> Result<(), Gone> {
    let mut news = app.pubsub.agent_metadata.subscribe(agent);
    let mut ping = tokio::time::interval(KEEP_ALIVE);
    ping.reset();
    loop {
        news.drain();
        let Ok(rows) = app.store.metadata(agent).await else {
            return Ok(());
        };
        let now = Time::now();
        let all: Vec<_> = rows
            .into_iter()
            .map(|row| convert::metadata(row, now))
            .collect();
        let data = serde_json::to_string(&all).unwrap_or_default();
        sink.send(Kind::Data, data).await?;
        let sent = tokio::time::Instant::now();
        let mut fresh = false;
        loop {
            let next = sent + if fresh { METADATA_MIN } else { METADATA_MAX };
            tokio::select! {
                () = sink.gone() => return Ok(()),
                _ = ping.tick(), if S::PINGS => sink.send(Kind::Ping, String::new()).await?,
                () = tokio::time::sleep_until(next) => break,
                _ = news.recv(), if !fresh => fresh = true,
            }
        }
    }
}

/// Notifications; there are none to send.
async fn inbox_ws(State(app): State<App>, _: Actor, mut request: Request) -> ApiResult<Response> {
    Ok(websocket(&app, &mut request, |socket| async move {
        OneWay::new(socket).gone().await;
    }))
}
