//! Descriptors and children of this process, so this file is a process of its
//! own with one test.
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use adit_agent_exec::{CommandContext, EnvLayers, Silent, StaticContext, User};
use adit_agent_ssh::{Config, HostKey, Server};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Children of this process that have not been reaped.
fn children() -> usize {
    let me = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            after_name.split_whitespace().nth(1) == Some(&me)
        })
        .count()
}

fn context(home: &Path) -> CommandContext {
    let path = std::env::var_os("PATH").unwrap_or_default();
    CommandContext {
        user: User {
            name: "tester".into(),
            home: home.to_owned(),
            shell: "/bin/sh".into(),
        },
        layers: EnvLayers {
            process: vec![("PATH".into(), path)],
            ..EnvLayers::default()
        },
        directory: None,
        wrapper: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_clients_leave_no_descriptor_and_no_child() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join("ssh").is_file()) {
        assert!(std::env::var_os("CI").is_none(), "ssh is missing");
        println!("SKIPPED: ssh is not installed");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let provider = StaticContext(Ok(context(home.path())));
    let config = Config::new(Arc::new(provider), Arc::new(Silent));
    let server = Server::new(config, &HostKey::derive("", "", "").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let accepting = server.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, remote)) = listener.accept().await {
            let server = accepting.clone();
            connections.spawn(async move { server.serve(stream, Some(remote)).await });
            while connections.try_join_next().is_some() {}
        }
    });
    // The first round opens what the runtime keeps.
    let mut before = (0, 0);
    for round in 0..4 {
        let mut clients = Vec::new();
        for (i, tty) in ["-tt", "-T", "-tt", "-T"].into_iter().enumerate() {
            let socket = format!("{}/{i}.sock:127.0.0.1:1", home.path().display());
            let mut client = Command::new("ssh");
            client
                .args(["-F", "none", "-o", "StrictHostKeyChecking=no"])
                .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
                .args([
                    tty,
                    "-R",
                    &socket,
                    "-R",
                    "0:127.0.0.1:1",
                    "-p",
                    &port,
                    "127.0.0.1",
                ])
                .arg("echo ready; exec cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true);
            let mut client = client.spawn().unwrap();
            let mut ready = [0; 5];
            let stdout = client.stdout.as_mut().unwrap();
            tokio::time::timeout(PATIENCE, stdout.read_exact(&mut ready))
                .await
                .unwrap()
                .unwrap();
            clients.push(client);
        }
        for client in &mut clients {
            client.kill().await.unwrap();
        }
        drop(clients);
        let quiet = async {
            while server.connections() > 0 || children() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let quiet = tokio::time::timeout(PATIENCE, quiet).await;
        assert!(quiet.is_ok(), "{} children left", children());
        let now = (descriptors(), children());
        if round > 0 {
            assert_eq!(now, before, "round {round}");
        }
        before = now;
    }
}
