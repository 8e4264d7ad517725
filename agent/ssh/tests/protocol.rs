//! Requests that OpenSSH's client does not make, sent by a library client.
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

use std::ffi::OsString;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_agent_exec::{CommandContext, EnvLayers, Silent, StaticContext, Tally, User};
use adit_agent_ssh::{Config, HostKey, Server};
use russh::client::{self, Handle};
use russh::{Channel, ChannelMsg, Sig};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);

struct Client;

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// What was counted, as text.
#[derive(Default)]
struct Counted(Mutex<Vec<String>>);

impl Tally for Counted {
    fn count(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        let labels = labels
            .iter()
            .map(|(name, value)| format!(" {name}={value}"));
        let text = format!("{name}{}", labels.collect::<String>());
        self.0.lock().unwrap().push(text);
    }
}

struct Fixture {
    counted: Arc<Counted>,
    server: Server,
    home: tempfile::TempDir,
    _serving: JoinSet<()>,
    client: Handle<Client>,
}

async fn fixture() -> Fixture {
    let home = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let process: Vec<(OsString, OsString)> = vec![("PATH".into(), path)];
    let context = CommandContext {
        user: User {
            name: "tester".into(),
            home: home.path().to_owned(),
            shell: "/bin/sh".into(),
        },
        layers: EnvLayers {
            process,
            ..EnvLayers::default()
        },
        directory: None,
        wrapper: Vec::new(),
    };
    let mut config = Config::new(Arc::new(StaticContext(Ok(context))), Arc::new(Silent));
    let counted = Arc::new(Counted::default());
    config.tally = counted.clone();
    let server = Server::new(config, &HostKey::derive("", "", "").unwrap());
    let (near, far) = tokio::io::duplex(1 << 16);
    let mut serving = JoinSet::new();
    let task = server.clone();
    serving.spawn(async move { task.serve(far, None).await });
    let mut client = client::connect_stream(Arc::default(), near, Client)
        .await
        .unwrap();
    // Coder's client sends no user name at all.
    assert!(client.authenticate_none("").await.unwrap().success());
    Fixture {
        counted,
        server,
        home,
        _serving: serving,
        client,
    }
}

/// The next message that is not about windows.
async fn next(channel: &mut Channel<client::Msg>) -> Option<ChannelMsg> {
    loop {
        match tokio::time::timeout(PATIENCE, channel.wait())
            .await
            .unwrap()
        {
            Some(ChannelMsg::WindowAdjusted { .. }) => {}
            message => return message,
        }
    }
}

async fn succeeds(channel: &mut Channel<client::Msg>) -> bool {
    match next(channel).await {
        Some(ChannelMsg::Success) => true,
        Some(ChannelMsg::Failure) => false,
        other => panic!("unexpected {other:?}"),
    }
}

