//! Commands without a terminal.

use adit_agent_exec::ConnectionKind;
use tokio::io::AsyncWriteExt;

use crate::harness::{Fixture, Report, have, noise, read_until, run, run_with, text, within};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_streams() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let output = server.exec("echo out; echo err >&2; exit 7").await;
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(server.exec("true").await.status.code(), Some(0));
    assert_eq!(server.exec("kill -9 $$").await.status.code(), Some(255));
    let missing = server.exec("no-such-program").await;
    assert_eq!(missing.status.code(), Some(127));
    let script = "#!/usr/bin/env -S sh -e\nfalse\necho reached";
    assert_eq!(server.exec(script).await.status.code(), Some(1));
    let dir = server.text("pwd").await;
    assert_eq!(dir.trim(), server.home.path().to_string_lossy());
    let reports = server.reports.ended(6).await;
    let end = |code: i32, reason: &str| Report {
        kind: ConnectionKind::Ssh,
        ip: "127.0.0.1".into(),
        end: Some((code, reason.into())),
    };
    assert_eq!(reports[0], end(7, "process exited with error status: 7"));
    assert_eq!(reports[1], end(0, "graceful"));
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_survive_both_ways() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let data = noise(64 * MIB + 12_345);
    let output = run_with(server.ssh(&["-T"]).arg("cat"), data.clone()).await;
    assert!(output.status.success());
    assert!(output.stdout == data, "the echo differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cipher_and_mac_carries_data() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let data = noise(MIB);
    let mut suites: Vec<[&str; 2]> = Vec::new();
    for cipher in ["aes128-gcm", "aes256-gcm", "chacha20-poly1305"] {
        suites.push([cipher, "hmac-sha2-256"]);
    }
    for cipher in ["aes128-ctr", "aes192-ctr", "aes256-ctr"] {
        for mac in [
            "hmac-sha2-256-etm@openssh.com",
            "hmac-sha2-512-etm@openssh.com",
            "hmac-sha2-256",
            "hmac-sha2-512",
            "hmac-sha1",
        ] {
            suites.push([cipher, mac]);
        }
    }
    for [cipher, mac] in suites {
        let cipher = if cipher.ends_with("ctr") {
            cipher.to_owned()
        } else {
            format!("{cipher}@openssh.com")
        };
        let options = ["-T", "-c", &cipher, "-m", mac, "-o", "RekeyLimit=256K"];
        let output = run_with(server.ssh(&options).arg("cat"), data.clone()).await;
        assert!(output.status.success(), "{cipher} {mac}: {output:?}");
        assert!(output.stdout == data, "{cipher} {mac}: the echo differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_exchanged_again_during_a_transfer() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let data = noise(8 * MIB);
    for cipher in [
        "aes128-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
        "aes256-ctr",
    ] {
        let rekey = ["-T", "-c", cipher, "-o", "RekeyLimit=1M"];
        let output = run_with(server.ssh(&rekey).arg("cat"), data.clone()).await;
        assert!(output.status.success(), "{cipher}: {:?}", output.stderr);
        assert!(output.stdout == data, "the echo differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_common_algorithm_works() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    for (option, names) in [
        (
            "KexAlgorithms",
            &[
                "curve25519-sha256",
                "curve25519-sha256@libssh.org",
                "ecdh-sha2-nistp256",
                "ecdh-sha2-nistp384",
                "ecdh-sha2-nistp521",
                "diffie-hellman-group14-sha256",
                "diffie-hellman-group14-sha1",
            ][..],
        ),
        (
            "HostKeyAlgorithms",
            &["rsa-sha2-256", "rsa-sha2-512", "ssh-rsa"],
        ),
    ] {
        for name in names {
            let option = format!("{option}={name}");
            let output = run(server.ssh(&["-o", &option]).arg("true")).await;
            assert!(output.status.success(), "{option}: {output:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn end_of_input_reaches_the_command() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let output = run_with(
        server.ssh(&["-T"]).arg("wc -c; exit 3"),
        vec![b'x'; 100_000],
    )
    .await;
    assert_eq!(output.stdout.trim_ascii(), b"100000");
    assert_eq!(output.status.code(), Some(3));
    // A command that does not read its input, which is larger than any buffer.
    let output = run_with(
        server.ssh(&["-T"]).arg("exec 0<&-; echo done"),
        vec![0; 16 * MIB],
    )
    .await;
    assert_eq!(text(&output), "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_merged() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let set = [
        "-o",
        "SetEnv=EDITOR=ed HOME=/evil CODER=no CODER_SSH_SESSION_TYPE=VSCode CODER_CONTAINER=x",
    ];
    let output = run(server.ssh(&set).arg("env")).await;
    let env = text(&output);
    let home = format!("HOME={}", server.home.path().display());
    for line in [
        "EDITOR=ed",
        &home,
        "CODER=true",
        "USER=tester",
        "SHELL=/bin/bash",
    ] {
        assert!(env.lines().any(|l| l == line), "{line} in {env}");
    }
    assert!(env.contains("SSH_CONNECTION=0.0.0.0 0 0.0.0.0 0"));
    for absent in ["CODER_SSH", "CODER_CONTAINER", "SSH_TTY", "SSH_AUTH_SOCK"] {
        assert!(!env.contains(absent), "{absent} in {env}");
    }
    let reports = server.reports.ended(1).await;
    assert_eq!(reports[0].kind, ConnectionKind::VsCode);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_counted_by_kind() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut open = Vec::new();
    for kind in ["ssh", "VSCODE", "vscode", "JetBrains", "else"] {
        let option = format!("SetEnv=CODER_SSH_SESSION_TYPE={kind}");
        let mut child = server
            .ssh(&["-T", "-o", &option])
            .arg("echo ready; cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        read_until(child.stdout.as_mut().unwrap(), "ready").await;
        open.push(child);
    }
    let counts = server.server.counts();
    assert_eq!((counts.ssh, counts.vscode, counts.jetbrains), (1, 2, 0));
    for mut child in open {
        drop(child.stdin.take());
        within(child.wait()).await.unwrap();
    }
    server.quiet().await;
    let mut kinds: Vec<_> = server
        .reports
        .ended(4)
        .await
        .iter()
        .map(|r| r.kind as i32)
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [0, 1, 2, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_sessions_run_side_by_side() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut sessions = Vec::new();
    for i in 0..20 {
        let mut child = server
            .ssh(&["-T"])
            .arg(format!("echo session {i}; cat; exit {i}"))
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        sessions.push((i, child.stdin.take().unwrap(), child));
    }
    // All are up before the first ends.
    for (i, _, child) in &mut sessions {
        read_until(child.stdout.as_mut().unwrap(), &format!("session {i}")).await;
    }
    assert_eq!(server.server.counts().ssh, 20);
    for (i, mut stdin, child) in sessions {
        stdin.write_all(&noise(100_000)).await.unwrap();
        drop(stdin);
        let output = within(child.wait_with_output()).await.unwrap();
        assert_eq!(output.status.code(), Some(i));
        assert!(output.stdout == noise(100_000));
    }
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_agent_are_status_229() {
    if !have(&["ssh"]) {
        return;
    }
    use adit_agent_exec::{ContextError, StaticContext};
    let none = StaticContext(Err(ContextError::NoManifest));
    let server = Fixture::start_with(|config| config.context = std::sync::Arc::new(none)).await;
    assert_eq!(server.exec("true").await.status.code(), Some(229));
    let reports = server.reports.ended(1).await;
    assert_eq!(reports[0].end, Some((229, "no manifest".into())));
}
