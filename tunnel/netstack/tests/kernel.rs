//! Interoperation with the TCP of the Linux kernel: a TUN device in a network
//! namespace of its own, with a lossy link simulated between device and stack.
//! Needs root.
#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit_netstack::{CongestionControl, Event, SocketId, Stack, StackConfig, TcpError, TcpStats};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sched::CloneFlags;
use nix::sys::socket::{setsockopt, sockopt};

const KERNEL: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 1);
const STACK: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 2);

#[expect(unsafe_code, reason = "attaching to a TUN device takes an ioctl")]
mod tun {
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsRawFd;

    nix::ioctl_write_int!(tun_set_iff, b'T', 202);

    /// Makes the device `name` in the current network namespace.
    pub(super) fn open(name: &str) -> std::io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")?;
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        // IFF_TUN | IFF_NO_PI
        request[16..18].copy_from_slice(&0x1001u16.to_ne_bytes());
        // SAFETY: the request is as large as a struct ifreq and outlives the call.
        unsafe { tun_set_iff(file.as_raw_fd(), request.as_ptr() as u64) }?;
        Ok(file)
    }
}

fn pattern(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b1) >> 13) as u8
}

fn fill(offset: u64, buf: &mut [u8]) {
    for (i, byte) in buf.iter_mut().enumerate() {
        *byte = pattern(offset + i as u64);
    }
}

fn check(offset: u64, buf: &[u8]) {
    for (i, byte) in buf.iter().enumerate() {
        assert_eq!(
            *byte,
            pattern(offset + i as u64),
            "at {}",
            offset + i as u64
        );
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    delay: Duration,
    loss: f64,
    duplicate: f64,
    reorder: f64,
}

const CLEAN: Link = Link {
    delay: Duration::ZERO,
    loss: 0.0,
    duplicate: 0.0,
    reorder: 0.0,
};
const ROUGH: Link = Link {
    delay: Duration::from_millis(10),
    loss: 0.01,
    duplicate: 0.01,
    reorder: 0.02,
};

/// What the stack's application does on each of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Reads to the end, then sends the number of bytes.
    Sink,
    /// Sends this many bytes, then closes.
    Source(u64),
}

/// Arrival, number, whether towards the stack, packet.
type InTransit = Reverse<(Instant, u64, bool, Vec<u8>)>;

struct Runner {
    stack: Stack,
    tun: File,
    link: Link,
    role: Role,
    random: u64,
    queue: BinaryHeap<InTransit>,
    count: u64,
    socket: Option<SocketId>,
    moved: u64,
    stats: TcpStats,
}

