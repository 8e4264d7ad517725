//! The client's SSH agent inside a session: a unix socket whose connections
//! become `auth-agent@openssh.com` channels.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use adit_ssh::OpenOut;
use tokio::net::UnixListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connection::Connection;

/// Distinguishes the sockets of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The socket; closed and removed when dropped.
pub(crate) struct AgentSocket {
    path: PathBuf,
    _stop: DropGuard,
}

impl AgentSocket {
    /// Makes the socket in a private directory and serves it.
    pub(crate) fn open(conn: &Arc<Connection>) -> io::Result<Self> {
        let dir = private_dir()?;
        let path = dir.join("listener.sock");
        let listener = UnixListener::bind(&path)?;
        let token = conn.token.child_token();
        let stop = token.clone().drop_guard();
        conn.tasks.spawn(serve(Arc::clone(conn), listener, token));
        Ok(Self { path, _stop: stop })
    }

    /// Value of `SSH_AUTH_SOCK`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if let Some(dir) = self.path.parent() {
            let _ = fs::remove_dir(dir);
        }
    }
}

fn private_dir() -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("auth-agent{}-{number}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            // Left behind by a process that had our id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

async fn serve(conn: Arc<Connection>, listener: UnixListener, token: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            return;
        };
        let task_conn = Arc::clone(&conn);
        conn.tasks.spawn(async move {
            match task_conn.open(&OpenOut::Agent).await {
                Ok(io) => io.relay(stream).await,
                Err(error) => tracing::debug!(%error, "client refused an agent connection"),
            }
        });
    }
}
