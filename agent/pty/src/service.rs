//! All terminals and their connections.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_agent_exec::{ConnectionKind, ConnectionReporter, ContextProvider, ReportGuard};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::terminal::{self, Handle, Input};
use crate::wire::{Decoder, Init};

/// Time a client has to send its first message.
const INIT_DEADLINE: Duration = Duration::from_secs(30);
/// Input is read in pieces of this size.
const READ: usize = 8 << 10;

/// The reconnecting terminal service. Clones share everything; terminals end
/// with the last clone.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

struct Shared {
    context: Arc<dyn ContextProvider>,
    reporter: Arc<dyn ConnectionReporter>,
    terminals: Mutex<HashMap<Uuid, Handle>>,
    tasks: Mutex<JoinSet<()>>,
    connections: watch::Sender<u32>,
    total: AtomicU64,
    /// Ends the terminals.
    closing: CancellationToken,
    /// Ends the connections.
    cut: CancellationToken,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client left, broke the protocol, or the terminal ended.
    Graceful,
    Network,
    Shutdown,
}

impl Service {
    /// A service without terminals.
    #[must_use]
    pub fn new(context: Arc<dyn ContextProvider>, reporter: Arc<dyn ConnectionReporter>) -> Self {
        Self {
            shared: Arc::new(Shared {
                context,
                reporter,
                terminals: Mutex::default(),
                tasks: Mutex::default(),
                connections: watch::Sender::default(),
                total: AtomicU64::new(0),
                closing: CancellationToken::new(),
                cut: CancellationToken::new(),
            }),
        }
    }

    /// Serves one connection to its end. `remote` is only reported. Dropping
    /// the future detaches it; the terminal lives on for a while.
    pub async fn serve<IO>(&self, io: IO, remote: Option<SocketAddr>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = &self.shared;
        let _count = Count::new(shared);
        let ip = remote.map(|a| a.ip().to_string()).unwrap_or_default();
        let report = ReportGuard::begin(
            Arc::clone(&shared.reporter),
            ConnectionKind::ReconnectingPty,
            &ip,
            1,
            "network_error",
        );
        let end = tokio::select! {
            biased;
            () = shared.cut.cancelled() => None,
            end = shared.converse(io) => Some(end),
        };
        match end {
            Some(End::Graceful) => report.finish(0, "graceful"),
            Some(End::Network) => report.finish(1, "network_error"),
            Some(End::Shutdown) => report.finish(1, "server_shutdown"),
            None => report.finish(1, "server shut down"),
        }
    }

    /// Connections open at this moment, from accept on.
    #[must_use]
    pub fn connections(&self) -> u32 {
        *self.shared.connections.borrow()
    }

    /// Connections accepted since start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.shared.total.load(Ordering::Relaxed)
    }

    /// Terminals that exist at this moment.
    #[must_use]
    pub fn terminals(&self) -> usize {
        let terminals = self.shared.terminals();
        terminals.values().filter(|t| !t.ended()).count()
    }

    /// Closes every terminal; connections end by themselves, and no new
    /// terminal is started. Returns when all is gone or `deadline` has passed,
    /// and then cuts what is left.
    pub async fn close(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        self.shared.closing.cancel();
        let mut tasks = std::mem::take(&mut *self.shared.tasks());
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout_at(end, ended).await;
        let mut connections = self.shared.connections.subscribe();
        let _ = tokio::time::timeout_at(end, connections.wait_for(|n| *n == 0)).await;
        self.shared.cut.cancel();
        tasks.shutdown().await;
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("connections", &self.connections())
            .field("terminals", &self.terminals())
            .finish_non_exhaustive()
    }
}

impl Shared {
    async fn converse<IO>(&self, io: IO) -> End
    where
        IO: AsyncRead + AsyncWrite,
    {
        let (mut reader, mut writer) = tokio::io::split(io);
        let init = match tokio::time::timeout(INIT_DEADLINE, read_init(&mut reader)).await {
            Ok(Ok(init)) => init,
            Ok(Err(error)) => {
                tracing::debug!(%error, "terminal request");
                return End::Graceful;
            }
            Err(_) => return End::Network,
        };
        let terminal = match self.find_or_start(&init) {
            Ok(terminal) => terminal,
            Err(error) => {
                tracing::warn!(%error, "start terminal");
                return End::Graceful;
            }
        };
        let Some(output) = terminal.attach(init.size).await else {
            return End::Graceful;
        };
        let end = tokio::select! {
            end = copy_output(output, &mut writer) => end,
            end = copy_input(&mut reader, &terminal) => end,
        };
        // The peer may be gone.
        let _ = writer.shutdown().await;
        if self.closing.is_cancelled() {
            return End::Shutdown;
        }
        end
    }

    /// The terminal of that name. Starting one under the lock makes others
    /// that ask for the same name wait for it.
    fn find_or_start(&self, init: &Init) -> Result<Handle, Box<dyn std::error::Error>> {
        let mut terminals = self.terminals();
        terminals.retain(|_, terminal| !terminal.ended());
        if let Some(terminal) = terminals.get(&init.id) {
            return Ok(terminal.clone());
        }
        if self.closing.is_cancelled() {
            return Err("the agent is shutting down".into());
        }
        let context = self.context.context()?;
        let (terminal, run) = terminal::start(&context, init, self.closing.child_token())?;
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(run);
        terminals.insert(init.id, terminal.clone());
        Ok(terminal)
    }

    fn terminals(&self) -> MutexGuard<'_, HashMap<Uuid, Handle>> {
        self.terminals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_init(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Init> {
    let len = reader.read_u16_le().await?;
    let mut json = vec![0; usize::from(len)];
    reader.read_exact(&mut json).await?;
    Init::decode(&json).map_err(io::Error::other)
}

async fn copy_output(
    mut output: mpsc::Receiver<Bytes>,
    writer: &mut (impl AsyncWrite + Unpin),
) -> End {
    while let Some(data) = output.recv().await {
        let written = async {
            writer.write_all(&data).await?;
            writer.flush().await
        };
        if written.await.is_err() {
            return End::Network;
        }
    }
    End::Graceful
}

async fn copy_input(reader: &mut (impl AsyncRead + Unpin), terminal: &Handle) -> End {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return End::Graceful,
            Ok(n) => decoder.push(buffer.get(..n).unwrap_or_default()),
            Err(_) => return End::Network,
        }
        loop {
            let message = match decoder.next() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "terminal message");
                    return End::Graceful;
                }
            };
            let size = message.size();
            if let Some(data) = message.data
                && !data.is_empty()
                && !terminal.input(Input::Data(data)).await
            {
                return wait_for_end().await;
            }
            if let Some(size) = size
                && !terminal.input(Input::Resize(size)).await
            {
                return wait_for_end().await;
            }
        }
    }
}

/// The terminal has ended; its last output is still being written.
async fn wait_for_end() -> End {
    std::future::pending().await
}

/// Counts an open connection.
struct Count<'a>(&'a Shared);

impl<'a> Count<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.total.fetch_add(1, Ordering::Relaxed);
        shared.connections.send_modify(|n| *n += 1);
        Self(shared)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.connections.send_modify(|n| *n = n.saturating_sub(1));
    }
}
