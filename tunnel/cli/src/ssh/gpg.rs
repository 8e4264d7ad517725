//! `--forward-gpg`: the workspace signs and decrypts with the keys of this
//! machine, which stay here.
//!
//! The workspace gets the public keys and how far they are trusted. The socket
//! on which its programs look for their GnuPG agent leads to the restricted
//! socket of the agent here.

use std::{path::PathBuf, process::Stdio, time::Duration};

use adit_ssh::{Connection, OpenOut, RequestOut, Stream};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;

use super::client::{Ending, Endings};

/// How long GnuPG may take for one step, on either side.
const STEP: Duration = Duration::from_secs(30);
/// Public keys are sent in pieces of this size.
const PIECE: usize = 32 * 1024;

/// What this machine has to offer.
pub(super) struct Local {
    socket: PathBuf,
    keys: Bytes,
    trust: Bytes,
}

impl Local {
    /// Starts the agent here and reads the public keys.
    pub(super) async fn find() -> Result<Self> {
        gpg("gpgconf", &["--launch", "gpg-agent"]).await?;
        let socket = gpg("gpgconf", &["--list-dirs", "agent-extra-socket"]).await?;
        let socket = String::from_utf8_lossy(&socket).trim().to_owned();
        if socket.is_empty() {
            bail!("GnuPG here has no socket for others");
        }
        Ok(Self {
            socket: socket.into(),
            keys: gpg("gpg", &["--batch", "--armor", "--export"]).await?,
            trust: gpg("gpg", &["--batch", "--export-ownertrust"]).await?,
        })
    }

    /// Prepares the workspace, with the environment of the session to be.
    /// Returns the socket to listen on there, and the
    /// one here to which it shall lead.
    pub(super) async fn offer(
        self,
        connection: &Connection,
        endings: &mut Endings,
        environment: Vec<RequestOut>,
    ) -> Result<(Vec<u8>, PathBuf)> {
        let mut remote = Remote {
            connection,
            endings,
            environment,
        };
        if !self.keys.is_empty() {
            remote.run("gpg --batch --import", self.keys).await?;
        }
        if !self.trust.is_empty() {
            let import = "gpg --batch --import-ownertrust";
            remote.run(import, self.trust).await?;
        }
        // An agent that runs there would hold on to the socket.
        let find = "gpgconf --kill gpg-agent; gpgconf --list-dirs agent-socket";
        let socket = remote.run(find, Bytes::new()).await?;
        let socket = socket.trim_ascii_end().to_vec();
        if socket.is_empty() {
            bail!("GnuPG in the workspace has no socket for its agent");
        }
        Ok((socket, self.socket))
    }
}

/// Runs a program of GnuPG here.
async fn gpg(program: &str, args: &[&str]) -> Result<Bytes> {
    let run = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(STEP, run)
        .await
        .with_context(|| format!("{program} takes too long"))?
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", args.join(" "), said.trim());
    }
    Ok(output.stdout.into())
}

/// Commands in the workspace, one after the other.
struct Remote<'a> {
    connection: &'a Connection,
    endings: &'a mut Endings,
    environment: Vec<RequestOut>,
}

impl Remote<'_> {
    async fn run(&mut self, command: &str, input: Bytes) -> Result<Vec<u8>> {
        let done = tokio::time::timeout(STEP, self.run_without_limit(command, input));
        let done = done.await.with_context(|| format!("{command}: too slow"))?;
        done.with_context(|| format!("{command} in the workspace"))
    }

    async fn run_without_limit(&mut self, command: &str, mut input: Bytes) -> Result<Vec<u8>> {
        let channel = self.connection.open(&OpenOut::Session).await?;
        for assignment in &self.environment {
            channel.request(assignment)?;
        }
        if !channel.ask(&RequestOut::Exec(command.to_owned()))?.await? {
            bail!("refused");
        }
        let feed = async {
            while !input.is_empty() {
                let piece = input.split_to(input.len().min(PIECE));
                if channel.send(Stream::Data, piece).await.is_err() {
                    return;
                }
            }
            // It may have ended already.
            let _ = channel.eof();
        };
        let (mut said, mut complaint) = (Vec::new(), Vec::new());
        let hear = async {
            while let Some((stream, piece)) = channel.recv().await {
                match stream {
                    Stream::Data => said.extend_from_slice(&piece),
                    Stream::Stderr => complaint.extend_from_slice(&piece),
                }
            }
            channel.closed().await;
        };
        tokio::join!(feed, hear);
        match self.endings.of(channel.id()) {
            Some(Ending::Status(0)) => Ok(said),
            _ => bail!("{}", String::from_utf8_lossy(&complaint).trim()),
        }
    }
}