impl Runner {
    fn chance(&mut self, p: f64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 11) as f64 / (1u64 << 53) as f64) < p
    }

    /// Puts a packet on the link, towards the stack or the kernel.
    fn carry(&mut self, now: Instant, inbound: bool, packet: &[u8]) {
        if self.chance(self.link.loss) {
            return;
        }
        let copies = 1 + usize::from(self.chance(self.link.duplicate));
        for _ in 0..copies {
            let mut at = now + self.link.delay;
            if self.chance(self.link.reorder) {
                at += self.link.delay / 2;
            }
            self.count += 1;
            self.queue
                .push(Reverse((at, self.count, inbound, packet.to_vec())));
        }
    }

    fn run(&mut self, stop: &AtomicBool) {
        let mut buf = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            for _ in 0..64 {
                match self.tun.read(&mut buf) {
                    Ok(n) if self.link.delay.is_zero() => self.stack.handle_packet(now, &buf[..n]),
                    Ok(n) => self.carry(now, true, &buf[..n]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            while self
                .queue
                .peek()
                .is_some_and(|Reverse((at, ..))| *at <= now)
            {
                if let Some(Reverse((_, _, inbound, packet))) = self.queue.pop() {
                    if inbound {
                        self.stack.handle_packet(now, &packet);
                    } else {
                        let _ = self.tun.write(&packet);
                    }
                }
            }
            self.stack.handle_timeout(now);
            loop {
                while let Some(event) = self.stack.poll_event() {
                    self.on_event(now, &event);
                }
                let Some(transmit) = self.stack.poll_transmit(now, &mut buf) else {
                    break;
                };
                if self.link.delay.is_zero() {
                    let _ = self.tun.write(&buf[..transmit.len]);
                } else {
                    self.carry(now, false, &buf[..transmit.len]);
                }
            }
            self.nap();
        }
    }

    fn nap(&self) {
        let timer = self.stack.poll_timeout();
        let link = self.queue.peek().map(|Reverse((at, ..))| *at);
        let until = timer.into_iter().chain(link).min();
        let now = Instant::now();
        let nap = until.map_or(Duration::from_millis(20), |at| {
            at.saturating_duration_since(now)
        });
        let nap = nap.min(Duration::from_millis(20)).as_millis() as u16;
        let mut fds = [PollFd::new(self.tun.as_fd(), PollFlags::POLLIN)];
        let _ = nix::poll::poll(&mut fds, PollTimeout::from(nap));
    }

    fn on_event(&mut self, now: Instant, event: &Event) {
        match *event {
            Event::Incoming { id, .. } => {
                self.stack.accept(now, id).unwrap();
                self.socket = Some(id);
                self.moved = 0;
            }
            Event::Connected(id) | Event::Readable(id) | Event::Writable(id) => self.work(now, id),
            Event::Closed { id, .. } => {
                self.stats = self.stack.tcp_stats(id).unwrap_or(self.stats);
                self.stack.close(now, id);
            }
            _ => {}
        }
    }

    fn work(&mut self, now: Instant, id: SocketId) {
        let mut buf = vec![0; 128 << 10];
        match self.role {
            Role::Sink => loop {
                match self.stack.read(now, id, &mut buf) {
                    Ok(0) => {
                        let report = self.moved.to_be_bytes();
                        assert_eq!(self.stack.write(now, id, &report), Ok(8));
                        self.stack.shutdown_write(now, id).unwrap();
                        return;
                    }
                    Ok(n) => {
                        check(self.moved, &buf[..n]);
                        self.moved += n as u64;
                    }
                    Err(TcpError::WouldBlock) => return,
                    Err(error) => panic!("{error}"),
                }
            },
            Role::Source(total) => {
                while self.moved < total {
                    let len = (total - self.moved).min(buf.len() as u64) as usize;
                    fill(self.moved, &mut buf[..len]);
                    match self.stack.write(now, id, &buf[..len]) {
                        Ok(n) => self.moved += n as u64,
                        Err(TcpError::WouldBlock) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
                let _ = self.stack.shutdown_write(now, id);
            }
        }
    }
}

/// Runs `client` against a stack in a namespace made for it.
fn with_stack(
    link: Link,
    role: Role,
    congestion: CongestionControl,
    connect_to: Option<u16>,
    client: impl FnOnce() + Send + 'static,
) -> Option<TcpStats> {
    let thread = std::thread::spawn(move || {
        if let Err(error) = nix::sched::unshare(CloneFlags::CLONE_NEWNET) {
            return skip(&format!("no network namespace: {error}"));
        }
        let tun = match tun::open("adit0") {
            Ok(tun) => tun,
            Err(error) => return skip(&format!("no TUN device: {error}")),
        };
        for command in [
            "link set lo up".to_owned(),
            "link set adit0 mtu 1280 up".to_owned(),
            "link set adit0 txqueuelen 10000".to_owned(),
            format!("-6 addr add {KERNEL}/64 dev adit0 nodad"),
        ] {
            match Command::new("ip").args(command.split(' ')).status() {
                Ok(status) => assert!(status.success(), "ip {command}"),
                Err(error) => return skip(&format!("no ip command: {error}")),
            }
        }
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&tun, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        assert!(tun.as_raw_fd() >= 0);
        let start = Instant::now();
        let mut config = StackConfig::new(vec![STACK], 7);
        config.tcp.congestion = congestion;
        let mut runner = Runner {
            stack: Stack::new(config, start),
            tun,
            link,
            role,
            random: 0x1234_5678,
            queue: BinaryHeap::new(),
            count: 0,
            socket: None,
            moved: 0,
            stats: TcpStats::default(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let client = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(client));
                // Let the last acknowledgements pass.
                std::thread::sleep(Duration::from_millis(100));
                stop.store(true, Ordering::Relaxed);
                if let Err(panic) = result {
                    std::panic::resume_unwind(panic);
                }
            })
        };
        if let Some(port) = connect_to {
            // The listener is there by then.
            std::thread::sleep(Duration::from_millis(50));
            let remote = SocketAddrV6::new(KERNEL, port, 0, 0);
            runner.stack.connect(Instant::now(), 0, remote).unwrap();
        }
        runner.run(&stop);
        client.join().unwrap();
        Some(runner.stats)
    });
    thread.join().unwrap()
}

fn skip(reason: &str) -> Option<TcpStats> {
    println!("SKIPPED: {reason}");
    assert!(
        std::env::var_os("CI").is_none(),
        "must not be skipped in CI"
    );
    None
}

fn set_congestion(stream: &TcpStream, name: &str) {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    if setsockopt(stream, sockopt::TcpCongestion, &name.to_owned().into()).is_err() {
        println!("kernel has no {name}");
    }
}

fn connect() -> TcpStream {
    TcpStream::connect_timeout(
        &SocketAddrV6::new(STACK, 80, 0, 0).into(),
        Duration::from_secs(10),
    )
    .unwrap()
}

/// Sends `total` bytes and takes the peer's count.
fn upload(mut stream: TcpStream, total: u64) {
    let start = Instant::now();
    let mut buf = vec![0; 64 << 10];
    let mut sent = 0;
    while sent < total {
        let len = (total - sent).min(buf.len() as u64) as usize;
        fill(sent, &mut buf[..len]);
        stream.write_all(&buf[..len]).unwrap();
        sent += len as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut count = [0; 8];
    stream.read_exact(&mut count).unwrap();
    assert_eq!(u64::from_be_bytes(count), total);
    assert_eq!(stream.read(&mut count).unwrap(), 0);
    report("kernel to stack", total, start);
}

fn download(mut stream: TcpStream, total: u64) {
    let start = Instant::now();
    let mut buf = vec![0; 256 << 10];
    let mut got = 0;
    loop {
        let n = stream.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        check(got, &buf[..n]);
        got += n as u64;
    }
    assert_eq!(got, total);
    report("stack to kernel", total, start);
}

fn report(what: &str, total: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let mbit = total as f64 * 8.0 / seconds / 1e6;
    println!("{what}: {mbit:.1} Mbit/s over {seconds:.2} s");
}

#[test]
fn kernel_sends() {
    for (link, total) in [(CLEAN, 100 << 20), (ROUGH, 2 << 20)] {
        for kernel in ["cubic", "bbr"] {
            println!("{link:?} kernel uses {kernel}");
            let stats = with_stack(link, Role::Sink, CongestionControl::Bbr, None, move || {
                let stream = connect();
                set_congestion(&stream, kernel);
                upload(stream, total);
            });
            println!("{stats:?}");
        }
    }
}

#[test]
fn kernel_receives() {
    for (link, total) in [(CLEAN, 100 << 20), (ROUGH, 4 << 20)] {
        for congestion in [CongestionControl::Bbr, CongestionControl::Cubic] {
            println!("{link:?} stack uses {congestion:?}");
            let role = Role::Source(total);
            let stats = with_stack(link, role, congestion, None, move || {
                let stream = connect();
                set_congestion(&stream, "cubic");
                download(stream, total);
            });
            println!("{stats:?}");
        }
    }
}

#[test]
fn the_stack_connects_to_the_kernel() {
    let total = 4 << 20;
    let role = Role::Source(total);
    with_stack(ROUGH, role, CongestionControl::Bbr, Some(5000), move || {
        let listener = TcpListener::bind(SocketAddrV6::new(KERNEL, 5000, 0, 0)).unwrap();
        let (stream, _) = listener.accept().unwrap();
        set_congestion(&stream, "cubic");
        download(stream, total);
    });
}

#[test]
fn a_slow_kernel_reader_closes_and_opens_the_window() {
    let total = 8 << 20;
    let role = Role::Source(total);
    with_stack(CLEAN, role, CongestionControl::Bbr, None, move || {
        let stream = connect();
        set_congestion(&stream, "cubic");
        std::thread::sleep(Duration::from_millis(1500));
        download(stream, total);
    });
}
