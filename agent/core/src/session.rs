//! The control session: one connection to the control plane after the other.
//!
//! On each connection several routines run side by side. The first that fails
//! ends the connection; everything that must not be lost waits in queues of
//! the [`Instance`] and goes out on the next one. Routines come in two kinds:
//! those that stop when shutdown begins, and those that remain until it is
//! over, so that stop scripts can still be heard of.

mod apps;
mod context;
mod manifest;
mod metadata;
mod monitor;
mod queues;
mod stats;

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_http::ErrorKind;
use adit_rpc::{AgentClient, TailnetClient, Version};
use adit_yamux::Connection;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::diagnose::{SessionError, Told};
use crate::instance::Instance;

/// Longest wait for the answer of one call.
const CALL: Duration = Duration::from_secs(30);

type Ended = Result<(), SessionError>;

/// One connection.
pub(crate) struct Session {
    agent: Arc<Instance>,
    rpc: AgentClient,
    tailnet: TailnetClient,
    connection: Connection,
}

/// Keeps a session up until the future is dropped.
pub(crate) async fn run(agent: &Arc<Instance>) {
    let mut backoff = Backoff::new(agent.config.retry);
    let mut told = Told::default();
    let mut version = Version::CURRENT;
    let mut wait = backoff.next_wait(Instant::now(), 0.0, false);
    let mut hurried = false;
    loop {
        // A shutdown has something to report, so it does not sit out a wait
        // that began before it.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = agent.graceful.cancelled(), if !hurried => {
                hurried = true;
                backoff.reset();
                wait = backoff.next_wait(Instant::now(), 0.0, false);
                continue;
            }
        }
        let error = match Session::open(agent, &mut version).await {
            Err(error) => error,
            Ok(session) => {
                tracing::info!(%version, "connected to the control plane");
                told.reset();
                backoff.handle_connected(Instant::now());
                let connection = session.connection.clone();
                agent.control.send_replace(Some(session.rpc.clone()));
                let ended = session.run().await;
                agent.control.send_replace(None);
                connection.close().await;
                backoff.handle_disconnected(Instant::now());
                match ended {
                    Err(error) => error,
                    Ok(()) => SessionError::Closed,
                }
            }
        };
        let in_use = agent.is_in_use().await;
        wait = backoff.next_wait(Instant::now(), rand::random(), in_use);
        told.tell(&error, wait);
    }
}

impl Session {
    async fn open(agent: &Arc<Instance>, version: &mut Version) -> Result<Self, SessionError> {
        let token = agent.config.auth.refreshed().await?;
        agent.http.set_session_token(&token)?;
        let path = format!("/api/v2/workspaceagents/me/rpc?role=agent&version={version}");
        let socket = match agent.http.websocket(&path, Vec::new(), None).await {
            Ok(socket) => socket,
            Err(error) => {
                // An older control plane says what it speaks.
                if let ErrorKind::UnsupportedVersion { detail } = error.kind()
                    && let Some(theirs) = Version::from_refusal(detail)
                    && theirs.major == version.major
                    && theirs < *version
                {
                    tracing::info!(%theirs, "the control plane is older; using its version");
                    *version = theirs;
                }
                return Err(error.into());
            }
        };
        let stream = adit_ws::ByteStream::new(socket);
        let (connection, _) = Connection::client(stream, adit_yamux::Config::default());
        Ok(Self {
            agent: Arc::clone(agent),
            rpc: AgentClient::new(connection.clone()).with_timeout(CALL),
            tailnet: TailnetClient::new(connection.clone()).with_timeout(CALL),
            connection,
        })
    }

    /// Runs all routines until one fails.
    async fn run(self) -> Ended {
        let graceful = self.agent.graceful.clone();
        tokio::try_join!(
            until(&graceful, self.banners()),
            self.logs(),
            self.lifecycle(),
            until(&graceful, self.metadata()),
            until(&graceful, self.monitor()),
            self.connections(),
            self.completions(),
            until(&graceful, self.context()),
            self.workspace(),
            self.closed(),
        )
        .map(|_| ())
    }

    async fn closed(&self) -> Ended {
        self.connection.closed().await;
        Err(SessionError::Closed)
    }
}

/// Ends `routine` quietly when `stop` is cancelled.
async fn until(stop: &CancellationToken, routine: impl Future<Output = Ended>) -> Ended {
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = routine => ended,
    }
}

/// Gives a failed call its name.
fn call<T>(name: &'static str, result: Result<T, adit_rpc::Error>) -> Result<T, SessionError> {
    result.map_err(|source| SessionError::Call { call: name, source })
}
