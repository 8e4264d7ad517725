//! `port-forward` and `open`: a workspace's services on this machine.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use adit_test_harness::{
    Dev, Process,
    dev::{COMMAND_LIMIT, success},
    free_port, need_tool,
    process::run,
    until,
};
use nix::sys::signal::Signal;

/// A page whose title a script writes, so that only a browser shows it.
const PAGE: &str = "<html><body><script>document.title = 'made ' + 'by script'; \
    document.body.textContent = document.title</script></body></html>";

/// Serves the page on a free port of loopback until the test ends.
fn serve_page() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
                    PAGE.len()
                );
            });
        }
    });
    port
}

fn forward(dev: &Dev, args: &[&str]) -> Process {
    let log = dev.dir().join("forward.log");
    let workspace = dev.fact("workspace").to_owned();
    let mut command = dev.adit([&["port-forward", &workspace], args].concat());
    let process = Process::start(&mut command, &log);
    until("the forward to be ready", || {
        let text = process.output();
        if text.contains("Ready!") {
            Ok(())
        } else {
            Err(text)
        }
    });
    process
}

#[test]
fn tcp_udp_and_refusals() {
    let dev = Dev::start();
    let page = serve_page();
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let echo_port = echo.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, peer)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..length], peer);
        }
    });
    let (local_page, local_nothing, local_udp) = (free_port(), free_port(), free_port());
    let nothing = free_port();
    let mut process = forward(
        &dev,
        &[
            "--tcp",
            &format!("{local_page}:{page},{local_nothing}:{nothing}"),
            "--udp",
            &format!("{local_udp}:{echo_port}"),
        ],
    );

    // A port without a service closes that connection and says so; the others
    // go on.
    let mut refused = TcpStream::connect(("127.0.0.1", local_nothing)).unwrap();
    let mut text = String::new();
    let _ = refused.read_to_string(&mut text);
    assert_eq!(text, "");
    until("the refusal to be reported", || {
        let text = process.output();
        let wanted = format!("nothing listens on port {nothing}");
        if text.contains(&wanted) {
            Ok(())
        } else {
            Err(text)
        }
    });

    for address in ["127.0.0.1", "[::1]"] {
        let stream = TcpStream::connect(format!("{address}:{local_page}"));
        let Ok(mut stream) = stream else {
            assert_eq!(address, "[::1]", "IPv4 must be there");
            continue;
        };
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with(PAGE), "{text}");
    }

    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    until("a datagram to come back", || {
        client.send_to(b"datagram", ("127.0.0.1", local_udp))?;
        let mut buffer = [0; 64];
        let (length, _) = client.recv_from(&mut buffer)?;
        assert_eq!(&buffer[..length], b"datagram");
        Ok::<_, std::io::Error>(())
    });

    process.signal(Signal::SIGINT);
    let status = process.wait();
    assert!(status.success(), "{status}: {}", process.output());
    assert!(
        TcpStream::connect(("127.0.0.1", local_page)).is_err(),
        "the port is free again"
    );
}

#[test]
fn a_browser_opens_a_page() {
    let Some(chromium) = need_tool("chromium") else {
        return;
    };
    let dev = Dev::start();
    let page = serve_page();
    let local = free_port();
    let _process = forward(&dev, &["--tcp", &format!("{local}:{page}")]);
    let profile = dev.dir().join("chromium");
    let mut browser = Command::new(chromium);
    browser
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://localhost:{local}/"))
        .env("HOME", dev.dir());
    let dom = success(run(&mut browser, COMMAND_LIMIT));
    assert!(dom.contains("made by script"), "{dom}");
}

#[test]
fn mistakes_are_explained() {
    let dev = Dev::start();
    let workspace = dev.fact("workspace").to_owned();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    for (args, wanted) in [
        (vec![], "no port-forwards requested".to_owned()),
        (
            vec!["--tcp".to_owned(), "x".to_owned()],
            "is not a port".to_owned(),
        ),
        (
            vec!["--tcp".to_owned(), format!("{taken_port}:80")],
            "another program uses it".to_owned(),
        ),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = dev.run([&["port-forward", workspace.as_str()], &args[..]].concat());
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(&wanted), "{text}");
    }
}
