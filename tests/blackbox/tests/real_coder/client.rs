//! The real command line with our server and our agent.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use adit_test_harness::{
    Dev, Process,
    dev::{COMMAND_LIMIT, success},
    free_port,
    process::run,
    skip::{need_tool, real_coder},
    until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The real command line, logged in to our server.
struct RealCli {
    binary: PathBuf,
    dir: PathBuf,
}

impl RealCli {
    fn log_in(binary: &Path, dev: &Dev) -> Self {
        let cli = Self {
            binary: binary.to_owned(),
            dir: dev.dir().to_owned(),
        };
        let _ = cli.ok(&[
            "login",
            dev.fact("url"),
            "--token",
            dev.fact("session_token"),
        ]);
        cli
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--global-config")
            .arg(self.dir.join("coder-config"))
            .args(args)
            .env("HOME", &self.dir)
            .env_remove("CODER_URL")
            .env_remove("CODER_SESSION_TOKEN");
        command
    }

    fn ok(&self, args: &[&str]) -> String {
        success(run(&mut self.command(args), COMMAND_LIMIT))
    }

    fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.extend(["--output", "json"]);
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// A command of an OpenSSH tool with the configuration that the real
    /// client writes.
    fn openssh(&self, tool: &str) -> Command {
        let config = self.dir.join("coder-ssh-config");
        let _ = self.ok(&[
            "config-ssh",
            "--yes",
            "--ssh-config-file",
            &config.display().to_string(),
        ]);
        let mut command = Command::new(tool);
        command
            .arg("-F")
            .arg(config)
            .args(["-o", "BatchMode=yes"])
            .env("HOME", &self.dir);
        command
    }
}

/// A deployment and the real client that is logged in to it.
fn deployment(flags: &[&str]) -> Option<(Dev, RealCli)> {
    let binary = real_coder()?;
    let dev = Dev::start_with(flags);
    let cli = RealCli::log_in(&binary, &dev);
    Some((dev, cli))
}

#[test]
fn the_real_client_reaches_our_agent() {
    let Some((dev, cli)) = deployment(&[]) else {
        return;
    };
    let workspace = dev.fact("workspace");
    assert_eq!(cli.ok(&["ssh", workspace, "--", "echo hello"]), "hello\n");
    let failed = run(
        &mut cli.command(&["ssh", workspace, "--", "exit 7"]),
        COMMAND_LIMIT,
    );
    assert_eq!(failed.status.code(), Some(7));
    let given = cli.ok(&["ssh", "-e", "FOO=bar", workspace, "--", "echo $FOO"]);
    assert_eq!(given, "bar\n");
    let pong = cli.ok(&["ping", workspace, "-n", "3"]);
    assert!(pong.contains("pong from"), "{pong}");
    println!("{pong}");
    let speed = cli.json(&["speedtest", workspace, "-t", "2s"]);
    let megabits = speed["overall"]["throughput_mbits"].as_f64().unwrap();
    assert!(megabits > 1.0, "{speed}");
    println!("coder speedtest with adit-agent: {megabits} Mbit/s");
    let logs = cli.ok(&["logs", workspace]);
    assert!(logs.contains("is ready."), "{logs}");
    let bundle = dev.dir().join("bundle.zip");
    let _ = cli.ok(&[
        "support",
        "bundle",
        workspace,
        "--yes",
        "--output-file",
        &bundle.display().to_string(),
    ]);
    assert!(bundle.metadata().unwrap().len() > 1000);
    let report: Value = serde_json::from_str(&cli.ok(&["netcheck"])).unwrap();
    assert_eq!(report["derp"]["severity"], "ok", "{report}");
}

#[test]
fn the_real_client_manages_our_server() {
    let Some((dev, cli)) = deployment(&["--prebuilds", "1"]) else {
        return;
    };
    let workspace = dev.fact("workspace");
    let user = dev.fact("user");
    assert_eq!(cli.json(&["list"])[0]["name"], workspace);
    for args in [
        &["list"][..],
        &["show", workspace],
        &["templates", "list"],
        &["templates", "versions", "list", "local"],
        &["templates", "presets", "list", "local"],
        &["organizations", "list"],
        &["schedule", "show", workspace],
        &["users", "show", user],
        &["publickey"],
        &["stat", "mem"],
    ] {
        let text = cli.ok(args);
        assert!(!text.is_empty(), "{args:?}");
        println!("coder {}:\n{text}", args.join(" "));
    }
    assert_eq!(cli.json(&["whoami"])[0]["username"], user);
    assert_eq!(cli.json(&["users", "list"])[0]["username"], user);
    let token = cli.ok(&["tokens", "create", "--name", "one", "--lifetime", "1h"]);
    let with_token = run(
        cli.command(&["whoami", "--output", "json"])
            .env("CODER_URL", dev.fact("url"))
            .env("CODER_SESSION_TOKEN", token.trim()),
        COMMAND_LIMIT,
    );
    assert!(success(with_token).contains(user));
    let named = |name: &str| {
        let tokens = cli.json(&["tokens", "list"]);
        let tokens = tokens.as_array().unwrap();
        tokens.iter().any(|token| token["token_name"] == name)
    };
    assert!(named("one"));
    let _ = cli.ok(&["tokens", "remove", "one", "--delete"]);
    assert!(!named("one"));
    let opened = run(
        &mut cli.command(&["open", "vscode", workspace, "--test.open-error"]),
        COMMAND_LIMIT,
    );
    let opened = success(opened);
    assert!(
        opened.contains("vscode://coder.coder-remote/open?agent=main&owner="),
        "{opened}"
    );
    let text = cli.ok(&["update", workspace]);
    assert!(text.contains("up-to-date"), "{text}");
    let _ = cli.ok(&["favorite", workspace]);
    let _ = cli.ok(&["unfavorite", workspace]);

    // A workspace from nothing, and one that was built before.
    for (name, preset) in [("plain", "none"), ("claimed", "default")] {
        let created = cli.ok(&[
            "create",
            name,
            "--template",
            "local",
            "--preset",
            preset,
            "--yes",
        ]);
        assert!(created.contains("has been created"), "{created}");
        let ran = cli.ok(&["ssh", name, "--", "echo $CODER_WORKSPACE_NAME"]);
        assert_eq!(ran, format!("{name}\n"));
    }
    let _ = cli.ok(&["stop", "plain", "--yes"]);
    let _ = cli.ok(&["start", "plain", "--yes"]);
    let _ = cli.ok(&["restart", "plain", "--yes"]);
    let _ = cli.ok(&["delete", "plain", "--yes"]);
    let names = cli.json(&["list"]);
    assert!(!names.to_string().contains("\"plain\""), "{names}");
}

