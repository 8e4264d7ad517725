//! What happens to a running transfer when the network changes under it.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, ChildStdout, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
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
    let dev = Dev::start_far(hosts, &[]);
    // What the client sends to the server goes through a proxy of the kind
    // that passes WebSockets and refuses every other upgrade.
    let proxy = Proxy::start(dev.hosts(), 7080, 7081);
    for rule in [
        "add table ip proxy",
        "add chain ip proxy in { type nat hook prerouting priority -100; }",
        "add rule ip proxy in tcp dport 7080 redirect to :7081",
    ] {
        dev.hosts().nft(Host::Far, rule);
    }
    let workspace = dev.fact("workspace").to_owned();
    assert!(!path_of(&dev, &[]));
    let mut counter = Counter::start(&dev, &[]);
    counter.expect(200);
    assert_eq!(
        dev.ok(["ssh", &workspace, "--", "echo by WebSocket"]),
        "by WebSocket\n"
    );
    assert!(
        proxy.refused.load(Ordering::Relaxed) > 0,
        "the upgrade was tried"
    );
    assert!(
        proxy.websockets.load(Ordering::Relaxed) > 0,
        "WebSockets were used"
    );
}

/// A proxy that refuses `Upgrade: DERP`.
struct Proxy {
    refused: Arc<AtomicU32>,
    websockets: Arc<AtomicU32>,
}

impl Proxy {
    /// Listens on the far host and passes connections on to its server.
    fn start(hosts: &Hosts, server: u16, port: u16) -> Self {
        let proxy = Self {
            refused: Arc::default(),
            websockets: Arc::default(),
        };
        let (refused, websockets) = (Arc::clone(&proxy.refused), Arc::clone(&proxy.websockets));
        let address = hosts.address(Host::Far);
        let namespace = File::open(hosts.path(Host::Far)).unwrap();
        let (ready, listening) = std::sync::mpsc::channel();
        thread::spawn(move || {
            // The threads that this one starts are on the far host as well.
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let listener = TcpListener::bind((address.as_str(), port)).unwrap();
            ready.send(()).unwrap();
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let (refused, websockets) = (Arc::clone(&refused), Arc::clone(&websockets));
                let server = (address.clone(), server);
                thread::spawn(move || serve(client, &server, &refused, &websockets));
            }
        });
        listening.recv().unwrap();
        proxy
    }
}

/// Serves one connection until either side ends it.
fn serve(
    mut client: TcpStream,
    server: &(String, u16),
    refused: &AtomicU32,
    websockets: &AtomicU32,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    if text.contains("upgrade: derp") {
        refused.fetch_add(1, Ordering::Relaxed);
        let _ = client
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    if text.starts_with("get /derp ") && text.contains("upgrade: websocket") {
        websockets.fetch_add(1, Ordering::Relaxed);
    }
    let Ok(mut upstream) = TcpStream::connect((server.0.as_str(), server.1)) else {
        return;
    };
    let _ = upstream.write_all(&head);
    let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
    let up = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut upstream, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    let _ = up.join();
}
