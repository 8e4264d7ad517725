//! Moves the packets of a link between its two devices, on one thread.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
    unistd::gettid,
};

use super::{Counters, Settings, model::Direction};

/// Larger than any packet of a TUN device.
const PACKET: usize = 65_536;

/// Packets read from one device before the other has its turn.
const BATCH: usize = 64;

/// Real-time priority of the thread: its punctuality is what is being sold,
/// and it uses little time.
const PRIORITY: &str = "20";

/// A running link. Dropping it takes the devices away.
#[derive(Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// From the first device to the second, and back.
    directions: Mutex<[Direction; 2]>,
    wake: EventFd,
    stop: AtomicBool,
    /// Packets a device refused, for it was down.
    refused: AtomicU64,
    /// Packets delivered more than a millisecond late.
    late: AtomicU64,
}

impl Shared {
    fn directions(&self) -> MutexGuard<'_, [Direction; 2]> {
        self.directions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Joins two devices. `settings` are of the direction from the first to
    /// the second, and of the way back.
    pub(crate) fn start(devices: [File; 2], settings: [Settings; 2], seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared {
            directions: Mutex::new([
                Direction::new(settings[0], seed),
                Direction::new(settings[1], seed ^ 0x5555_5555_5555_5555),
            ]),
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
                .context("make an event descriptor")?,
            stop: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            late: AtomicU64::new(0),
        });
        let thread = std::thread::Builder::new().name("link".into()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                be_punctual();
                if let Err(error) = carry(&shared, &devices) {
                    eprintln!("the link failed: {error}");
                }
            }
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Treats later packets differently.
    pub(crate) fn set(&self, settings: [Settings; 2]) {
        let mut directions = self.shared.directions();
        for (direction, settings) in directions.iter_mut().zip(settings) {
            direction.set(settings);
        }
    }

    /// What happened so far, from the first to the second device and back.
    pub(crate) fn counters(&self) -> [Counters; 2] {
        let directions = self.shared.directions();
        [directions[0].counters(), directions[1].counters()]
    }

    /// Packets that were delivered more than a millisecond late: more than a
    /// few mean that the machine was too busy for the settings.
    pub(crate) fn late(&self) -> u64 {
        self.shared.late.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks for exact timers and to be run at once when something is due.
fn be_punctual() {
    let _ = nix::sys::prctl::set_timerslack(1);
    let done = Command::new("chrt")
        .args(["--fifo", "--pid", PRIORITY, &gettid().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !done.is_ok_and(|status| status.success()) {
        eprintln!("note: the link has no real-time priority and may be late on a busy machine");
    }
}

fn carry(shared: &Shared, devices: &[File; 2]) -> io::Result<()> {
    let mut buffer = vec![0; PACKET];
    while !shared.stop.load(Ordering::Acquire) {
        let next = {
            let mut directions = shared.directions();
            for (number, direction) in directions.iter_mut().enumerate() {
                take(&devices[number], direction, &mut buffer)?;
                deliver(&devices[1 - number], direction, shared);
            }
            directions.iter().filter_map(Direction::next).min()
        };
        let wait = next.map(|at| at.saturating_duration_since(Instant::now()));
        if wait == Some(Duration::ZERO) {
            continue;
        }
        let mut ready = [
            PollFd::new(devices[0].as_fd(), PollFlags::POLLIN),
            PollFd::new(devices[1].as_fd(), PollFlags::POLLIN),
            PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        match ppoll(&mut ready, wait.map(TimeSpec::from), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads what a device has.
fn take(device: &File, direction: &mut Direction, buffer: &mut [u8]) -> io::Result<()> {
    let mut device = device;
    for _ in 0..BATCH {
        match device.read(buffer) {
            Ok(length) => direction.push(Instant::now(), &buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // EBADFD: the device went away with its namespace; EIO: it is down.
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("read from device {}: {error}", device.as_raw_fd()),
                ));
            }
        }
    }
    Ok(())
}

/// Writes what has arrived.
fn deliver(device: &File, direction: &mut Direction, shared: &Shared) {
    let now = Instant::now();
    let mut device = device;
    while let Some(due) = direction.next() {
        let delivered = direction.pop(now, |packet| {
            if device.write(packet).is_err() {
                shared.refused.fetch_add(1, Ordering::Relaxed);
            }
            if now.saturating_duration_since(due) > Duration::from_millis(1) {
                shared.late.fetch_add(1, Ordering::Relaxed);
            }
        });
        if !delivered {
            break;
        }
    }
}