#[test]
fn openssh_reaches_our_agent_through_the_real_client() {
    let Some((dev, cli)) = deployment(&[]) else {
        return;
    };
    let host = format!("{}.coder", dev.fact("workspace"));
    let ssh = |args: &[&str]| success(run(cli.openssh("ssh").args(args), COMMAND_LIMIT));
    assert_eq!(ssh(&[&host, "echo by OpenSSH"]), "by OpenSSH\n");

    // A file there and back.
    let sent = dev.dir().join("sent");
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(&sent, &content).unwrap();
    let remote = dev.dir().join("remote");
    let back = dev.dir().join("back");
    let there = format!("{host}:{}", remote.display());
    let copies = [
        [sent.display().to_string(), there.clone()],
        [there, back.display().to_string()],
    ];
    for copy in copies {
        let _ = success(run(cli.openssh("scp").args(copy), COMMAND_LIMIT));
    }
    assert_eq!(fs::read(&back).unwrap(), content);

    // Many files.
    if need_tool("rsync").is_some() {
        let source = dev.dir().join("source");
        fs::create_dir(&source).unwrap();
        for number in 0..100 {
            fs::write(source.join(number.to_string()), vec![b'x'; number]).unwrap();
        }
        let mut rsync = Command::new("rsync");
        rsync
            .args(["-a", "-e"])
            .arg(format!(
                "ssh -F {} -o BatchMode=yes",
                dev.dir().join("coder-ssh-config").display()
            ))
            .arg(format!("{}/", source.display()))
            .arg(format!("{host}:{}/target/", dev.dir().display()))
            .env("HOME", dev.dir());
        let _ = success(run(&mut rsync, COMMAND_LIMIT));
        let count = fs::read_dir(dev.dir().join("target")).unwrap().count();
        assert_eq!(count, 100);
    }

    // The user's keys, by both clients.
    if need_tool("ssh-agent").is_none() {
        return;
    }
    let socket = dev.dir().join("agent.sock");
    let mut agent = Command::new("ssh-agent");
    agent.arg("-D").arg("-a").arg(&socket);
    let _agent = Process::start(&mut agent, &dev.dir().join("ssh-agent.log"));
    until("the key agent", || {
        std::os::unix::net::UnixStream::connect(&socket).map(drop)
    });
    let key = dev.dir().join("key");
    for (tool, args) in [
        ("ssh-keygen", vec!["-q", "-t", "ed25519", "-N", "", "-f"]),
        ("ssh-add", vec!["-q"]),
    ] {
        let mut command = Command::new(tool);
        command.args(args).arg(&key).env("SSH_AUTH_SOCK", &socket);
        let _ = success(run(&mut command, COMMAND_LIMIT));
    }
    let mut forwarding = cli.openssh("ssh");
    forwarding.args(["-A", &host, "ssh-add -l"]);
    let mut own = cli.command(&["ssh", "-A", dev.fact("workspace"), "--", "ssh-add -l"]);
    for command in [&mut forwarding, &mut own] {
        let listed = success(run(command.env("SSH_AUTH_SOCK", &socket), COMMAND_LIMIT));
        assert!(listed.contains("ED25519"), "{listed}");
    }
}

#[test]
fn the_real_client_forwards_ports_to_our_agent() {
    let Some((dev, cli)) = deployment(&[]) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"served");
        }
    });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    let (local_tcp, local_udp) = (free_port(), free_port());
    let mut forward = Process::start(
        &mut cli.command(&[
            "port-forward",
            dev.fact("workspace"),
            "--tcp",
            &format!("{local_tcp}:{tcp}"),
            "--udp",
            &format!("{local_udp}:{udp}"),
        ]),
        &dev.dir().join("coder-forward.log"),
    );
    let text = until("the forwarded port to serve", || {
        let mut stream = TcpStream::connect(("127.0.0.1", local_tcp))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    });
    assert_eq!(text, "served");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", local_udp)).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    until("a datagram to come back", || {
        client.send(b"ping")?;
        let mut buffer = [0; 16];
        let length = client.recv(&mut buffer)?;
        assert_eq!(&buffer[..length], b"ping");
        Ok::<_, std::io::Error>(())
    });
    forward.signal(Signal::SIGINT);
    let _ = forward.wait();
}
