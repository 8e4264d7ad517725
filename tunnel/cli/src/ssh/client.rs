//! Our own SSH client, for `adit ssh` without OpenSSH.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use russh::{
    Channel, ChannelMsg, ChannelOpenFailure, ChannelWriteHalf, Disconnect,
    client::{self, Handle, Msg, Session},
    keys::PublicKeyOrCertificate,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};

use super::{
    escape::Escapes,
    terminal::{self, RawMode},
};
use crate::cli::SshArgs;

/// Four times what OpenSSH uses: a long path needs it to fill.
const WINDOW: u32 = 8 * 1024 * 1024;
/// Largest packet that every server takes.
const PACKET: u32 = 32 * 1024;
/// A dead connection is noticed after this times three.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Longest wait for the server at each step of the set-up.
const STEP: Duration = Duration::from_secs(30);
/// Connections from the workspace that wait to be served.
const FORWARD_QUEUE: usize = 64;

const ENDED_UNEXPECTEDLY: u8 = 255;

/// Runs the command or a shell, and returns its exit code.
pub(crate) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    args: &SshArgs,
) -> Result<ExitCode> {
    let forwards = parse_remote_forwards(&args.remote_forward)?;
    let (handler, incoming) = Handler::new(agent_socket(args));
    let mut session = tokio::time::timeout(STEP, client::connect_stream(config(), stream, handler))
        .await
        .context("the workspace's SSH server does not answer")?
        .context("connect to the workspace's SSH server")?;
    let accepted = tokio::time::timeout(STEP, session.authenticate_none(""))
        .await
        .context("the workspace's SSH server does not answer")?
        .context("log in to the workspace's SSH server")?;
    if !accepted.success() {
        bail!("the workspace's SSH server refused the login");
    }
    for forward in &forwards {
        session
            .tcpip_forward(forward.bind.clone(), forward.port)
            .await
            .with_context(|| format!("listen on port {} in the workspace", forward.port))?;
    }
    let forwarding = tokio::spawn(serve_incoming(incoming, forwards));
    let result = shell(&session, args).await;
    forwarding.abort();
    let _ = session.disconnect(Disconnect::ByApplication, "", "").await;
    result
}

fn config() -> Arc<client::Config> {
    Arc::new(client::Config {
        client_id: russh::SshId::Standard("SSH-2.0-Adit".into()),
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 3,
        inactivity_timeout: None,
        nodelay: true,
        ..client::Config::default()
    })
}

async fn shell(session: &Handle<Handler>, args: &SshArgs) -> Result<ExitCode> {
    let channel = session
        .channel_open_session()
        .await
        .context("open a session")?;
    let (mut reader, writer) = channel.split();
    for assignment in &args.env {
        let (name, value) = assignment
            .split_once('=')
            .with_context(|| format!("{assignment:?} is not NAME=VALUE"))?;
        writer.set_env(false, name, value).await?;
    }
    if args.forward_agent {
        writer.agent_forward(false).await?;
    }
    let local_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let wants_terminal = args.tty || (args.command.is_empty() && local_terminal);
    let mut raw = None;
    if wants_terminal {
        let (columns, rows) = terminal::size();
        let term = std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".to_owned());
        writer
            .request_pty(false, &term, columns, rows, 0, 0, &[])
            .await?;
        raw = RawMode::enter();
    }
    if args.command.is_empty() {
        writer.request_shell(true).await?;
    } else {
        writer.exec(true, args.command.join(" ")).await?;
    }
    let escapes = raw.is_some().then(Escapes::default);
    let writer = Arc::new(writer);
    let typing = tokio::spawn(type_in(Arc::clone(&writer), escapes));
    let mut outcome = None;
    let mut resized = terminal::resized();
    let mut user_left = typing;
    let mut typing_done = false;
    let mut output = Output::new();
    loop {
        tokio::select! {
            message = reader.wait() => match message {
                Some(ChannelMsg::Data { data }) => output.stdout(&data).await?,
                Some(ChannelMsg::ExtendedData { data, .. }) => output.stderr(&data).await?,
                Some(ChannelMsg::ExitStatus { exit_status }) => outcome = Some(exit_status),
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    drop(raw.take());
                    eprintln!("adit: the remote command was ended by signal {signal_name:?}");
                    outcome = Some(ENDED_UNEXPECTEDLY.into());
                }
                Some(ChannelMsg::Failure) => bail!("the workspace refused to start the session"),
                Some(_) => {}
                None => break,
            },
            () = resized(), if raw.is_some() => {
                let (columns, rows) = terminal::size();
                writer.window_change(columns, rows, 0, 0).await?;
            }
            left = &mut user_left, if !typing_done => {
                typing_done = true;
                if matches!(left, Ok(Left::Escaped)) {
                    drop(raw.take());
                    eprintln!("\nConnection closed.");
                    return Ok(ExitCode::from(ENDED_UNEXPECTEDLY));
                }
            }
        }
    }
    user_left.abort();
    output.flush().await?;
    drop(raw);
    match outcome {
        Some(code) => Ok(ExitCode::from(
            u8::try_from(code).unwrap_or(ENDED_UNEXPECTEDLY),
        )),
        None => {
            eprintln!("SSH connection ended unexpectedly");
            Ok(ExitCode::from(ENDED_UNEXPECTEDLY))
        }
    }
}

