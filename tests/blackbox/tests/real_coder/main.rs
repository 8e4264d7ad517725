//! Our programs with a real Coder in one of the places: its command line, its
//! agent, its server.
//!
//! Runs when `ADIT_CODER_BIN` names a `coder` binary with the server in it and
//! `ADIT_CODER_PG_URL` an empty PostgreSQL database for that server; says
//! SKIPPED otherwise.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

mod server;
mod view;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use adit_test_harness::{
    Dev, Process,
    dev::{COMMAND_LIMIT, success},
    process::run,
    program,
    skip::real_coder,
    until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::server::RealServer;

/// The real command line, logged in to our server.
struct RealCli {
    binary: PathBuf,
    config: PathBuf,
}

impl RealCli {
    fn log_in(binary: &Path, dev: &Dev) -> Self {
        let cli = Self {
            binary: binary.to_owned(),
            config: dev.dir().join("coder-config"),
        };
        let _ = success(run(
            cli.command(&[
                "login",
                dev.fact("url"),
                "--token",
                dev.fact("session_token"),
            ])
            .env_remove("CODER_SESSION_TOKEN"),
            COMMAND_LIMIT,
        ));
        cli
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--global-config")
            .arg(&self.config)
            .args(args)
            .env_remove("CODER_URL");
        command
    }

    fn ok(&self, args: &[&str]) -> String {
        success(run(&mut self.command(args), COMMAND_LIMIT))
    }
}

#[test]
fn the_real_client_uses_our_server_and_agent() {
    let Some(binary) = real_coder() else { return };
    let dev = Dev::start();
    let workspace = dev.fact("workspace");
    let cli = RealCli::log_in(&binary, &dev);
    let listed: Value = serde_json::from_str(&cli.ok(&["list", "--output", "json"])).unwrap();
    assert_eq!(listed[0]["name"], workspace);
    let text = cli.ok(&["list"]);
    assert!(text.contains(workspace), "{text}");
    assert_eq!(cli.ok(&["ssh", workspace, "--", "echo hello"]), "hello\n");
    let failed = run(
        &mut cli.command(&["ssh", workspace, "--", "exit 7"]),
        COMMAND_LIMIT,
    );
    assert_eq!(failed.status.code(), Some(7));
    let pong = cli.ok(&["ping", workspace, "-n", "3"]);
    assert!(pong.contains("pong from"), "{pong}");
    let speed: Value =
        serde_json::from_str(&cli.ok(&["speedtest", workspace, "-t", "2s", "--output", "json"]))
            .unwrap();
    assert!(
        speed["overall"]["throughput_mbits"].as_f64().unwrap() > 1.0,
        "{speed}"
    );
    println!("coder speedtest with adit-agent: {speed}");
    let shown = cli.ok(&["show", workspace]);
    assert!(shown.contains("connected"), "{shown}");

    // OpenSSH through the real client.
    let proxy = format!(
        "{} --global-config {} ssh --stdio %h",
        binary.display(),
        cli.config.display()
    );
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-F",
        "/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        &format!("ProxyCommand={proxy}"),
        workspace,
        "echo by OpenSSH",
    ]);
    assert_eq!(success(run(&mut ssh, COMMAND_LIMIT)), "by OpenSSH\n");

    // A forwarded port.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::Write as _;
            let _ = stream.unwrap().write_all(b"served");
        }
    });
    let local = free_port();
    let mut forward = Process::start(
        &mut cli.command(&[
            "port-forward",
            workspace,
            "--tcp",
            &format!("{local}:{remote}"),
        ]),
        &dev.dir().join("coder-forward.log"),
    );
    let text = until("the real port-forward to serve", || {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", local))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    });
    assert_eq!(text, "served");
    forward.signal(Signal::SIGINT);
    let _ = forward.wait();

    // Its life cycle commands.
    let created = cli.ok(&[
        "create",
        "other",
        "--template",
        "local",
        "--preset",
        "none",
        "--yes",
    ]);
    assert!(created.contains("has been created"), "{created}");
    assert_eq!(cli.ok(&["ssh", "other", "--", "echo other"]), "other\n");
    let _ = cli.ok(&["stop", "other", "--yes"]);
    let _ = cli.ok(&["start", "other", "--yes"]);
    let _ = cli.ok(&["delete", "other", "--yes"]);
}

#[test]
fn a_real_agent_connects_to_our_server() {
    let Some(binary) = real_coder() else { return };
    let dev = Dev::start_with(&["--agent", &binary.display().to_string()]);
    let workspace = dev.fact("workspace");
    assert_eq!(dev.ok(["ssh", workspace, "--", "echo hello"]), "hello\n");
    let text = dev.ok(["ping", workspace, "-n", "3", "--wait", "200ms"]);
    assert!(text.contains("pong from"), "{text}");
    let listed: Value = serde_json::from_str(&dev.ok(["list", "--output", "json"])).unwrap();
    let agent = &listed[0]["latest_build"]["resources"][0]["agents"][0];
    assert_eq!(agent["lifecycle_state"], "ready", "{agent}");
    println!(
        "real agent: version {} API {}",
        agent["version"], agent["api_version"]
    );
    let speed = dev.ok(["speedtest", workspace, "-t", "2s", "--output", "json"]);
    println!("adit speedtest with the real agent: {speed}");
}

#[test]
fn a_real_server_sees_our_agent_as_its_own() {
    let Some(binary) = real_coder() else { return };
    let Some(server) = RealServer::start(&binary) else {
        return;
    };
    let services = view::Services::start();
    services.make_workspaces(&server);
    let ours = program("adit-agent");
    let mut differences = String::new();
    for (theirs, ours) in [
        (
            services.life_when_well(&server, &binary, "theirs"),
            services.life_when_well(&server, &ours, "ours"),
        ),
        (
            view::life_when_ailing(&server, &binary, "theirs"),
            view::life_when_ailing(&server, &ours, "ours"),
        ),
    ] {
        println!("agreed: {}", ours["stats"]);
        view::compare("", &theirs, &ours, &mut differences);
    }
    assert_eq!(differences, "", "differences");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
