//! One terminal: a program, what it printed last, and who is attached.

use std::io;
use std::time::Duration;

use adit_agent_exec::{
    CommandContext, Environment, Invocation, PtyChild, PtyReader, Signal, SpawnError,
    TerminalModes, WindowSize,
};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ring::Ring;
use crate::wire::Init;

/// Output that is replayed to a new attachment, in bytes.
const REPLAY: usize = 64 << 10;
/// Output is read in pieces of this size.
const READ: usize = 16 << 10;
/// Pieces of output that may wait for a slow attachment.
const OUTPUT_QUEUE: usize = 32;
/// Typed messages that may wait for a program that does not read.
const INPUT_QUEUE: usize = 32;
/// Longest time one attachment may hold up the others.
const SLOWEST: Duration = Duration::from_secs(10);
/// Life without any attachment, before the first and after the last.
const BEFORE_FIRST: Duration = Duration::from_secs(30);
const AFTER_LAST: Duration = Duration::from_secs(5 * 60);
/// Time a hung-up program has before it is killed; shells save their history.
const HANGUP_GRACE: Duration = Duration::from_secs(1);
/// Time to reap a killed program.
const REAP_DEADLINE: Duration = Duration::from_secs(2);

/// Typed text and size changes, in their order.
#[derive(Debug)]
pub(crate) enum Input {
    Data(String),
    Resize(WindowSize),
}

/// A new connection.
#[derive(Debug)]
struct Attach {
    output: mpsc::Sender<Bytes>,
    size: WindowSize,
}

/// How connections reach a terminal. The terminal ends by itself.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    attach: mpsc::Sender<Attach>,
    input: mpsc::Sender<Input>,
}

impl Handle {
    /// Attaches; the receiver yields the replay, then all output, and ends
    /// with the terminal. `None` if it has ended.
    pub(crate) async fn attach(&self, size: WindowSize) -> Option<mpsc::Receiver<Bytes>> {
        let (output, receiver) = mpsc::channel(OUTPUT_QUEUE);
        self.attach.send(Attach { output, size }).await.ok()?;
        Some(receiver)
    }

    /// Types. False if the terminal has ended.
    pub(crate) async fn input(&self, input: Input) -> bool {
        self.input.send(input).await.is_ok()
    }

    /// True once the terminal has ended.
    pub(crate) fn ended(&self) -> bool {
        self.attach.is_closed()
    }
}

/// Starts the program of a terminal; the returned future runs it to its end.
pub(crate) fn start(
    context: &CommandContext,
    init: &Init,
    close: CancellationToken,
) -> Result<(Handle, impl Future<Output = ()> + use<>), SpawnError> {
    let mut env = context.environment(&[], None);
    env.set("TERM", "xterm-256color");
    ensure_utf8(&mut env);
    let invocation = Invocation::Script(init.command.as_bytes());
    let program =
        context
            .command(&invocation, env)
            .spawn_pty(init.size, &TerminalModes::default(), false)?;
    let (attach, attachments) = mpsc::channel(1);
    let (input, typed) = mpsc::channel(INPUT_QUEUE);
    let task = run(program, attachments, typed, close);
    Ok((Handle { attach, input }, task))
}

