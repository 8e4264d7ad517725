//! The program of a session, on pipes or on a terminal.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit_agent_exec::{
    Child, Command, ExitStatus, PipedChild, PtyChild, Signal, SpawnError, TerminalModes, WindowSize,
};
use adit_ssh::Gone;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::outcome::Outcome;
use crate::channel::ChannelIo;
use crate::server::Shared;

/// Output is read in pieces of this size, growing while they are filled.
const SMALLEST_READ: usize = 4 << 10;
const LARGEST_READ: usize = 64 << 10;
/// Time a hung-up program has before it is killed; shells save their history.
const HANGUP_GRACE: Duration = Duration::from_secs(1);

/// How a program is connected.
pub(crate) enum Mode {
    Pipes,
    Terminal(TerminalModes, WindowSize),
}

/// A started program.
pub(crate) enum Program {
    Piped(PipedChild),
    Terminal(PtyChild),
}

impl Program {
    pub(crate) fn start(command: &Command, mode: Mode) -> Result<Self, SpawnError> {
        Ok(match mode {
            Mode::Pipes => Self::Piped(command.spawn_piped()?),
            Mode::Terminal(modes, size) => Self::Terminal(command.spawn_pty(size, &modes, true)?),
        })
    }

    /// Moves bytes both ways until the program has ended *and* all its output
    /// has been sent.
    pub(crate) async fn drive(
        &mut self,
        io: &ChannelIo,
        signals: &mut mpsc::Receiver<Signal>,
        size: &mut watch::Receiver<WindowSize>,
    ) -> Outcome {
        let done = match self {
            Self::Piped(program) => drive_piped(program, io, signals).await,
            Self::Terminal(program) => drive_terminal(program, io, signals, size).await,
        };
        match done {
            Ok(status) => Outcome::Exited(status),
            Err(End::Gone) => Outcome::Gone,
            Err(End::Wait(error)) => Outcome::Failed(format!("wait for process: {error}")),
        }
    }

    /// Lets go of the program. On pipes it may run on; without its terminal
    /// it is hung up, and killed if that does not end it.
    pub(crate) fn leave(self, server: &Arc<Shared>) {
        let closing = server.closing.clone();
        match self {
            Self::Piped(PipedChild { mut child, .. }) => {
                if child.id().is_some() {
                    server.lingering.spawn(async move {
                        tokio::select! {
                            _ = child.wait() => return,
                            () = closing.cancelled() => {}
                        }
                        let _ = child.signal_group(Signal::SIGHUP);
                        let _ = child.wait().await;
                    });
                }
            }
            Self::Terminal(PtyChild { mut child, pty }) => {
                drop(pty);
                if child.id().is_some() {
                    server.lingering.spawn(async move {
                        if tokio::time::timeout(HANGUP_GRACE, child.wait())
                            .await
                            .is_err()
                        {
                            let _ = child.signal(Signal::SIGKILL);
                            let _ = child.wait().await;
                        }
                    });
                }
            }
        }
    }
}

/// Why driving stopped early.
enum End {
    Gone,
    Wait(io::Error),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

async fn drive_piped(
    program: &mut PipedChild,
    io: &ChannelIo,
    signals: &mut mpsc::Receiver<Signal>,
) -> Result<ExitStatus, End> {
    let stdin = program.stdin.take();
    let (stdout, stderr) = (program.stdout.take(), program.stderr.take());
    let feed = async {
        if let Some(stdin) = stdin {
            feed(io, stdin).await;
        }
        std::future::pending().await
    };
    let output = async {
        tokio::try_join!(
            async {
                match stdout {
                    Some(stdout) => pump(stdout, |data| io.send(data)).await,
                    None => Ok(()),
                }
            },
            async {
                match stderr {
                    Some(stderr) => pump(stderr, |data| io.send_stderr(data)).await,
                    None => Ok(()),
                }
            }
        )
    };
    let finished = async {
        let (status, _) = tokio::try_join!(wait(&mut program.child, signals, io), async {
            output.await.map_err(End::from)
        })?;
        Ok(status)
    };
    tokio::select! {
        result = finished => result,
        never = feed => never,
    }
}

async fn drive_terminal(
    program: &mut PtyChild,
    io: &ChannelIo,
    signals: &mut mpsc::Receiver<Signal>,
    size: &mut watch::Receiver<WindowSize>,
) -> Result<ExitStatus, End> {
    let pty = &program.pty;
    let feed = async {
        feed(io, pty.writer()).await;
        std::future::pending().await
    };
    let resize = async {
        while size.changed().await.is_ok() {
            let now = *size.borrow_and_update();
            if let Err(error) = pty.resize(now) {
                tracing::debug!(%error, "resize terminal");
            }
        }
        std::future::pending().await
    };
    let finished = async {
        let (status, ()) = tokio::try_join!(wait(&mut program.child, signals, io), async {
            pump(pty.reader(), |data| io.send(data))
                .await
                .map_err(End::from)
        })?;
        Ok(status)
    };
    tokio::select! {
        result = finished => result,
        never = feed => never,
        never = resize => never,
    }
}

/// Waits for the end of the program, passing on signals meanwhile. What the
/// client still sends afterwards has no reader.
async fn wait(
    child: &mut Child,
    signals: &mut mpsc::Receiver<Signal>,
    io: &ChannelIo,
) -> Result<ExitStatus, End> {
    let mut open = true;
    loop {
        let signal = tokio::select! {
            status = child.wait() => {
                io.discard();
                return status.map_err(End::Wait);
            }
            signal = signals.recv(), if open => signal,
        };
        match signal {
            Some(signal) => {
                if let Err(error) = child.signal(signal) {
                    tracing::debug!(%error, ?signal, "signal program");
                }
            }
            None => open = false,
        }
    }
}

/// Copies input until the client ends it or the program stops reading.
async fn feed(io: &ChannelIo, mut into: impl AsyncWrite + Unpin) {
    while let Some(piece) = io.recv().await {
        if into.write_all(&piece).await.is_err() {
            io.discard();
            return;
        }
    }
}

/// Copies output until its end. A read error is an end, too.
async fn pump<F>(mut from: impl AsyncRead + Unpin, send: impl Fn(Bytes) -> F) -> Result<(), Gone>
where
    F: Future<Output = Result<(), Gone>>,
{
    let mut size = SMALLEST_READ;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(size);
        let room = buffer.capacity();
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(n) if n >= room => size = (size * 2).min(LARGEST_READ),
            Ok(n) if n < SMALLEST_READ => size = SMALLEST_READ,
            Ok(_) => {}
        }
        send(buffer.split().freeze()).await?;
    }
}
