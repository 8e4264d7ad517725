//! Connections that the workspace opens to this machine.

use std::path::PathBuf;

use adit_ssh::{Channel, Connection, Global, GlobalAnswer, Gone, Open, Opening, Refusal};
use anyhow::{Context as _, Result, bail};
use futures_util::{TryFutureExt as _, future::try_join_all};
use tokio::{sync::mpsc, task::JoinSet};

use crate::cli::SshArgs;

/// Connections from the workspace that wait to be served.
const QUEUE: usize = 64;

/// `-R`: a port of the workspace that leads to an address here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteForward {
    port: u16,
    target: String,
}

/// Address in the workspace that remote forwards listen on.
const BIND: &str = "localhost";

/// What the workspace may connect to.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    ports: Vec<RemoteForward>,
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
            ports: parse(&args.remote_forward)?,
            agent: agent.filter(|_| args.forward_agent),
        })
    }

    /// Asks the workspace to listen. The future resolves when it does.
    pub(super) fn listen(
        &self,
        connection: &Connection,
    ) -> Result<impl Future<Output = Result<()>> + use<>> {
        let answers: Vec<_> = self
            .ports
            .iter()
            .map(|forward| {
                let port = forward.port;
                let answer = connection.ask(&Global::TcpipForward {
                    address: BIND.to_owned(),
                    port: port.into(),
                })?;
                Ok(answer.map_ok(move |answer| (port, answer)))
            })
            .collect::<Result<_, Gone>>()
            .context("connect to the workspace's SSH server")?;
        Ok(async {
            let answers = try_join_all(answers).await;
            for (port, answer) in answers.context("listen in the workspace")? {
                if answer == GlobalAnswer::Failure {
                    bail!("the workspace refused to listen on port {port}");
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
                Open::ForwardedTcpip { port, .. } => {
                    let forward = self.ports.iter().find(|f| u32::from(f.port) == port);
                    match forward {
                        Some(forward) => {
                            connections.spawn(to_port(opening, forward.target.clone()));
                        }
                        None => opening.refuse(Refusal::Prohibited, "not asked for"),
                    }
                }
                Open::Agent => match self.agent.clone() {
                    Some(socket) => {
                        connections.spawn(to_agent(opening, socket));
                    }
                    None => opening.refuse(Refusal::Prohibited, "no agent is forwarded"),
                },
                _ => opening.refuse(Refusal::UnknownType, "unknown channel type"),
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
async fn to_agent(opening: Opening, socket: PathBuf) {
    match tokio::net::UnixStream::connect(&socket).await {
        Ok(stream) => join(opening.accept(), stream).await,
        Err(error) => {
            eprintln!("adit: SSH agent at {}: {error}", socket.display());
            opening.refuse(Refusal::ConnectFailed, &error.to_string());
        }
    }
}

#[cfg(not(unix))]
async fn to_agent(opening: Opening, _: PathBuf) {
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
            let invalid =
                || format!("invalid remote forward {spec:?}: write it as PORT:ADDRESS:PORT");
            let (port, target) = spec.split_once(':').with_context(invalid)?;
            let port = port.parse::<u16>().ok().with_context(invalid)?;
            let (_, target_port) = target.rsplit_once(':').with_context(invalid)?;
            target_port.parse::<u16>().ok().with_context(invalid)?;
            Ok(RemoteForward {
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
        let parsed = parse(&["8080:localhost:80".into(), "1:[::1]:2".into()]).unwrap();
        assert_eq!(parsed[0].port, 8080);
        assert_eq!(parsed[0].target, "localhost:80");
        assert_eq!(parsed[1].target, "[::1]:2");
        for bad in ["8080", "x:localhost:80", "80:localhost", "80:localhost:x"] {
            assert!(parse(&[bad.into()]).is_err(), "{bad}");
        }
    }
}
