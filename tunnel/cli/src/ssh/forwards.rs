//! Connections that the workspace opens to this machine.

use std::path::PathBuf;

use adit_ssh::{Channel, Connection, Global, GlobalAnswer, Gone, Open, Opening, Refusal};
use anyhow::{Context as _, Result, bail};
use futures_util::{TryFutureExt as _, future::try_join_all};
use tokio::{sync::mpsc, task::JoinSet};

use crate::cli::SshArgs;

/// Connections from the workspace that wait to be served.
const QUEUE: usize = 64;

/// `-R`: something the workspace listens on, and where it leads here.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RemoteForward {
    Port { port: u16, target: String },
    Socket { path: Vec<u8>, target: PathBuf },
}

/// Address in the workspace that remote forwards listen on.
const BIND: &str = "localhost";

/// What the workspace may connect to.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    remote: Vec<RemoteForward>,
    agent: Option<PathBuf>,
}

impl Forwards {
    /// Reads what the command line allows.
    pub(super) fn of(args: &SshArgs) -> Result<Self> {
        let agent = args
            .identity_agent
            .clone()
            .or_else(|| std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from));
        Ok(Self {
            remote: parse(&args.remote_forward)?,
            agent: agent.filter(|_| args.forward_agent),
        })
    }

    /// Lets a socket on which the workspace listens already lead to one here.
    pub(super) fn add_socket(&mut self, path: Vec<u8>, target: PathBuf) {
        self.remote.push(RemoteForward::Socket { path, target });
    }

    /// Asks the workspace to listen. The future resolves when it does.
    pub(super) fn listen(
        &self,
        connection: &Connection,
    ) -> Result<impl Future<Output = Result<()>> + use<>> {
        let answers: Vec<_> = self
            .remote
            .iter()
            .map(|forward| {
                let (request, what) = forward.ask();
                let answer = connection.ask(&request)?;
                Ok(answer.map_ok(move |answer| (what, answer)))
            })
            .collect::<Result<_, Gone>>()
            .context("connect to the workspace's SSH server")?;
        Ok(async {
            let answers = try_join_all(answers).await;
            for (what, answer) in answers.context("listen in the workspace")? {
                if answer == GlobalAnswer::Failure {
                    bail!("the workspace refused to listen on {what}");
                }
            }
            Ok(())
        })
    }

    /// Serves what comes in until the connection ends.
    pub(super) async fn serve(self, mut incoming: mpsc::Receiver<Incoming>) {
        let mut connections = JoinSet::new();
        while let Some(Incoming { opening, open }) = incoming.recv().await {
            while connections.try_join_next().is_some() {}
            match open {
                Open::ForwardedTcpip { port, .. } => match self.target_of_port(port) {
                    Some(target) => {
                        connections.spawn(to_port(opening, target));
                    }
                    None => opening.refuse(Refusal::Prohibited, "not asked for"),
                },
                Open::ForwardedStreamlocal { path } => match self.target_of_socket(&path) {
                    Some(target) => {
                        connections.spawn(to_socket(opening, target));
                    }
                    None => opening.refuse(Refusal::Prohibited, "not asked for"),
                },
                Open::Agent => match self.agent.clone() {
                    Some(socket) => {
                        connections.spawn(to_socket(opening, socket));
                    }
                    None => opening.refuse(Refusal::Prohibited, "no agent is forwarded"),
                },
                _ => opening.refuse(Refusal::UnknownType, "unknown channel type"),
            }
        }
    }
}

impl Forwards {
    fn target_of_port(&self, wanted: u32) -> Option<String> {
        self.remote.iter().find_map(|forward| match forward {
            RemoteForward::Port { port, target } if u32::from(*port) == wanted => {
                Some(target.clone())
            }
            _ => None,
        })
    }

    fn target_of_socket(&self, wanted: &[u8]) -> Option<PathBuf> {
        self.remote.iter().find_map(|forward| match forward {
            RemoteForward::Socket { path, target } if path == wanted => Some(target.clone()),
            _ => None,
        })
    }
}

impl RemoteForward {
    /// The request for it, and what it is called.
    fn ask(&self) -> (Global, String) {
        match self {
            Self::Port { port, .. } => {
                let request = Global::TcpipForward {
                    address: BIND.to_owned(),
                    port: (*port).into(),
                };
                (request, format!("port {port}"))
            }
            Self::Socket { path, .. } => {
                let request = Global::StreamlocalForward { path: path.clone() };
                (request, String::from_utf8_lossy(path).into_owned())
            }
        }
    }
}

/// A channel that the workspace wants to open.
pub(super) struct Incoming {
    pub(super) opening: Opening,
    pub(super) open: Open,
}

/// The queue between the connection and [`Forwards::serve`].
pub(super) fn queue() -> (mpsc::Sender<Incoming>, mpsc::Receiver<Incoming>) {
    mpsc::channel(QUEUE)
}

async fn to_port(opening: Opening, target: String) {
    match tokio::net::TcpStream::connect(&target).await {
        Ok(stream) => join(opening.accept(), stream).await,
        Err(error) => {
            eprintln!("adit: remote forward to {target}: {error}");
            opening.refuse(Refusal::ConnectFailed, &error.to_string());
        }
    }
}

#[cfg(unix)]
async fn to_socket(opening: Opening, socket: PathBuf) {
    match tokio::net::UnixStream::connect(&socket).await {
        Ok(stream) => join(opening.accept(), stream).await,
        Err(error) => {
            eprintln!("adit: forward to {}: {error}", socket.display());
            opening.refuse(Refusal::ConnectFailed, &error.to_string());
        }
    }
}

#[cfg(not(unix))]
async fn to_socket(opening: Opening, _: PathBuf) {
    opening.refuse(Refusal::Prohibited, "not possible on this system");
}

async fn join(channel: Option<Channel>, stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite) {
    if let Some(channel) = channel {
        adit_ssh::relay(&channel, stream).await;
    }
}

fn parse(specs: &[String]) -> Result<Vec<RemoteForward>> {
    specs
        .iter()
        .map(|spec| {
            let invalid = || {
                format!(
                    "invalid remote forward {spec:?}: \
                     write it as PORT:ADDRESS:PORT or /SOCKET:/SOCKET"
                )
            };
            if spec.starts_with('/') {
                let (path, target) = spec.split_once(":/").with_context(invalid)?;
                return Ok(RemoteForward::Socket {
                    path: path.as_bytes().to_vec(),
                    target: PathBuf::from(format!("/{target}")),
                });
            }
            let (port, target) = spec.split_once(':').with_context(invalid)?;
            let port = port.parse::<u16>().ok().with_context(invalid)?;
            let (_, target_port) = target.rsplit_once(':').with_context(invalid)?;
            target_port.parse::<u16>().ok().with_context(invalid)?;
            Ok(RemoteForward::Port {
                port,
                target: target.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_forwards() {
        let specs = ["8080:localhost:80", "1:[::1]:2", "/a/b:/c"].map(str::to_owned);
        let parsed = parse(&specs).unwrap();
        let port = |port, target: &str| RemoteForward::Port {
            port,
            target: target.to_owned(),
        };
        let socket = RemoteForward::Socket {
            path: b"/a/b".to_vec(),
            target: "/c".into(),
        };
        assert_eq!(
            parsed,
            [port(8080, "localhost:80"), port(1, "[::1]:2"), socket]
        );
        for bad in [
            "8080",
            "x:localhost:80",
            "80:localhost",
            "80:localhost:x",
            "/a",
            "/a:b",
        ] {
            assert!(parse(&[bad.into()]).is_err(), "{bad}");
        }
    }
}
