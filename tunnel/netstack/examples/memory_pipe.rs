//! Throughput of two stacks joined in memory, on one thread:
//! `cargo run --release -p adit-netstack --example memory_pipe [seconds] [mtu] [batch]`.
//!
//! Prints payload throughput and the time per data segment, both ends together.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use adit_netstack::{Event, SocketId, Stack, StackConfig, TcpError};
use bytes::Bytes;

fn argument<T: std::str::FromStr>(n: usize, default: T) -> T {
    std::env::args()
        .nth(n)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(default)
}

/// Moves up to `batch` packets; returns how many.
fn carry(now: Instant, from: &mut Stack, to: &mut Stack, batch: usize, buf: &mut [u8]) -> usize {
    for count in 0..batch {
        let Some(transmit) = from.poll_transmit(now, buf) else {
            return count;
        };
        to.handle_packet(now, &buf[..transmit.len]);
    }
    batch
}

fn main() -> Result<(), TcpError> {
    let seconds = argument(1, 3u64);
    let mtu = argument(2, 1280usize);
    let batch = argument(3, 64usize);
    for verify in [true, false] {
        run(Duration::from_secs(seconds), mtu, batch, verify)?;
    }
    Ok(())
}

fn run(time: Duration, mtu: usize, batch: usize, verify: bool) -> Result<(), TcpError> {
    let start = Instant::now();
    let address = |n: u16| Ipv6Addr::new(0xfd7a, 0, 0, 0, 0, 0, 0, n);
    let stack = |n: u16| {
        let mut config = StackConfig::new(vec![address(n)], u64::from(n));
        config.mtu = mtu;
        config.verify_checksums = verify;
        Stack::new(config, start)
    };
    let (mut a, mut b) = (stack(1), stack(2));
    let id = a.connect(start, 0, SocketAddrV6::new(address(2), 80, 0, 0))?;
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let mut pending = chunk.clone();
    let mut receiver: Option<SocketId> = None;
    let mut sink = vec![0; 256 << 10];
    let mut buf = vec![0; 9216];
    let mut received = 0u64;
    let mut data_segments = 0u64;
    loop {
        let now = Instant::now();
        if now - start > time {
            break;
        }
        a.handle_timeout(now);
        b.handle_timeout(now);
        while let Ok(n) = a.write_bytes(now, id, &mut pending) {
            if n == 0 || pending.is_empty() {
                pending = chunk.clone();
            }
        }
        data_segments += carry(now, &mut a, &mut b, batch, &mut buf) as u64;
        if let Some(id) = receiver {
            while let Ok(n) = b.read(now, id, &mut sink) {
                received += n as u64;
            }
        }
        carry(now, &mut b, &mut a, batch, &mut buf);
        while let Some(event) = b.poll_event() {
            if let Event::Incoming { id, .. } = event {
                b.accept(now, id)?;
                receiver = Some(id);
            }
        }
        while a.poll_event().is_some() {}
    }
    let took = start.elapsed();
    let gbit = received as f64 * 8.0 / took.as_secs_f64() / 1e9;
    let nanos = took.as_nanos() as f64 / data_segments.max(1) as f64;
    println!(
        "mtu {mtu}, batch {batch}, checksums {}: {gbit:.2} Gbit/s, {nanos:.0} ns per data segment",
        if verify { "verified" } else { "not verified" },
    );
    if let Some(stats) = a.tcp_stats(id) {
        println!("  {stats:?}");
    }
    Ok(())
}