/// Output and exit status up to the close of the channel.
async fn finish(channel: &mut Channel<client::Msg>) -> (String, Option<u32>) {
    let mut output = Vec::new();
    let mut status = None;
    while let Some(message) = next(channel).await {
        match message {
            ChannelMsg::Data { data } => output.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::ExitSignal { .. } => panic!("exit signals are not sent"),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    (String::from_utf8(output).unwrap(), status)
}

#[tokio::test]
async fn signals_reach_the_program() {
    let fixture = fixture().await;
    for (signal, status) in [
        (Sig::TERM, 255),
        (Sig::USR1, 7),
        (Sig::Custom("USR2".into()), 8),
        (Sig::Custom("NONSENSE@example.com".into()), 255),
    ] {
        let mut channel = fixture.client.channel_open_session().await.unwrap();
        let script =
            "trap 'exit 7' USR1; trap 'exit 8' USR2; echo ready; while :; do sleep 0.01; done";
        channel.exec(true, script).await.unwrap();
        assert!(succeeds(&mut channel).await);
        match next(&mut channel).await {
            Some(ChannelMsg::Data { data }) => assert_eq!(&data[..], b"ready\n"),
            other => panic!("unexpected {other:?}"),
        }
        channel.signal(signal).await.unwrap();
        assert_eq!(finish(&mut channel).await, (String::new(), Some(status)));
    }
}

#[tokio::test]
async fn requests_are_accepted_in_their_order_only() {
    let fixture = fixture().await;
    let mut channel = fixture.client.channel_open_session().await.unwrap();
    channel.window_change(1, 1, 0, 0).await.unwrap();
    channel.set_env(true, "A", "1").await.unwrap();
    // The first answer is to the window change, which nobody asked to answer.
    while next(&mut channel)
        .await
        .is_some_and(|m| !matches!(m, ChannelMsg::Success))
    {}
    channel.request_subsystem(true, "nonsense").await.unwrap();
    assert!(!succeeds(&mut channel).await);
    channel
        .request_pty(true, "xterm", 0, 0, 0, 0, &[])
        .await
        .unwrap();
    assert!(succeeds(&mut channel).await);
    channel
        .request_pty(true, "vt100", 0, 0, 0, 0, &[])
        .await
        .unwrap();
    assert!(!succeeds(&mut channel).await);
    channel
        .exec(true, "echo $A $TERM $(stty size); read -r x")
        .await
        .unwrap();
    assert!(succeeds(&mut channel).await);
    channel.set_env(true, "B", "2").await.unwrap();
    channel.exec(true, "echo again").await.unwrap();
    channel.data(&b"\n"[..]).await.unwrap();
    let mut failures = 0;
    let mut output = Vec::new();
    while let Some(message) = next(&mut channel).await {
        match message {
            ChannelMsg::Failure => failures += 1,
            ChannelMsg::Data { data } => output.extend_from_slice(&data),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    assert_eq!(failures, 2);
    let output = String::from_utf8(output).unwrap();
    assert!(output.contains("1 xterm 0 0\r\n"), "{output:?}");
}

#[tokio::test]
async fn closed_channels_stop_counting() {
    let fixture = fixture().await;
    let mut counts = fixture.server.watch_counts();
    for pty in [false, true] {
        let channel = fixture.client.channel_open_session().await.unwrap();
        if pty {
            channel
                .request_pty(false, "xterm", 80, 24, 0, 0, &[])
                .await
                .unwrap();
        }
        channel.exec(false, "exec sleep 1000").await.unwrap();
        let changed = counts.wait_for(|c| c.ssh == 1);
        tokio::time::timeout(PATIENCE, changed)
            .await
            .unwrap()
            .unwrap();
        channel.close().await.unwrap();
        let changed = counts.wait_for(|c| c.ssh == 0);
        tokio::time::timeout(PATIENCE, changed)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_thousand_sessions_on_one_connection() {
    let fixture = fixture().await;
    for i in 0..1000u32 {
        let mut channel = fixture.client.channel_open_session().await.unwrap();
        channel
            .exec(true, format!("exit {}", i % 200))
            .await
            .unwrap();
        assert!(succeeds(&mut channel).await);
        assert_eq!(finish(&mut channel).await.1, Some(i % 200));
    }
}

#[tokio::test]
async fn impossible_targets_are_refused() {
    let fixture = fixture().await;
    let direct = fixture
        .client
        .channel_open_direct_tcpip("127.0.0.1", 70_000, "", 0)
        .await;
    assert!(direct.is_err());
    let direct = fixture
        .client
        .channel_open_direct_tcpip("no.such.host.invalid", 1, "", 0)
        .await;
    assert!(direct.is_err());
    assert!(fixture.client.channel_open_session().await.is_ok());
}

#[tokio::test]
async fn sessions_are_counted_as_coder_counts_them() {
    let fixture = fixture().await;
    let client = &fixture.client;
    for pty in [false, true] {
        let mut channel = client.channel_open_session().await.unwrap();
        let kind = if pty { "VSCode" } else { "" };
        let name = "CODER_SSH_SESSION_TYPE";
        channel.set_env(false, name, kind).await.unwrap();
        if pty {
            let size = (80, 24);
            let term = channel.request_pty(false, "xterm", size.0, size.1, 0, 0, &[]);
            term.await.unwrap();
        }
        channel.exec(true, "true").await.unwrap();
        assert!(succeeds(&mut channel).await);
        assert_eq!(finish(&mut channel).await.1, Some(0));
    }
    let mut sftp = RawSftp::open(&fixture).await;
    // No packet is that long.
    sftp.channel.data(&[0xff; 4][..]).await.unwrap();
    finish(&mut sftp.channel).await;
    let counted = fixture.counted.0.lock().unwrap().clone();
    let expected = [
        "agent_sessions_total magic_type=ssh pty=no",
        "agent_sessions_total magic_type=vscode pty=yes",
        "agent_ssh_server_sftp_connections_total",
        "agent_ssh_server_sftp_server_errors_total",
    ];
    assert_eq!(counted, expected);
}

/// SFTP in raw packets, for what OpenSSH's client never does.
struct RawSftp {
    channel: Channel<client::Msg>,
    heard: Vec<u8>,
}

impl RawSftp {
    async fn open(fixture: &Fixture) -> Self {
        let mut channel = fixture.client.channel_open_session().await.unwrap();
        channel.request_subsystem(true, "sftp").await.unwrap();
        assert!(succeeds(&mut channel).await);
        let mut sftp = Self {
            channel,
            heard: Vec::new(),
        };
        sftp.say(&[1, 0, 0, 0, 3]).await;
        let version = sftp.hear().await;
        assert_eq!(version[..5], [2, 0, 0, 0, 3]);
        sftp
    }

    async fn say(&mut self, packet: &[u8]) {
        let length = u32::try_from(packet.len()).unwrap();
        let bytes = [&length.to_be_bytes()[..], packet].concat();
        self.channel.data(&bytes[..]).await.unwrap();
    }

    /// The next reply, from its type on.
    async fn hear(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = self.heard.first_chunk::<4>() {
                let end = 4 + usize::try_from(u32::from_be_bytes(*length)).unwrap();
                if self.heard.len() >= end {
                    return self.heard.drain(..end).skip(4).collect();
                }
            }
            match next(&mut self.channel).await {
                Some(ChannelMsg::Data { data }) => self.heard.extend_from_slice(&data),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    async fn ask(&mut self, kind: u8, id: u32, body: &[&[u8]]) -> Vec<u8> {
        self.say(&request(kind, id, body)).await;
        let reply = self.hear().await;
        assert_eq!(reply[1..5], id.to_be_bytes());
        reply
    }
}

fn request(kind: u8, id: u32, body: &[&[u8]]) -> Vec<u8> {
    [&[&[kind], &id.to_be_bytes()[..]], body].concat().concat()
}

fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// A STATUS reply with this code.
fn is_status(reply: &[u8], code: u8) -> bool {
    reply[0] == 101 && reply[5..9] == [0, 0, 0, code]
}

#[tokio::test]
async fn sftp_requests_in_any_order() {
    const OPEN: u8 = 3;
    const CLOSE: u8 = 4;
    const READ: u8 = 5;
    const WRITE: u8 = 6;
    const RENAME: u8 = 18;
    const READLINK: u8 = 19;
    const SYMLINK: u8 = 20;
    const EXTENDED: u8 = 200;
    const OK: u8 = 0;
    const EOF: u8 = 1;
    const MISSING: u8 = 2;
    let fixture = fixture().await;
    let home = fixture.home.path();
    let at = |name: &str| string(home.join(name).to_str().unwrap());
    let mut sftp = RawSftp::open(&fixture).await;
    // Reading, writing, created if it is not there.
    let flags = [0, 0, 0, 0xb];
    let opened = sftp.ask(OPEN, 1, &[&at("f"), &flags, &[0; 4]]).await;
    assert_eq!(opened[0], 102);
    let handle = &opened[5..];

    // From the end to the beginning, none waiting for another.
    for i in (0..64u8).rev() {
        let offset = (u64::from(i) * 1000).to_be_bytes();
        let data = string([i; 1000]);
        let write = request(WRITE, u32::from(i), &[handle, &offset, &data]);
        sftp.say(&write).await;
    }
    for _ in 0..64 {
        assert!(is_status(&sftp.hear().await, OK));
    }
    let fsync = string("fsync@openssh.com");
    let synced = sftp.ask(EXTENDED, 2, &[&fsync, handle]).await;
    assert!(is_status(&synced, OK));
    let written = std::fs::read(home.join("f")).unwrap();
    let whole = written.chunks(1000).zip(0..64).all(|(c, i)| c == [i; 1000]);
    assert!(written.len() == 64_000 && whole);

    // Over the end, at the end, and far behind it.
    for (offset, expected) in [(63_500u64, Some(500)), (64_000, None), (1 << 40, None)] {
        let place = [&offset.to_be_bytes()[..], &1000u32.to_be_bytes()].concat();
        let reply = sftp.ask(READ, 3, &[handle, &place]).await;
        match expected {
            Some(len) => assert_eq!((reply[0], reply.len()), (103, 9 + len)),
            None => assert!(is_status(&reply, EOF), "{offset}"),
        }
    }
    assert!(is_status(&sftp.ask(CLOSE, 4, &[handle]).await, OK));
    assert!(!is_status(&sftp.ask(CLOSE, 5, &[handle]).await, OK));

    // OpenSSH's order, not the draft's: the target first.
    let linked = sftp.ask(SYMLINK, 6, &[&string("f"), &at("link")]).await;
    assert!(is_status(&linked, OK));
    let target = sftp.ask(READLINK, 7, &[&at("link")]).await;
    assert!(target[0] == 104 && target[9..].starts_with(&string("f")));

    // Both kinds of rename replace what is there.
    std::fs::write(home.join("g"), "old").unwrap();
    let renamed = sftp.ask(RENAME, 8, &[&at("f"), &at("g")]).await;
    assert!(is_status(&renamed, OK));
    assert_eq!(std::fs::read(home.join("g")).unwrap(), written);
    std::fs::write(home.join("h"), "newer").unwrap();
    let posix = string("posix-rename@openssh.com");
    let renamed = sftp.ask(EXTENDED, 9, &[&posix, &at("h"), &at("g")]).await;
    assert!(is_status(&renamed, OK));
    assert_eq!(std::fs::read(home.join("g")).unwrap(), b"newer");
    let missing = sftp.ask(RENAME, 10, &[&at("no"), &at("g")]).await;
    assert!(is_status(&missing, MISSING));
}
