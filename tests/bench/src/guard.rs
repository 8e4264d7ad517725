//! Cleans up after a run that ended in whatever way, a kill included: a second
//! process waits for the first to be gone and then removes its namespaces,
//! with all that runs in them, its database and its files. And ends what takes
//! too long.

use std::{
    fs,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{net, subject};

/// The watching process. It starts to clean up once this is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
    /// Open as long as this process lives.
    alive: Option<ChildStdin>,
}

impl Guard {
    /// Starts it. `dir` is removed with everything in it.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("find this program")?)
            .arg("guard")
            .arg("--of")
            .arg(std::process::id().to_string())
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::piped())
            // A Ctrl-C is not meant for it.
            .process_group(0)
            .spawn()
            .context("start the clean-up process")?;
        let alive = child.stdin.take();
        Ok(Self { child, alive })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = self.child.wait();
    }
}

/// The watching process itself.
pub(crate) fn watch(of: u32, dir: &PathBuf) {
    let mut nothing = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut nothing);
    for name in net::with_prefix(&net::prefix(of)) {
        net::remove(&name);
    }
    subject::drop_database(of);
    let _ = fs::remove_dir_all(dir);
}

/// Ends every program in this run's namespaces when something takes too long,
/// so that whoever waits for one of them goes on.
#[derive(Debug)]
pub(crate) struct Watchdog {
    stop: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    pub(crate) fn start(limit: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            if stopped.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
                return false;
            }
            eprintln!("not done after {limit:?}: ending its programs");
            // What is tried again meanwhile is ended, too.
            loop {
                for name in net::with_prefix(&net::prefix(std::process::id())) {
                    net::kill_all(&name);
                }
                if stopped.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
                    return true;
                }
            }
        });
        Self { stop, thread }
    }

    /// Whether it had to act.
    pub(crate) fn end(self) -> bool {
        drop(self.stop);
        self.thread.join().unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_acts_only_when_time_is_up() {
        assert!(!Watchdog::start(Duration::from_secs(3600)).end());
        let watchdog = Watchdog::start(Duration::ZERO);
        // It has no way to tell that it began.
        thread::sleep(Duration::from_millis(200));
        assert!(watchdog.end());
    }
}
