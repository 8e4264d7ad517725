//! Our client with servers of other makes.
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

use std::borrow::Cow;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_ssh::{
    Channel, ChannelId, Config, Connection, Error, Global, GlobalReply, Handler, Open, OpenOut,
    Opening, Request, RequestOut, Stream, connect,
};
use adit_test_harness::need_tool;
use bytes::Bytes;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);
/// A user without rights.
const NOBODY: u32 = 65_534;

/// Answers commands: `status N` ends with N, all else is an echo of input.
struct Echo {
    env: Vec<String>,
}

impl server::Handler for Echo {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn env_request(
        &mut self,
        _: russh::ChannelId,
        name: &str,
        value: &str,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.env.push(format!("{name}={value}"));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: russh::ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        if let Some(status) = command.strip_prefix(b"status ") {
            let status = std::str::from_utf8(status).unwrap().parse().unwrap();
            session.extended_data(channel, 1, self.env.join(",").into_bytes())?;
            session.exit_status_request(channel, status)?;
            session.close(channel)?;
        }
        Ok(())
    }

    async fn data(
        &mut self,
        channel: russh::ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.data(channel, data.to_vec())
    }

    async fn channel_eof(
        &mut self,
        channel: russh::ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.exit_status_request(channel, 0)?;
        session.close(channel)
    }
}

/// Remembers how programs end.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<(ChannelId, u32)>>>);

impl Handler for Events {
    fn authenticated(&mut self, _: &Connection, _: &[u8]) {}
    fn open(&mut self, _: Opening, _: Open) {}
    fn request(&mut self, id: ChannelId, request: Request) -> bool {
        if let Request::ExitStatus(status) = request {
            self.0.lock().unwrap().push((id, status));
        }
        true
    }
    fn global(&mut self, _: GlobalReply, _: Global) {}
    fn closed(&mut self, _: ChannelId) {}
}

struct Client {
    events: Events,
    connection: Connection,
    end: JoinHandle<Result<(), Error>>,
}

fn client(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, config: Config) -> Client {
    let events = Events::default();
    let (connection, end) = connect(io, Arc::new(config), events.clone()).unwrap();
    Client {
        events,
        connection,
        end: tokio::spawn(end),
    }
}

/// Output of both streams, and the exit status.
async fn finish(client: &Client, channel: &Channel) -> (Vec<u8>, Vec<u8>, Option<u32>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((stream, piece)) = channel.recv().await {
        match stream {
            Stream::Data => out.extend_from_slice(&piece),
            Stream::Stderr => err.extend_from_slice(&piece),
        }
    }
    channel.closed().await;
    let ended = client.events.0.lock().unwrap();
    let status = ended.iter().find(|(id, _)| *id == channel.id());
    (out, err, status.map(|(_, status)| *status))
}

/// A server that names itself `line`.
fn russh_server(line: &'static str) -> (impl AsyncRead + AsyncWrite + Unpin, JoinHandle<()>) {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
    let limits = russh::Limits {
        rekey_write_limit: 1 << 20,
        rekey_read_limit: 1 << 20,
        ..russh::Limits::default()
    };
    let config = server::Config {
        server_id: russh::SshId::Standard(Cow::Borrowed(line)),
        keys: vec![key],
        limits,
        ..server::Config::default()
    };
    let (near, far) = tokio::io::duplex(1 << 16);
    let echo = Echo { env: Vec::new() };
    let task = tokio::spawn(async move {
        let running = server::run_stream(Arc::new(config), far, echo).await;
        // Ends with an error when the client leaves.
        let _ = running.unwrap().await;
    });
    (near, task)
}

/// Requests go ahead of the number of their channel with the second name, and
/// this server does not number from 0 as that name promises.
#[tokio::test]
async fn russh_runs_commands() {
    for line in ["SSH-2.0-russh", "SSH-2.0-Go"] {
        let (io, _server) = russh_server(line);
        let client = client(io, Config::client("SSH-2.0-Test"));
        let run = async {
            let (channel, opened) = client.connection.begin(&OpenOut::Session).unwrap();
            let env = RequestOut::Env {
                name: "A".into(),
                value: "b".into(),
            };
            channel.request(&env).unwrap();
            let started = channel.ask(&RequestOut::Exec("status 7".into())).unwrap();
            opened.await.unwrap();
            assert!(started.await.unwrap());
            let (out, err, status) = finish(&client, &channel).await;
            assert_eq!((out, status), (Vec::new(), Some(7)), "{line}");
            assert!(err.starts_with(b"A=b"), "{line}");
        };
        tokio::time::timeout(PATIENCE, run).await.unwrap();
        client.end.abort();
    }
}

/// More than both sides renew their keys after.
#[tokio::test]
async fn russh_echoes_much_through_new_keys() {
    const LEN: usize = 6 << 20;
    let (io, _server) = russh_server("SSH-2.0-russh");
    let mut config = Config::client("SSH-2.0-Test");
    config.rekey_bytes = 1 << 20;
    let client = client(io, config);
    let run = async {
        let channel = client.connection.open(&OpenOut::Session).await.unwrap();
        let started = channel.ask(&RequestOut::Exec("cat".into())).unwrap();
        assert!(started.await.unwrap());
        let data: Bytes = (0..LEN).map(|i| ((i * 31) >> 7) as u8).collect();
        let send = async {
            for piece in data.chunks(30_000) {
                let piece = data.slice_ref(piece);
                channel.send(Stream::Data, piece).await.unwrap();
            }
            channel.eof().unwrap();
        };
        let (_, (out, _, status)) = tokio::join!(send, finish(&client, &channel));
        assert!(out == data);
        assert_eq!(status, Some(0));
    };
    tokio::time::timeout(PATIENCE, run).await.unwrap();
    client.end.abort();
}

/// OpenSSH lets nobody in without a name; up to there all must work, with
/// each kind of host key.
#[tokio::test]
async fn openssh_exchanges_keys_and_refuses_the_login() {
    let (Some(sshd), Some(keygen)) = (need_tool("sshd"), need_tool("ssh-keygen")) else {
        return;
    };
    for kind in ["ed25519", "rsa"] {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let mut keygen = std::process::Command::new(&keygen);
        keygen.args(["-q", "-N", "", "-t", kind, "-f"]).arg(&key);
        assert!(keygen.status().unwrap().success());
        let mut settings = std::fs::File::create(dir.path().join("config")).unwrap();
        writeln!(settings, "UsePAM no\nHostKey {}", key.display()).unwrap();
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut server = std::process::Command::new(&sshd);
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            // As root it wants a directory that not every machine has.
            for file in [dir.path(), &key, &dir.path().join("config")] {
                chown(file, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            server.uid(NOBODY).gid(NOBODY);
        }
        let mut server = server
            .args(["-i", "-e", "-f"])
            .arg(dir.path().join("config"))
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(
                far.try_clone().unwrap(),
            )))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(far)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let io = tokio::net::UnixStream::from_std(near).unwrap();
        let client = client(io, Config::client("SSH-2.0-Test"));
        let end = tokio::time::timeout(PATIENCE, client.end).await.unwrap();
        let end = end.unwrap();
        assert!(matches!(end, Err(Error::Refused)), "{kind}: {end:?}");
        // It may have left already.
        let _ = server.kill();
        server.wait().unwrap();
    }
}
