//! Commands without a terminal.

use std::process::Stdio;

use adit_agent_exec::ConnectionKind;
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Fixture, Report, have, noise, read_until, run, run_with, text, until, within,
};

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
    assert_eq!(
        server.exec("no-such-program").await.status.code(),
        Some(127)
    );
    let script = "#!/usr/bin/env -S sh -e\nfalse\necho reached";
    assert_eq!(server.exec(script).await.status.code(), Some(1));
    assert_eq!(
        server.text("pwd").await.trim(),
        server.home.path().to_string_lossy()
    );
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
