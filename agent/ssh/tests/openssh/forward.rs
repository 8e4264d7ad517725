//! Port, socket, agent and X11 forwarding.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use adit_test_harness::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::harness::{Fixture, PATIENCE, have, noise, read_until, run, text, within};

/// Echoes everything, then the number of bytes seen.
async fn echo(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> io::Result<()> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await?;
    stream.write_all(&all).await?;
    stream.shutdown().await
}

async fn tcp_echo(tasks: &mut JoinSet<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let mut served = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            served.spawn(echo(stream));
        }
    });
    port
}

fn unix_echo(tasks: &mut JoinSet<()>, path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    tasks.spawn(async move {
        let mut served = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            served.spawn(echo(stream));
        }
    });
}

/// Sends, closes the sending side, and reads to the end: only right if
/// half-close works all along the way.
async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, len: usize) {
    let data = noise(len);
    let mut back = Vec::new();
    let copy = async {
        stream.write_all(&data).await?;
        stream.shutdown().await?;
        stream.read_to_end(&mut back).await
    };
    within(copy).await.unwrap();
    assert!(back == data);
}

/// A client that only forwards; it is ready when its command has printed.
async fn forwarding(server: &Fixture, options: &[&str]) -> Child {
    let mut ssh = server.ssh(&[&["-T", "-o", "ExitOnForwardFailure=yes"], options].concat());
    let mut client = ssh
        .arg("echo ready; cat")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(client.stdout.as_mut().unwrap(), "ready").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn local_forwards() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut tasks = JoinSet::new();
    let target = tcp_echo(&mut tasks).await;
    let socket = server.home.path().join("target.sock");
    unix_echo(&mut tasks, &socket);
    let (tcp, unix, refused) = (free_port(), free_port(), free_port());
    let _client = forwarding(
        &server,
        &[
            "-L",
            &format!("{tcp}:127.0.0.1:{target}"),
            "-L",
            &format!("{unix}:{}", socket.display()),
            "-L",
            &format!("{refused}:127.0.0.1:1"),
        ],
    )
    .await;
    for len in [0, 1, 3 << 20] {
        exchange(TcpStream::connect(("127.0.0.1", tcp)).await.unwrap(), len).await;
        exchange(TcpStream::connect(("127.0.0.1", unix)).await.unwrap(), len).await;
    }
    let mut many = JoinSet::new();
    for _ in 0..30 {
        let stream = TcpStream::connect(("127.0.0.1", tcp)).await.unwrap();
        many.spawn(exchange(stream, 200_000));
    }
    within(many.join_all()).await;
    let mut stream = TcpStream::connect(("127.0.0.1", refused)).await.unwrap();
    let closed = within(stream.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamic_forwards() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut tasks = JoinSet::new();
    let target = tcp_echo(&mut tasks).await;
    let socks = free_port();
    let _client = forwarding(&server, &["-D", &socks.to_string()]).await;
    let mut stream = TcpStream::connect(("127.0.0.1", socks)).await.unwrap();
    // SOCKS 5 without authentication, CONNECT to a host name.
    let hello = b"\x05\x01\x00\x05\x01\x00\x03\x09localhost";
    stream.write_all(hello).await.unwrap();
    stream.write_all(&target.to_be_bytes()).await.unwrap();
    let mut answer = [0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!((answer[1], answer[3]), (0, 0));
    exchange(stream, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_forwards() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let mut tasks = JoinSet::new();
    let target = tcp_echo(&mut tasks).await;
    let local = tempfile::tempdir().unwrap();
    let socket = local.path().join("local.sock");
    unix_echo(&mut tasks, &socket);
    let fixed = free_port();
    let remote = server.home.path().join("new/dir/remote.sock");
    let mut ssh = server.ssh(&[
        "-T",
        "-o",
        "ExitOnForwardFailure=yes",
        "-o",
        "LogLevel=INFO",
        "-R",
        &format!("{fixed}:127.0.0.1:{target}"),
        "-R",
        &format!("127.0.0.1:0:127.0.0.1:{target}"),
        "-R",
        &format!("{}:{}", remote.display(), socket.display()),
    ]);
    let mut client = ssh
        .arg("echo ready; cat")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let told = read_until(client.stderr.as_mut().unwrap(), "Allocated port").await;
    let told = if told.contains(" for remote") {
        told
    } else {
        told + &read_until(client.stderr.as_mut().unwrap(), " for remote").await
    };
    let chosen: u16 = told
        .split("Allocated port ")
        .nth(1)
        .and_then(|s| s.split(' ').next())
        .and_then(|s| s.parse().ok())
        .unwrap();
    read_until(client.stdout.as_mut().unwrap(), "ready").await;
    for port in [fixed, chosen] {
        exchange(
            TcpStream::connect(("127.0.0.1", port)).await.unwrap(),
            2 << 20,
        )
        .await;
    }
    exchange(UnixStream::connect(&remote).await.unwrap(), 1 << 20).await;
    drop(client.stdin.take());
    within(client.wait()).await.unwrap();
    server.quiet().await;
    within(async {
        while TcpStream::connect(("127.0.0.1", fixed)).await.is_ok() || remote.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_can_be_forbidden() {
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start_with(|c| {
        c.block_local_port_forwarding = true;
        c.block_reverse_port_forwarding = true;
    })
    .await;
    let port = free_port();
    let remote = format!("{port}:127.0.0.1:1");
    let options = ["-o", "ExitOnForwardFailure=yes", "-R", &remote];
    let output = run(server.ssh(&options).arg("true")).await;
    assert_eq!(output.status.code(), Some(255));
    let mut tasks = JoinSet::new();
    let target = tcp_echo(&mut tasks).await;
    let output = run(server
        .ssh(&[
            "-W",
            &format!("127.0.0.1:{target}"),
            "-o",
            "LogLevel=DEBUG1",
        ])
        .stdin(Stdio::null()))
    .await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("port forwarding is disabled"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_forwarded() {
    if !have(&["ssh", "ssh-agent", "ssh-add", "ssh-keygen"]) {
        return;
    }
    let server = Fixture::start().await;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let _agent = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let key = dir.path().join("key");
    let mut keygen = Command::new("ssh-keygen");
    server.prepare(&mut keygen);
    text(
        &run(keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "the key", "-f"])
            .arg(&key))
        .await,
    );
    tokio::time::timeout(PATIENCE, async {
        while UnixStream::connect(&socket).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let mut add = Command::new("ssh-add");
    server.prepare(&mut add);
    run(add.env("SSH_AUTH_SOCK", &socket).arg(&key)).await;
    let mut ssh = server.ssh(&["-A"]);
    let list = text(
        &run(ssh
            .env("SSH_AUTH_SOCK", &socket)
            .arg("ssh-add -l; echo $SSH_AUTH_SOCK"))
        .await,
    );
    assert!(list.contains("the key"), "{list}");
    let path = list.lines().last().unwrap();
    assert!(
        path.ends_with("/listener.sock") && !Path::new(path).exists(),
        "{path}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn x11_is_forwarded() {
    if !have(&["ssh", "xauth"]) {
        return;
    }
    let server = Fixture::start().await;
    let display = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let number = i32::from(display.local_addr().unwrap().port()) - 6000;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = display.accept().await.unwrap();
        let mut setup = [0; 12];
        stream.read_exact(&mut setup).await.unwrap();
        stream.write_all(b"DISPLAY ANSWERS").await.unwrap();
    });
    // What an X client sends first: byte order, version, and no cookie of its
    // own; the SSH client refuses the connection, which is an answer as well.
    let client = "n=${DISPLAY#localhost:}; n=${n%.*}; exec 3<>/dev/tcp/127.0.0.1/$((6000+n)); \
        printf 'l\\0\\13\\0\\0\\0\\0\\0\\0\\0\\0\\0' >&3; echo display=$DISPLAY; cat <&3 | head -c 15";
    let mut ssh = server.ssh(&["-Y", "-o", "ForwardX11Timeout=0"]);
    ssh.env("DISPLAY", format!("127.0.0.1:{number}"));
    let output = run(ssh.arg(client)).await;
    let seen = text(&output);
    assert!(seen.contains("display=localhost:1"), "{output:?}");
    let authority = std::fs::read(server.home.path().join(".Xauthority")).unwrap();
    assert!(authority.windows(18).any(|w| w == b"MIT-MAGIC-COOKIE-1"));
    server.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jetbrains_backends_are_recognised() {
    use adit_agent_exec::ConnectionKind;
    if !have(&["ssh"]) {
        return;
    }
    let server = Fixture::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().port();
    // A process with a command line like that of a back end, to which the
    // listener belongs. It need not accept: the kernel does.
    let mut command = Command::new("sleep");
    command
        .arg0("remote-dev-server")
        .arg("600")
        .stdin(OwnedFd::from(listener))
        .kill_on_drop(true);
    let backend = command.spawn().unwrap();
    drop(command);
    let local = free_port();
    let client = forwarding(&server, &["-L", &format!("{local}:127.0.0.1:{target}")]).await;
    let mut counts = server.server.watch_counts();
    let stream = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
    within(counts.wait_for(|c| c.jetbrains == 1)).await.unwrap();
    drop((stream, backend));
    within(counts.wait_for(|c| c.jetbrains == 0)).await.unwrap();
    drop(client);
    let reports = server.reports.ended(2).await;
    let report = reports
        .iter()
        .find(|r| r.kind == ConnectionKind::JetBrains)
        .unwrap();
    assert_eq!(report.ip, "127.0.0.1");
    assert_eq!(report.end, Some((0, "normal close".into())));
}
