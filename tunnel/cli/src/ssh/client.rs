//! Our own SSH client, for `adit ssh` without OpenSSH.
//!
//! All that is known at the start (environment, terminal, command) is asked
//! for at once; see [`adit_ssh::connect`].

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use adit_ssh::{
    Channel, ChannelId, Config, Connection, Global, GlobalReply, Handler, Open, OpenOut, Opening,
    Request, RequestOut, Stream,
};
use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    escape::Escapes,
    forwards::{self, Forwards, Incoming},
    gpg,
    terminal::{self, RawMode},
};
use crate::cli::SshArgs;

const IDENTIFICATION: &str = "SSH-2.0-Adit";
/// Four times what OpenSSH uses: a long path needs it to fill.
const WINDOW: u32 = 8 * 1024 * 1024;
/// One read of standard input.
const READ: usize = 32 * 1024;
/// Sign of life when nothing was heard for this long, and how many may stay
/// unanswered: a dead connection is noticed, one whose other end was stopped
/// for some minutes is still there when it goes on.
const KEEPALIVE: Duration = Duration::from_secs(30);
const UNANSWERED: u32 = 9;
/// Longest wait for the server to let us in.
const LOGIN: Duration = Duration::from_secs(30);
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

const ENDED_UNEXPECTEDLY: u8 = 255;

/// Runs the command or a shell, and returns its exit code.
pub(crate) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    args: &SshArgs,
) -> Result<ExitCode> {
    let mut forwards = Forwards::of(args)?;
    let gpg = match args.forward_gpg {
        true => Some(
            gpg::Local::find()
                .await
                .context("forward the GnuPG agent")?,
        ),
        false => None,
    };
    let (incoming_sender, incoming) = forwards::queue();
    let (ending, receiver) = watch::channel(None);
    let mut endings = Endings(receiver);
    let events = Events {
        incoming: incoming_sender,
        ending,
    };
    let (connection, end) = adit_ssh::connect(stream, config(), events)
        .context("connect to the workspace's SSH server")?;
    let (listening, session, mut driving);
    match gpg {
        // Nothing is sent before all is asked for: it goes together.
        None => {
            listening = Some(forwards.listen(&connection)?);
            session = Session::ask_for(&connection, args)?;
            driving = Task(tokio::spawn(end));
        }
        // The program may need the keys as soon as it starts.
        Some(gpg) => {
            driving = Task(tokio::spawn(end));
            let (remote, local) = gpg
                .offer(&connection, &mut endings, environment(args)?)
                .await?;
            forwards.add_socket(remote, local);
            forwards.listen(&connection)?.await?;
            listening = None;
            session = Session::ask_for(&connection, args)?;
        }
    }
    let listening = async {
        match listening {
            Some(listening) => listening.await,
            None => Ok(()),
        }
    };
    let _serving = Task(tokio::spawn(forwards.serve(incoming)));
    let talk = tokio::try_join!(listening, session.talk(endings));
    connection.disconnect();
    let cause = match tokio::time::timeout(FAREWELL, &mut driving.0).await {
        Ok(Ok(Err(cause))) if !matches!(cause, adit_ssh::Error::Closed) => Some(cause),
        _ => None,
    };
    match (talk, cause) {
        (Ok(((), Outcome::Exited(code))), _) => Ok(ExitCode::from(
            u8::try_from(code).unwrap_or(ENDED_UNEXPECTEDLY),
        )),
        (Ok(((), Outcome::Escaped)), _) => Ok(ExitCode::from(ENDED_UNEXPECTEDLY)),
        // What ended the connection says more than that it has ended.
        (_, Some(cause)) => Err(explain(cause)),
        (Err(error), None) => Err(error),
        (Ok(((), Outcome::Lost)), None) => {
            eprintln!("SSH connection ended unexpectedly");
            Ok(ExitCode::from(ENDED_UNEXPECTEDLY))
        }
    }
}

