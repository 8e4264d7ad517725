//! What happens when things end, hang, or are left unread.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Fixture, have, read_until, run, text, until, within};

/// A client whose connection others can share.
async fn master(server: &Fixture, socket: &Path) -> tokio::process::Child {
    let control = format!("ControlPath={}", socket.display());
    let mut ssh = server.ssh(&["-T", "-M", "-o", &control]);
    let mut client = ssh
        .arg("echo ready; cat")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(client.stdout.as_mut().unwrap(), "ready").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_channel_does_not_stall_the_others() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control");
    let _master = master(&server, &socket).await;
    let control = format!("ControlPath={}", socket.display());
    // One program that does not read its endless input, one client that does
    // not read its endless output.
    let mut unread_input = server
        .ssh(&["-T", "-o", &control])
        .arg("echo started; exec sleep 1000")
        .stdin(std::fs::File::open("/dev/zero").unwrap())
        .spawn()
        .unwrap();
    read_until(unread_input.stdout.as_mut().unwrap(), "started").await;
    let mut unread_output = server
        .ssh(&["-T", "-o", &control])
        .arg("exec cat /dev/zero")
        .spawn()
        .unwrap();
    within(
        unread_output
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut [0; 1 << 16]),
    )
    .await
    .unwrap();
    for i in 0..5 {
        let mut ssh = server.ssh(&["-T", "-o", &control]);
        let output = run(ssh.arg(format!("head -c 5000000 /dev/zero | wc -c; echo {i}"))).await;
        assert_eq!(text(&output), format!("5000000\n{i}\n"));
        let mut ssh = server.ssh(&["-T", "-o", &control]);
        let output = crate::harness::run_with(ssh.arg("wc -c"), vec![0; 5_000_000]).await;
        assert_eq!(text(&output).trim(), "5000000");
    }
    assert!(unread_input.try_wait().unwrap().is_none());
    assert!(unread_output.try_wait().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_client_leaves_nothing_behind() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let home = server.home.path().display();
    // Stays until its input ends; holds sockets, a terminal, a forward.
    let mut ssh = server.ssh(&["-tt", "-R", &format!("{home}/s.sock:127.0.0.1:1")]);
    let mut client = ssh
        .arg("echo pid=$$=; exec cat")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = read_until(client.stdout.as_mut().unwrap(), "=\r\n").await;
    let on_terminal = process(&seen);
    let mut ssh = server.ssh(&["-T"]);
    let mut piped = ssh
        .arg("echo pid=$$=; exec cat")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = read_until(piped.stdout.as_mut().unwrap(), "=\n").await;
    let on_pipes = process(&seen);
    assert!(on_terminal.exists() && on_pipes.exists());
    client.start_kill().unwrap();
    piped.start_kill().unwrap();
    server.quiet().await;
    let reports = server.reports.ended(2).await;
    assert!(
        reports
            .iter()
            .all(|r| r.end == Some((1, "client_closed".into()))),
        "{reports:?}"
    );
    until("the program on the terminal ends", || !on_terminal.exists()).await;
    until("the program on pipes sees the end", || !on_pipes.exists()).await;
    until("the socket is gone", || {
        !server.home.path().join("s.sock").exists()
    })
    .await;
    until("no connection is left", || server.server.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_without_a_terminal_outlive_the_client_until_the_server_closes() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut ssh = server.ssh(&["-T"]);
    let command = "exec 2>/dev/null; trap 'echo bye > bye; exit' HUP; echo pid=$$=; while :; do sleep 0.1; done";
    let mut client = ssh.arg(command).spawn().unwrap();
    let seen = read_until(client.stdout.as_mut().unwrap(), "=\n").await;
    let program = process(&seen);
    client.start_kill().unwrap();
    server.quiet().await;
    until("no connection is left", || server.server.connections() == 0).await;
    assert!(program.exists(), "it should have outlived its session");
    within(server.server.close(Duration::from_secs(10))).await;
    assert!(!program.exists(), "closing the server ends it");
    assert!(server.home.path().join("bye").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_server_ends_sessions_without_a_status() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut ssh = server.ssh(&["-T"]);
    let mut client = ssh.arg("echo ready; exec sleep 1000").spawn().unwrap();
    read_until(client.stdout.as_mut().unwrap(), "ready").await;
    within(server.server.close(Duration::from_secs(10))).await;
    let status = within(client.wait()).await.unwrap();
    assert_eq!(status.code(), Some(255));
    let reports = server.reports.ended(1).await;
    assert_eq!(reports[0].end, Some((1, "server_shutdown".into())));
    assert_eq!(server.exec("true").await.status.code(), Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_close_ends_the_connection() {
    let server = Fixture::start().await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    stream.write_all(b"SSH-2.0-test\r\n").await.unwrap();
    let greeting = read_until(&mut stream, "\r\n").await;
    assert!(greeting.starts_with("SSH-2.0-"), "{greeting}");
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    until("no connection is left", || server.server.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keepalives_are_answered_and_sent() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start_with(|c| c.max_timeout = Some(Duration::from_secs(3))).await;
    // The client gives up after one second without an answer; the server
    // after three. Both live longer than that.
    let mut ssh = server.ssh(&[
        "-T",
        "-o",
        "ServerAliveInterval=1",
        "-o",
        "ServerAliveCountMax=1",
    ]);
    let output = run(ssh.arg("sleep 5; echo alive")).await;
    assert_eq!(text(&output), "alive\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_dropped() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start_with(|c| c.max_timeout = Some(Duration::from_secs(3))).await;
    let mut ssh = server.ssh(&["-T"]);
    let mut client = ssh
        .arg("echo ready; cat")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(client.stdout.as_mut().unwrap(), "ready").await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(client.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    server.quiet().await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn short_times_limit_the_life_of_a_connection() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start_with(|c| c.max_timeout = Some(Duration::from_secs(1))).await;
    let output = server.exec("sleep 30").await;
    assert_eq!(output.status.code(), Some(255));
}

/// The `/proc` entry of the process that printed `pid=N=`.
fn process(seen: &str) -> PathBuf {
    let pid = seen
        .split("pid=")
        .nth(1)
        .and_then(|s| s.split('=').next())
        .unwrap();
    PathBuf::from("/proc").join(pid)
}
