//! Connections the client opens into the workspace.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit_agent_exec::{ConnectionKind, ReportGuard};
use russh::ChannelOpenFailure;
use russh::server::ChannelOpenHandle;
use tokio::net::{TcpStream, UnixStream};

use super::relay;
use crate::channel::ChannelIo;
use crate::connection::Connection;
use crate::jetbrains;

/// Longest attempt to connect; the usual limit of TCP stacks is two minutes.
const DIAL_DEADLINE: Duration = Duration::from_secs(120);

/// Where a channel leads.
pub(crate) enum Direct {
    Tcp {
        host: String,
        port: u16,
        originator: String,
    },
    Unix {
        path: String,
    },
}

impl Direct {
    pub(crate) fn tcp(host: &str, port: u16, originator: &str) -> Self {
        Self::Tcp {
            host: host.to_owned(),
            port,
            originator: originator.to_owned(),
        }
    }

    pub(crate) fn unix(path: &str) -> Self {
        Self::Unix {
            path: path.to_owned(),
        }
    }

    /// Connects, then accepts the channel and copies; or rejects it.
    pub(crate) async fn run(self, conn: Arc<Connection>, io: ChannelIo, reply: ChannelOpenHandle) {
        let work = async {
            match &self {
                Self::Tcp {
                    host,
                    port,
                    originator,
                } => match dial(TcpStream::connect((host.as_str(), *port))).await {
                    Ok(stream) => {
                        // Small packets of interactive protocols must not wait.
                        let _ = stream.set_nodelay(true);
                        reply.accept().await;
                        let watched = watch_jetbrains(&conn, *port, originator);
                        tokio::select! {
                            () = relay(&io, stream) => {}
                            never = watched => match never {},
                        }
                    }
                    Err(error) => refuse(reply, &error).await,
                },
                Self::Unix { path } => match dial(UnixStream::connect(path)).await {
                    Ok(stream) => {
                        reply.accept().await;
                        relay(&io, stream).await;
                    }
                    Err(error) => refuse(reply, &error).await,
                },
            }
        };
        tokio::select! {
            () = work => {}
            () = conn.token.cancelled() => {}
        }
    }
}

async fn dial<S>(connect: impl Future<Output = io::Result<S>>) -> io::Result<S> {
    match tokio::time::timeout(DIAL_DEADLINE, connect).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn refuse(reply: ChannelOpenHandle, error: &io::Error) {
    tracing::debug!(%error, "forwarded connection refused");
    let failure = ChannelOpenFailure::Other {
        code: ChannelOpenFailure::ConnectFailed.code(),
        reason: error.to_string(),
    };
    reply.reject(failure).await;
}

/// If a JetBrains back end listens on `port`, counts and reports a JetBrains
/// connection until dropped. Never returns.
async fn watch_jetbrains(conn: &Arc<Connection>, port: u16, originator: &str) -> Infallible {
    let found = tokio::task::spawn_blocking(move || jetbrains::listens_on(port)).await;
    if !found.unwrap_or(false) {
        return std::future::pending().await;
    }
    let _count = conn.server.count(ConnectionKind::JetBrains);
    let _report = ReportGuard::begin(
        Arc::clone(&conn.server.config.reporter),
        ConnectionKind::JetBrains,
        originator,
        0,
        "normal close",
    );
    std::future::pending().await
}
