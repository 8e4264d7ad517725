//! Round-trip times by an echo of datagrams.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{FAR, Namespace};

const PORT: u16 = 7;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many unanswered ones are too many.
const ATTEMPTS: usize = 10;
/// Time between two of them.
const PAUSE: Duration = Duration::from_millis(20);

/// Sends `count` datagrams from `near` to [`FAR`] in `far`, one at a time.
pub(super) fn measure(near: &Namespace, far: &Namespace, count: usize) -> Result<Vec<Duration>> {
    let server = far
        .enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))?
        .context("open a socket for echoes")?;
    let client = near
        .enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?
        .context("open a socket for echoes")?;
    client.set_read_timeout(Some(PATIENCE))?;
    server.set_read_timeout(Some(Duration::from_millis(100)))?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 64];
            while !done.load(Ordering::Relaxed) {
                if let Ok((length, from)) = server.recv_from(&mut buffer) {
                    let _ = server.send_to(&buffer[..length], from);
                }
            }
        });
        let result = ask(&client, count);
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn ask(client: &UdpSocket, count: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut failures = 0;
    let mut number = 0u64;
    while times.len() < count {
        number += 1;
        let began = Instant::now();
        let answered = client
            .send_to(&number.to_be_bytes(), (FAR, PORT))
            .and_then(|_| {
                loop {
                    let mut buffer = [0; 64];
                    let (length, _) = client.recv_from(&mut buffer)?;
                    if buffer[..length] == number.to_be_bytes() {
                        return Ok(began.elapsed());
                    }
                }
            });
        match answered {
            Ok(time) => times.push(time),
            Err(error) => {
                failures += 1;
                if failures > ATTEMPTS {
                    bail!("no echo from {FAR}: {error}");
                }
            }
        }
        thread::sleep(PAUSE);
    }
    Ok(times)
}
