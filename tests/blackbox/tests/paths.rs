//! What happens to a running transfer when the network changes under it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use adit_test_harness::{Dev, Host, Hosts, PATIENCE, need_tool, until};

/// Lines that the workspace counts up; a lost or doubled one is seen at once.
struct Counter {
    child: Child,
    lines: BufReader<ChildStdout>,
    next: u64,
}

impl Counter {
    fn start(dev: &Dev, client_flags: &[&str]) -> Self {
        let workspace = dev.fact("workspace").to_owned();
        let count = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.005; done";
        let args = [client_flags, &["ssh", &workspace, "--", count]].concat();
        let mut child = dev
            .adit(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut counter = Self {
            child,
            lines,
            next: 0,
        };
        counter.expect(20);
        counter
    }

    /// Reads that many more lines; returns the longest silence between two.
    #[track_caller]
    fn expect(&mut self, lines: u64) -> Duration {
        let mut longest = Duration::ZERO;
        for _ in 0..lines {
            let began = Instant::now();
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).unwrap();
            assert!(read > 0, "the session ended at line {}", self.next);
            assert_eq!(line.trim_end(), self.next.to_string());
            longest = longest.max(began.elapsed());
            self.next += 1;
        }
        assert!(longest < PATIENCE, "silent for {longest:?}");
        longest
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path_of(dev: &Dev, flags: &[&str]) -> bool {
    let workspace = dev.fact("workspace").to_owned();
    let args = [
        flags,
        &[
            "ping", &workspace, "-n", "5", "--wait", "200ms", "--output", "json",
        ],
    ]
    .concat();
    let report: serde_json::Value = serde_json::from_str(&dev.ok(args)).unwrap();
    report["p2p"] == true
}

#[test]
fn udp_blocked_and_open_again() {
    let Some(hosts) = Hosts::new() else { return };
    if need_tool("nft").is_none() {
        return;
    }
    let dev = Dev::start_far(hosts, &[]);
    until("a direct path between the hosts", || {
        if path_of(&dev, &[]) {
            Ok(())
        } else {
            Err("relayed")
        }
    });
    let mut counter = Counter::start(&dev, &[]);
    counter.expect(300);
    dev.hosts().block_udp();
    let silence = counter.expect(400);
    println!("silence after UDP was blocked: {silence:?}");
    assert!(!path_of(&dev, &[]), "nothing but the relay is left");
    dev.hosts().unblock_udp();
    counter.expect(300);
}

#[test]
fn the_relay_dies_under_a_direct_session() {
    let Some(hosts) = Hosts::new() else { return };
    let mut dev = Dev::start_far(hosts, &[]);
    until("a direct path between the hosts", || {
        if path_of(&dev, &[]) {
            Ok(())
        } else {
            Err("relayed")
        }
    });
    let mut counter = Counter::start(&dev, &[]);
    counter.expect(300);
    dev.kill();
    let silence = counter.expect(400);
    println!("silence after the server was killed: {silence:?}");
    dev.restart();
    counter.expect(200);
}

#[test]
fn a_relayed_session_outlives_the_server() {
    let Some(hosts) = Hosts::new() else { return };
    let mut dev = Dev::start_far(hosts, &[]);
    let mut counter = Counter::start(&dev, &["--disable-direct-connections"]);
    counter.expect(100);
    dev.kill();
    dev.restart();
    let silence = counter.expect(400);
    println!("silence of a relayed session over a server restart: {silence:?}");
}

#[test]
fn websockets_where_nothing_else_passes() {
    let Some(hosts) = Hosts::new() else { return };
    if need_tool("nft").is_none() {
        return;
    }
    hosts.block_udp();
    // Some proxies pass WebSockets and refuse every other upgrade.
    let dev = Dev::start_far(hosts, &["--derp-refuse-upgrade"]);
    let workspace = dev.fact("workspace").to_owned();
    assert!(!path_of(&dev, &[]));
    let mut counter = Counter::start(&dev, &[]);
    counter.expect(200);
    assert_eq!(
        dev.ok(["ssh", &workspace, "--", "echo by WebSocket"]),
        "by WebSocket\n"
    );
    let _ = Host::Near;
}
