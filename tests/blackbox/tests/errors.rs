//! What goes wrong, and what is said about it: one clear line with the cause
//! and a remedy.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Output},
    thread,
};

use adit_test_harness::{Dev, Process, dev::COMMAND_LIMIT, process::run, program, until};
use nix::sys::signal::Signal;

/// Answers every HTTP request with the same bytes.
fn serve(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 8192];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 26\r\nConnection: close\r\n\r\n<html>Please log in</html>";
const OLD_SERVER: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 51\r\nConnection: close\r\n\r\n{\"message\":\"Unknown or unsupported API version\"   }";

fn adit(url: &str, token: &str) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("adit"));
    command
        .args(["list"])
        .env("HOME", home.path())
        .env("ADIT_URL", url)
        .env("ADIT_SESSION_TOKEN", token)
        .env_remove("XDG_CONFIG_HOME");
    run(&mut command, COMMAND_LIMIT)
}

#[track_caller]
fn says(output: &Output, cause: &str, remedy: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    assert!(text.contains(cause), "no {cause:?} in: {text}");
    assert!(text.contains(remedy), "no {remedy:?} in: {text}");
}

#[test]
fn the_client_explains() {
    let token = "abcdefghij-0123456789abcdefghijkl";
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    says(
        &adit(&format!("http://127.0.0.1:{unused}"), token),
        "refused the connection",
        "server is running",
    );
    says(
        &adit("http://no-such-host.invalid", token),
        "no-such-host.invalid",
        "spelling",
    );
    let page = serve(HTML);
    says(
        &adit(&format!("http://127.0.0.1:{page}"), token),
        "web page instead of an API answer",
        "login page",
    );
    says(
        &adit(&format!("https://127.0.0.1:{page}"), token),
        "TLS",
        "http://",
    );

    let dev = Dev::start();
    let refused = adit(dev.fact("url"), token);
    says(&refused, "401", "adit login");
    assert!(
        !String::from_utf8_lossy(&refused.stderr).contains(token),
        "the token is shown"
    );
    says(&dev.run(["ssh", "no-such-workspace"]), "404", "name");
}

#[test]
fn the_agent_explains_and_retries() {
    let dev = Dev::start();
    let start = |url: &str, token: &str, name: &str| {
        let dir = dev.dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new(program("adit-agent"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &dir)
            .env("CODER_AGENT_URL", url)
            .env("CODER_AGENT_TOKEN", token)
            .env("CODER_AGENT_LOG_DIR", &dir);
        Process::start(&mut command, &dir.join("output"))
    };
    let token = "00000000-0000-4000-8000-0000000000ff";
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let page = serve(HTML);
    let old = serve(OLD_SERVER);
    for (name, url, wanted) in [
        ("token", dev.fact("url").to_owned(), "401"),
        (
            "refused",
            format!("http://127.0.0.1:{unused}"),
            "refused the connection",
        ),
        ("html", format!("http://127.0.0.1:{page}"), "web page"),
        ("version", format!("http://127.0.0.1:{old}"), "API version"),
    ] {
        let mut agent = start(&url, token, name);
        until("the agent to explain", || {
            let text = agent.output();
            if text.contains(wanted) {
                Ok(())
            } else {
                Err(text)
            }
        });
        // It keeps trying: what is wrong may be put right.
        assert!(agent.try_wait().unwrap().is_none(), "{}", agent.output());
        assert!(!agent.output().contains(token), "the token is shown");
        agent.signal(Signal::SIGTERM);
        let _ = agent.wait();
    }
}
