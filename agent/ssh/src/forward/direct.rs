//! Connections the client opens into the workspace.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adit_agent_exec::{ConnectionKind, ReportGuard};
use adit_ssh::{Opening, Refusal};
use tokio::net::{TcpStream, UnixStream};

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
        path: PathBuf,
    },
}

impl Direct {
    pub(crate) fn tcp(host: String, port: u16, originator: String) -> Self {
        Self::Tcp {
            host,
            port,
            originator,
        }
    }

    pub(crate) fn unix(path: Vec<u8>) -> Self {
        Self::Unix {
            path: OsString::from_vec(path).into(),
        }
    }

    /// Connects, then accepts the channel and copies; or rejects it.
    pub(crate) async fn run(self, conn: Arc<Connection>, opening: Opening) {
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
                        let Some(channel) = opening.accept() else {
                            return;
                        };
                        let io = ChannelIo::new(channel);
                        let watched = watch_jetbrains(&conn, *port, originator);
                        tokio::select! {
                            () = io.relay(stream) => {}
                            never = watched => match never {},
                        }
                    }
                    Err(error) => refuse(opening, &error),
                },
                Self::Unix { path } => match dial(UnixStream::connect(path)).await {
                    Ok(stream) => {
                        if let Some(channel) = opening.accept() {
                            ChannelIo::new(channel).relay(stream).await;
                        }
                    }
                    Err(error) => refuse(opening, &error),
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

fn refuse(opening: Opening, error: &io::Error) {
    tracing::debug!(%error, "forwarded connection refused");
    opening.refuse(Refusal::ConnectFailed, &error.to_string());
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