/// Full-screen programs need to know that the browser understands UTF-8.
fn ensure_utf8(env: &mut Environment) {
    let effective = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(|name| env.get(name))
        .find(|value| !value.is_empty())
        .map(|value| value.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    let utf8 = effective.contains("utf-8") || effective.contains("utf8");
    let forced = env.get("LC_ALL").is_some_and(|value| !value.is_empty());
    if !utf8 && !forced {
        let name = if cfg!(target_os = "macos") {
            "UTF-8"
        } else {
            "C.UTF-8"
        };
        env.set("LC_CTYPE", name);
    }
}

async fn run(
    program: PtyChild,
    attachments: mpsc::Receiver<Attach>,
    typed: mpsc::Receiver<Input>,
    close: CancellationToken,
) {
    let output = Output {
        program: &program,
        reader: program.pty.reader(),
        ring: Ring::new(REPLAY),
        attached: Vec::new(),
    };
    tokio::select! {
        () = output.run(attachments) => {}
        () = type_in(&program, typed) => {}
        () = close.cancelled() => {}
    }
    end(program).await;
}

/// Hangs the terminal up and sees to it that its program ends.
async fn end(program: PtyChild) {
    let PtyChild { mut child, pty } = program;
    drop(pty);
    if tokio::time::timeout(HANGUP_GRACE, child.wait())
        .await
        .is_err()
    {
        let _ = child.signal(Signal::SIGKILL);
        let _ = tokio::time::timeout(REAP_DEADLINE, child.wait()).await;
    }
}

/// Writes what is typed. Ends never, or rather with the terminal.
async fn type_in(program: &PtyChild, mut typed: mpsc::Receiver<Input>) {
    let mut writer = program.pty.writer();
    while let Some(input) = typed.recv().await {
        let done = match input {
            Input::Data(text) => writer.write_all(text.as_bytes()).await,
            Input::Resize(size) => program.pty.resize(size),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "terminal input");
        }
    }
    // Handles exist as long as the registry names the terminal.
    std::future::pending().await
}

/// The output side.
struct Output<'a> {
    program: &'a PtyChild,
    reader: PtyReader,
    ring: Ring,
    attached: Vec<mpsc::Sender<Bytes>>,
}

impl Output<'_> {
    /// Until the program has closed the terminal or nobody wants it any more.
    async fn run(mut self, mut attachments: mpsc::Receiver<Attach>) {
        let mut buffer = BytesMut::new();
        let mut unwanted = Instant::now() + BEFORE_FIRST;
        let mut wanted = false;
        loop {
            buffer.reserve(READ);
            let leaving = wait_for_leaver(&self.attached);
            tokio::select! {
                read = self.reader.read_buf(&mut buffer) => match read {
                    Ok(n) if n > 0 => self.deliver(buffer.split().freeze()).await,
                    end => {
                        log_end(end);
                        break;
                    }
                },
                Some(new) = attachments.recv() => {
                    self.attach(new);
                    wanted = true;
                    unwanted = Instant::now() + AFTER_LAST;
                }
                index = leaving => {
                    self.attached.swap_remove(index);
                    unwanted = Instant::now() + AFTER_LAST;
                }
                () = tokio::time::sleep_until(unwanted), if self.attached.is_empty() => {
                    tracing::debug!("closing a terminal nobody is attached to");
                    return;
                }
            }
        }
        // A program may have ended before the first one who wants to read what
        // it printed is here.
        if !wanted
            && let Ok(Some(new)) = tokio::time::timeout_at(unwanted, attachments.recv()).await
        {
            self.attach(new);
        }
        while let Ok(new) = attachments.try_recv() {
            self.attach(new);
        }
    }

    /// The replay fits into the queue of a new attachment.
    fn attach(&mut self, new: Attach) {
        let content = self.ring.content();
        if !content.is_empty() && new.output.try_send(content).is_err() {
            return;
        }
        self.attached.push(new.output);
        if let Err(error) = self.program.pty.resize(new.size) {
            tracing::debug!(%error, "resize terminal");
        }
    }

    /// An attachment that is too slow loses its connection, not the others
    /// their patience; it can come back for the replay.
    async fn deliver(&mut self, data: Bytes) {
        self.ring.push(&data);
        let deadline = Instant::now() + SLOWEST;
        let mut left = Vec::with_capacity(self.attached.len());
        for output in self.attached.drain(..) {
            let sent = tokio::time::timeout_at(deadline, output.send(data.clone())).await;
            if matches!(sent, Ok(Ok(()))) {
                left.push(output);
            }
        }
        self.attached = left;
    }
}

fn log_end(end: io::Result<usize>) {
    if let Err(error) = end {
        tracing::debug!(%error, "terminal output");
    }
}

/// Resolves to the index of an attachment whose connection is gone.
async fn wait_for_leaver(attached: &[mpsc::Sender<Bytes>]) -> usize {
    if attached.is_empty() {
        return std::future::pending().await;
    }
    let mut closed: Vec<_> = attached.iter().map(|a| Box::pin(a.closed())).collect();
    std::future::poll_fn(|cx| {
        for (index, future) in closed.iter_mut().enumerate() {
            if future.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(index);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