fn config() -> Arc<Config> {
    let mut config = Config::client(IDENTIFICATION);
    config.window = WINDOW;
    config.login_deadline = LOGIN;
    config.keepalive = Some(KEEPALIVE);
    config.keepalive_misses = UNANSWERED;
    Arc::new(config)
}

/// The requests for `--env`.
pub(super) fn environment(args: &SshArgs) -> Result<Vec<RequestOut>> {
    let requests = args.env.iter().map(|assignment| {
        let (name, value) = assignment
            .split_once('=')
            .with_context(|| format!("{assignment:?} is not NAME=VALUE"))?;
        Ok(RequestOut::Env {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    });
    requests.collect()
}

fn explain(cause: adit_ssh::Error) -> anyhow::Error {
    let what = match cause {
        adit_ssh::Error::Refused => "log in to the workspace's SSH server",
        adit_ssh::Error::Deadline(adit_ssh::Deadline::Login) => {
            "the workspace's SSH server does not answer"
        }
        _ => "connection to the workspace's SSH server",
    };
    anyhow::Error::new(cause).context(what)
}

/// A task that ends with this value.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a remote program has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Status(u32),
    Signal(String),
}

/// What the server says about the end of programs: the last of it.
pub(super) struct Endings(watch::Receiver<Option<(ChannelId, Ending)>>);

impl Endings {
    /// How the program on that channel has ended.
    pub(super) fn of(&self, channel: ChannelId) -> Option<Ending> {
        let last = self.0.borrow();
        last.as_ref()
            .filter(|(id, _)| *id == channel)
            .map(|(_, ending)| ending.clone())
    }
}

/// How the session has ended.
enum Outcome {
    Exited(u32),
    /// The user typed `~.`.
    Escaped,
    /// The server did not say.
    Lost,
}

/// What the server does by itself. Its methods are called by the task that
/// moves the connection's bytes.
struct Events {
    incoming: mpsc::Sender<Incoming>,
    ending: watch::Sender<Option<(ChannelId, Ending)>>,
}

impl Handler for Events {
    fn authenticated(&mut self, _: &Connection, _: &[u8]) {}

    fn open(&mut self, opening: Opening, open: Open) {
        // One that finds no place is refused.
        let _ = self.incoming.try_send(Incoming { opening, open });
    }

    fn request(&mut self, id: ChannelId, request: Request) -> bool {
        let ending = match request {
            Request::ExitStatus(status) => Ending::Status(status),
            Request::ExitSignal(name) => Ending::Signal(name),
            Request::Keepalive => return true,
            _ => return false,
        };
        self.ending.send_replace(Some((id, ending)));
        true
    }

    fn global(&mut self, _: GlobalReply, _: Global) {}

    fn closed(&mut self, _: ChannelId) {}
}

/// A session whose program has been asked for.
struct Session {
    channel: Arc<Channel>,
    started: futures_util::future::BoxFuture<'static, Result<()>>,
    raw: Option<RawMode>,
}

impl Session {
    /// Asks for a channel, its surroundings and its program, without waiting
    /// for any answer.
    fn ask_for(connection: &Connection, args: &SshArgs) -> Result<Self> {
        let (channel, opened) = connection
            .begin(&OpenOut::Session)
            .context("open a session")?;
        for assignment in environment(args)? {
            channel.request(&assignment)?;
        }
        if args.forward_agent {
            channel.request(&RequestOut::Agent)?;
        }
        let local_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let wants_terminal = args.tty || (args.command.is_empty() && local_terminal);
        let mut raw = None;
        if wants_terminal {
            let (cols, rows) = terminal::size();
            let term = std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".to_owned());
            channel.request(&RequestOut::Pty { term, cols, rows })?;
            raw = RawMode::enter();
        }
        let program = if args.command.is_empty() {
            RequestOut::Shell
        } else {
            RequestOut::Exec(args.command.join(" "))
        };
        let answer = channel.ask(&program)?;
        let started = async {
            opened.await.context("open a session")?;
            if !answer.await.context("open a session")? {
                bail!("the workspace refused to start the session");
            }
            Ok(())
        };
        Ok(Self {
            channel: Arc::new(channel),
            started: Box::pin(started),
            raw,
        })
    }

    /// Carries input and output until the session has ended.
    async fn talk(self, endings: Endings) -> Result<Outcome> {
        let Self {
            channel,
            started,
            mut raw,
        } = self;
        let escapes = raw.is_some().then(Escapes::default);
        let mut typing = Task(tokio::spawn(type_in(Arc::clone(&channel), escapes)));
        let mut typing_done = false;
        let mut resized = terminal::resized();
        let mut output = Output::new();
        tokio::pin!(started);
        let mut waiting = true;
        loop {
            tokio::select! {
                piece = channel.recv() => match piece {
                    Some((Stream::Data, data)) => output.stdout(&data).await?,
                    Some((Stream::Stderr, data)) => output.stderr(&data).await?,
                    None => break,
                },
                answer = &mut started, if waiting => {
                    waiting = false;
                    answer?;
                }
                () = resized(), if raw.is_some() => {
                    let (cols, rows) = terminal::size();
                    // A session that has ended needs no size.
                    let _ = channel.request(&RequestOut::WindowChange { cols, rows });
                }
                left = &mut typing.0, if !typing_done => {
                    typing_done = true;
                    if matches!(left, Ok(Left::Escaped)) {
                        drop(raw.take());
                        eprintln!("\nConnection closed.");
                        return Ok(Outcome::Escaped);
                    }
                }
            }
        }
        // The exit status may follow the end of the output.
        channel.closed().await;
        if waiting {
            started.await?;
        }
        drop(typing);
        output.flush().await?;
        drop(raw);
        Ok(match endings.of(channel.id()) {
            Some(Ending::Status(status)) => Outcome::Exited(status),
            Some(Ending::Signal(name)) => {
                eprintln!("adit: the remote command was ended by signal {name}");
                Outcome::Exited(ENDED_UNEXPECTEDLY.into())
            }
            None => Outcome::Lost,
        })
    }
}

/// How typing has ended.
enum Left {
    /// Standard input has ended; the remote command may go on.
    EndOfInput,
    /// The user typed `~.`.
    Escaped,
}

async fn type_in(channel: Arc<Channel>, mut escapes: Option<Escapes>) -> Left {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; READ];
    loop {
        let read = match input.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                let _ = channel.eof();
                return Left::EndOfInput;
            }
            Ok(read) => read,
        };
        let bytes = match &mut escapes {
            None => buffer[..read].to_vec(),
            Some(escapes) => {
                let typed = escapes.typed(&buffer[..read]);
                if typed.help {
                    let _ = std::io::stderr().write_all(
                        b"\r\nSupported escape sequences:\r\n ~.  end the session\r\n ~?  this text\r\n ~~  a tilde\r\n",
                    );
                }
                if typed.end {
                    return Left::Escaped;
                }
                typed.send
            }
        };
        if channel.send(Stream::Data, bytes.into()).await.is_err() {
            return Left::EndOfInput;
        }
    }
}

/// The two output streams of this process.
struct Output {
    out: tokio::io::Stdout,
    err: tokio::io::Stderr,
}

impl Output {
    fn new() -> Self {
        Self {
            out: tokio::io::stdout(),
            err: tokio::io::stderr(),
        }
    }

    async fn stdout(&mut self, data: &[u8]) -> Result<()> {
        self.out
            .write_all(data)
            .await
            .context("write standard output")?;
        self.out.flush().await.context("write standard output")
    }

    async fn stderr(&mut self, data: &[u8]) -> Result<()> {
        self.err
            .write_all(data)
            .await
            .context("write standard error")
    }

    async fn flush(&mut self) -> Result<()> {
        self.out.flush().await.context("write standard output")?;
        self.err.flush().await.context("write standard error")
    }
}
