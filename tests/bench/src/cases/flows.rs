//! Many short flows through the client's `port-forward`.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{
    net::Net,
    subject::{Deployment, WORKSPACE, until},
};

/// Port of the client's side.
const PORT: u16 = 17_000;

/// Flows at a time.
const TOGETHER: usize = 20;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens this many flows, has a kilobyte repeated in each, and closes them.
pub(super) fn churn(net: &Net, deployment: &dyn Deployment, flows: usize) -> Result<()> {
    let listener = net
        .far
        .enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?
        .context("listen for flows")?;
    listener.set_nonblocking(true)?;
    let ports = format!("{PORT}:{}", listener.local_addr()?.port());
    let mut command = deployment.client(&["port-forward", WORKSPACE, "--tcp", &ports]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let mut client = net.near.spawn(&mut command)?;
    let done = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        scope.spawn(move || repeat(stream));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let result = until("the forwarded port", || net.near.enter(one)?).and_then(|()| {
            let workers: Vec<_> = (0..TOGETHER)
                .map(|_| {
                    scope.spawn(|| {
                        net.near
                            .enter(|| (0..flows / TOGETHER).try_for_each(|_| one()))?
                    })
                })
                .collect();
            for worker in workers {
                match worker.join() {
                    Ok(result) => result?,
                    Err(_) => bail!("a thread panicked"),
                }
            }
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        // As a user would end it.
        let _ = killpg(Pid::from_raw(client.id().cast_signed()), Signal::SIGINT);
        thread::sleep(Duration::from_secs(1));
        let _ = client.kill();
        let _ = client.wait();
        result
    });
    result.with_context(|| format!("{} port-forward", deployment.subject()))
}

fn one() -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let sent = [7; 1000];
    stream.write_all(&sent)?;
    let mut back = [0; 1000];
    stream
        .read_exact(&mut back)
        .context("wait for an answer in a flow")?;
    Ok(())
}

fn repeat(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}