/// How typing has ended.
enum Left {
    /// Standard input has ended; the remote command may go on.
    EndOfInput,
    /// The user typed `~.`.
    Escaped,
}

async fn type_in(writer: Arc<ChannelWriteHalf<Msg>>, mut escapes: Option<Escapes>) -> Left {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; PACKET as usize];
    loop {
        let read = match input.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                let _ = writer.eof().await;
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
        if writer.data_bytes(bytes).await.is_err() {
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

/// `-R`: a port of the workspace that leads to an address here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RemoteForward {
    bind: String,
    port: u32,
    target: String,
}

fn parse_remote_forwards(specs: &[String]) -> Result<Vec<RemoteForward>> {
    specs
        .iter()
        .map(|spec| {
            let invalid =
                || format!("invalid remote forward {spec:?}: write it as PORT:ADDRESS:PORT");
            let (port, target) = spec.split_once(':').with_context(invalid)?;
            let port = port.parse::<u16>().ok().with_context(invalid)?;
            let (_, target_port) = target.rsplit_once(':').with_context(invalid)?;
            target_port.parse::<u16>().ok().with_context(invalid)?;
            Ok(RemoteForward {
                bind: "localhost".to_owned(),
                port: port.into(),
                target: target.to_owned(),
            })
        })
        .collect()
}

fn agent_socket(args: &SshArgs) -> Option<PathBuf> {
    if !args.forward_agent {
        return None;
    }
    args.identity_agent
        .clone()
        .or_else(|| std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from))
}

/// A connection that the workspace opened to this machine.
enum Incoming {
    Agent(Channel<Msg>, PathBuf),
    Port(Channel<Msg>, u32),
}

/// Answers the server. Connections it opens are handed to a task of their
/// own: callbacks run inside the SSH connection.
struct Handler {
    agent: Option<PathBuf>,
    incoming: mpsc::Sender<Incoming>,
}

impl Handler {
    fn new(agent: Option<PathBuf>) -> (Self, mpsc::Receiver<Incoming>) {
        let (sender, incoming) = mpsc::channel(FORWARD_QUEUE);
        (
            Self {
                agent,
                incoming: sender,
            },
            incoming,
        )
    }
}

impl client::Handler for Handler {
    type Error = russh::Error;

    /// The tunnel has authenticated the workspace already; its host key is
    /// derived from public facts.
    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.agent.clone() {
            Some(socket) => {
                if self
                    .incoming
                    .try_send(Incoming::Agent(channel, socket))
                    .is_ok()
                {
                    reply.accept().await;
                }
            }
            None => {
                reply
                    .reject(ChannelOpenFailure::AdministrativelyProhibited)
                    .await
            }
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _connected_address: &str,
        connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if self
            .incoming
            .try_send(Incoming::Port(channel, connected_port))
            .is_ok()
        {
            reply.accept().await;
        }
        Ok(())
    }
}

async fn serve_incoming(mut incoming: mpsc::Receiver<Incoming>, forwards: Vec<RemoteForward>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Some(connection) = incoming.recv().await {
        while connections.try_join_next().is_some() {}
        match connection {
            Incoming::Port(channel, port) => {
                let Some(forward) = forwards.iter().find(|forward| forward.port == port) else {
                    continue;
                };
                let target = forward.target.clone();
                connections.spawn(async move {
                    match tokio::net::TcpStream::connect(&target).await {
                        Ok(mut local) => {
                            let mut far = channel.into_stream();
                            let _ = tokio::io::copy_bidirectional(&mut local, &mut far).await;
                        }
                        Err(error) => eprintln!("adit: remote forward to {target}: {error}"),
                    }
                });
            }
            #[cfg(unix)]
            Incoming::Agent(channel, socket) => {
                connections.spawn(async move {
                    match tokio::net::UnixStream::connect(&socket).await {
                        Ok(mut local) => {
                            let mut far = channel.into_stream();
                            let _ = tokio::io::copy_bidirectional(&mut local, &mut far).await;
                        }
                        Err(error) => eprintln!("adit: SSH agent at {}: {error}", socket.display()),
                    }
                });
            }
            #[cfg(not(unix))]
            Incoming::Agent(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_forwards() {
        let parsed =
            parse_remote_forwards(&["8080:localhost:80".into(), "1:[::1]:2".into()]).unwrap();
        assert_eq!(parsed[0].port, 8080);
        assert_eq!(parsed[0].target, "localhost:80");
        assert_eq!(parsed[1].target, "[::1]:2");
        for bad in ["8080", "x:localhost:80", "80:localhost", "80:localhost:x"] {
            assert!(parse_remote_forwards(&[bad.into()]).is_err(), "{bad}");
        }
    }
}
