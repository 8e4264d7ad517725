//! Listeners the client asks for in the workspace.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adit_ssh::{Global, GlobalAnswer, GlobalReply, OpenOut};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connection::Connection;

/// Pause after a failed accept, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest time to resolve the name of an address to listen on.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(2);

/// The listeners of one connection; dropping closes them.
pub(crate) struct Listeners {
    conn: Arc<Connection>,
    tcp: HashMap<(String, u16), DropGuard>,
    unix: HashMap<Vec<u8>, DropGuard>,
}

impl Listeners {
    pub(crate) fn new(conn: Arc<Connection>) -> Self {
        Self {
            conn,
            tcp: HashMap::new(),
            unix: HashMap::new(),
        }
    }

    /// Handles requests in their order until there are no more, then closes
    /// all listeners.
    pub(crate) async fn serve(mut self, mut requests: mpsc::Receiver<(GlobalReply, Global)>) {
        while let Some((reply, request)) = requests.recv().await {
            reply.answer(self.handle(request).await);
        }
    }

    async fn handle(&mut self, request: Global) -> GlobalAnswer {
        let result = match &request {
            Global::TcpipForward { address, port } => self
                .listen_tcp(address, *port)
                .await
                .map(GlobalAnswer::Port),
            Global::StreamlocalForward { path } => {
                self.listen_unix(path).map(|()| GlobalAnswer::Success)
            }
            Global::CancelTcpipForward { address, port } => {
                self.cancel_tcp(address, *port);
                Ok(GlobalAnswer::Success)
            }
            Global::CancelStreamlocalForward { path } => {
                self.unix.remove(path);
                Ok(GlobalAnswer::Success)
            }
        };
        result.unwrap_or_else(|error| {
            tracing::debug!(%error, ?request, "remote forward refused");
            GlobalAnswer::Failure
        })
    }

    /// Listens on `address:port` and returns the port. The empty address and
    /// `*` mean all addresses of both families.
    async fn listen_tcp(&mut self, address: &str, port: u32) -> io::Result<u16> {
        self.check_allowed()?;
        let port = u16::try_from(port).map_err(|_| io::ErrorKind::InvalidInput)?;
        let listener = bind(address, port).await?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let bound = listener.local_addr()?.port();
        let guard =
            self.start(|conn, token| serve_tcp(conn, token, listener, address.to_owned(), bound));
        self.tcp.insert((address.to_owned(), bound), guard);
        Ok(bound)
    }

    fn cancel_tcp(&mut self, address: &str, port: u32) {
        if let Ok(port) = u16::try_from(port) {
            self.tcp.remove(&(address.to_owned(), port));
        }
    }

    /// Listens on a unix socket. A second request for the same path keeps the
    /// first listener.
    fn listen_unix(&mut self, path: &[u8]) -> io::Result<()> {
        self.check_allowed()?;
        if self.unix.contains_key(path) {
            return Ok(());
        }
        let file = PathBuf::from(OsString::from_vec(path.to_owned()));
        parents_and_unlink(&file)?;
        let listener = UnixListener::bind(&file)?;
        let owned = SocketFile::new(file);
        let guard =
            self.start(|conn, token| serve_unix(conn, token, listener, owned, path.to_owned()));
        if let Entry::Vacant(slot) = self.unix.entry(path.to_owned()) {
            slot.insert(guard);
        }
        Ok(())
    }

    fn check_allowed(&self) -> io::Result<()> {
        if self.conn.server.config.block_reverse_port_forwarding {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "port forwarding is disabled",
            ));
        }
        Ok(())
    }

    fn start<F>(&self, serve: impl FnOnce(Arc<Connection>, CancellationToken) -> F) -> DropGuard
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.conn.token.child_token();
        let task = serve(Arc::clone(&self.conn), token.clone());
        self.conn.tasks.spawn(task);
        token.drop_guard()
    }
}

async fn bind(address: &str, port: u16) -> io::Result<StdListener> {
    if address.is_empty() || address == "*" {
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        return StdListener::bind(both)
            .or_else(|_| StdListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    }
    let resolve = tokio::net::lookup_host((address, port));
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut addresses: Vec<SocketAddr> = match tokio::time::timeout(RESOLVE_DEADLINE, resolve).await
    {
        Ok(found) => found?.collect(),
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    // "localhost" is for programs that mostly try IPv4.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    for address in addresses {
        match StdListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn serve_tcp(
    conn: Arc<Connection>,
    token: CancellationToken,
    listener: TcpListener,
    address: String,
    port: u16,
) {
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, origin) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accept for a remote forward");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let task_conn = Arc::clone(&conn);
        let address = address.clone();
        conn.tasks.spawn(async move {
            let open = OpenOut::ForwardedTcpip {
                address,
                port,
                originator: origin.ip().to_canonical().to_string(),
                originator_port: origin.port(),
            };
            match task_conn.open(&open).await {
                Ok(io) => io.relay(stream).await,
                Err(error) => tracing::debug!(%error, "client refused a forwarded connection"),
            }
        });
    }
}

async fn serve_unix(
    conn: Arc<Connection>,
    token: CancellationToken,
    listener: UnixListener,
    _file: SocketFile,
    path: Vec<u8>,
) {
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accept for a remote socket forward");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let task_conn = Arc::clone(&conn);
        let path = path.clone();
        conn.tasks.spawn(async move {
            match task_conn
                .open(&OpenOut::ForwardedStreamlocal { path })
                .await
            {
                Ok(io) => io.relay(stream).await,
                Err(error) => tracing::debug!(%error, "client refused a forwarded connection"),
            }
        });
    }
}

/// Removes the socket file when dropped, if it is still the one we made.
struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: PathBuf) -> Self {
        Self {
            identity: identity(&path),
            path,
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the directories above a socket and removes what is in its place,
/// unless that is a directory.
fn parents_and_unlink(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
    {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(meta) => {
            if !meta.file_type().is_socket() {
                tracing::debug!(path = %path.display(), "replacing a file by a socket");
            }
            fs::remove_file(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
