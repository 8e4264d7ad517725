//! Requests that OpenSSH's client does not make, sent by a library client.
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use adit_agent_exec::{CommandContext, EnvLayers, Silent, StaticContext, User};
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

struct Fixture {
    server: Server,
    _home: tempfile::TempDir,
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
    let config = Config::new(Arc::new(StaticContext(Ok(context))), Arc::new(Silent));
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
        server,
        _home: home,
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
