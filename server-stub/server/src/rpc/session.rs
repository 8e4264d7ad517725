//! An agent's control session, from the upgrade to its end.

use std::{sync::Arc, time::Duration};

use adit_rest::{Time, Transition};
use adit_store::model::AgentContext;
use adit_ws::{ByteStream, WebSocketStream};
use adit_yamux::Connection;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use uuid::Uuid;

use super::agent::AgentApi;
use crate::{
    app::App,
    coord::{Peer, TailnetApi},
    pubsub::{Received, WorkspaceEventKind},
};

/// How often an agent is asked for a sign of life, and that is written down.
const PERIOD: Duration = Duration::from_secs(15);

/// An agent silent for so long is gone.
const INACTIVE: Duration = Duration::from_secs(30);

/// Why a session ends whose agent belongs to an older build.
const OUTDATED: &str = "build is outdated";

/// How long the end of a session may take to write down.
const FAREWELL: Duration = Duration::from_secs(30);

/// Serves one session of an agent until either side ends it, the agent falls
/// silent, or its build is replaced.
///
/// Only sessions with `monitored` count as the agent being connected: tools in
/// the workspace share its token.
///
/// What only the start needs is not part of the future, which lasts as long as
/// the session.
pub(crate) fn serve<IO>(
    app: App,
    context: &AgentContext,
    version: String,
    monitored: bool,
    socket: WebSocketStream<IO>,
) -> impl Future<Output = ()> + Send + use<IO>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (agent, workspace) = (context.agent.id, context.workspace.id);
    let (connection, incoming) =
        Connection::server(ByteStream::new(socket), adit_yamux::Config::default());
    let service = Arc::new(AgentApi::new(app.clone(), agent, workspace, version));
    let tailnet = Arc::new(TailnetApi::new(app.clone(), Peer::agent(context)));
    async move {
        let number = monitored.then(|| app.coord.session_begins(agent));
        tracing::info!(%agent, monitored, "agent session begins");
        let reason = tokio::select! {
            // Ends with the session.
            () = adit_rpc::serve(incoming, service, tailnet) => connection.closed().await.to_string(),
            reason = watch(&app, agent, workspace, &connection, monitored) => reason.to_owned(),
            () = app.shutdown.cancelled() => "the server is shutting down".to_owned(),
        };
        connection.close().await;
        if number.is_some_and(|number| app.coord.session_ends(agent, number)) {
            let farewell = Box::pin(farewell(&app, agent, workspace));
            if timeout(FAREWELL, farewell).await.is_err() {
                tracing::warn!(%agent, "gave up noting the end of a session");
            }
        }
        tracing::info!(%agent, reason, "agent session ended");
    }
}

/// Notes the end of the last session of an agent.
async fn farewell(app: &App, agent: Uuid, workspace: Uuid) {
    if let Err(error) = app.store.agent_disconnected(agent, Time::now()).await {
        tracing::warn!(%agent, error = &error as &dyn std::error::Error, "could not note the end of a session");
    }
    app.workspace_id_changed(workspace, WorkspaceEventKind::Agent)
        .await;
}

/// Watches over a session; returns why it has to end.
///
/// It waits nearly all the time. What it then does has an allocation of its
/// own for as long as it takes, as the database's futures are large.
async fn watch(
    app: &App,
    agent: Uuid,
    workspace: Uuid,
    connection: &Connection,
    monitored: bool,
) -> &'static str {
    let mut outdated = app.pubsub.outdated.subscribe(workspace);
    if !monitored {
        loop {
            let _: Received<()> = outdated.recv().await;
            if Box::pin(is_replaced(app, agent, workspace)).await {
                return OUTDATED;
            }
        }
    }
    Box::pin(async {
        if let Err(error) = app.store.agent_connected(agent, Time::now()).await {
            tracing::warn!(%agent, error = &error as &dyn std::error::Error, "could not note a session");
        }
        app.workspace_id_changed(workspace, WorkspaceEventKind::Agent)
            .await;
    })
    .await;
    let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_pong = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if connection.ping().await.is_ok() {
                    last_pong = Instant::now();
                }
                if last_pong.elapsed() > INACTIVE {
                    return "ping timeout";
                }
                let noted = Box::pin(async {
                    if let Err(error) = app.store.agent_seen(agent, Time::now()).await {
                        tracing::warn!(%agent, error = &error as &dyn std::error::Error, "could not note a sign of life");
                    }
                    is_current(app, agent, workspace).await
                });
                if !noted.await {
                    return OUTDATED;
                }
            }
            _ = outdated.recv() => {
                if Box::pin(is_replaced(app, agent, workspace)).await {
                    return OUTDATED;
                }
            }
        }
    }
}

/// Whether a newer build replaced the agent's. While the workspace stops, the
/// agent still has to report.
async fn is_replaced(app: &App, agent: Uuid, workspace: Uuid) -> bool {
    !is_stopping(app, workspace).await && !is_current(app, agent, workspace).await
}

/// Whether the newest build of a workspace is a stop that has not ended.
async fn is_stopping(app: &App, workspace: Uuid) -> bool {
    let Ok(build) = app.store.latest_build(workspace).await else {
        return false;
    };
    let job = app.store.job(build.job_id).await;
    build.transition != Transition::Start && job.is_ok_and(|job| !job.is_done())
}

/// Whether the agent belongs to the newest build of its workspace.
async fn is_current(app: &App, agent: Uuid, workspace: Uuid) -> bool {
    let newest = app.store.latest_build(workspace).await;
    let own = app.store.agent_context(agent).await;
    match (newest, own) {
        (Ok(newest), Ok(own)) => newest.id == own.build.id,
        (Err(adit_store::Error::NotFound), _) | (_, Err(adit_store::Error::NotFound)) => false,
        // A failing database is no reason to send agents away.
        _ => true,
    }
}
