//! What sessions and agents live through.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use adit_test_harness::{Dev, need_tool, until};

/// An OpenSSH session that answers one line at a time.
struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(dev: &Dev) -> Self {
        let mut child = dev
            .openssh("ssh")
            .args([&dev.ssh_host(), "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut session = Self {
            child,
            input,
            output,
        };
        session.echo("first");
        session
    }

    #[track_caller]
    fn echo(&mut self, text: &str) {
        writeln!(self.input, "{text}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), text);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for_direct(dev: &Dev) {
    let workspace = dev.fact("workspace").to_owned();
    until("a direct connection", || {
        let text = dev.ok([
            "ping", &workspace, "-n", "3", "--wait", "200ms", "--output", "json",
        ]);
        let report: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if report["p2p"] == true {
            Ok(())
        } else {
            Err(text)
        }
    });
}

#[test]
fn a_direct_session_survives_the_server() {
    if need_tool("ssh").is_none() {
        return;
    }
    let mut dev = Dev::start();
    let workspace = dev.fact("workspace").to_owned();
    wait_for_direct(&dev);
    let mut session = Session::open(&dev);
    // The session's own tunnel becomes direct within moments of traffic.
    for index in 0..50 {
        session.echo(&format!("before {index}"));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    dev.kill();
    for index in 0..20 {
        session.echo(&format!("without a server {index}"));
    }
    dev.restart();
    session.echo("after");
    assert_eq!(dev.ok(["ssh", &workspace, "--", "echo new"]), "new\n");
    session.echo("still there");
}

#[test]
fn relayed_only_works_too() {
    let dev = Dev::start();
    let workspace = dev.fact("workspace").to_owned();
    let text = dev.ok([
        "--disable-direct-connections",
        "ping",
        &workspace,
        "-n",
        "2",
        "--wait",
        "100ms",
        "--output",
        "json",
    ]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["p2p"], false, "{text}");
    assert!(report["why_relayed"].is_string(), "{text}");
    assert_eq!(
        dev.ok([
            "--disable-direct-connections",
            "ssh",
            &workspace,
            "--",
            "echo relayed"
        ]),
        "relayed\n"
    );
    let text = dev.ok(["speedtest", &workspace, "-t", "1s", "--output", "json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        report["overall"]["throughput_mbits"].as_f64().unwrap() > 1.0,
        "{text}"
    );
}
