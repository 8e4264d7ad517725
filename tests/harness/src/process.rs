//! A child process that never outlives its test.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::wait::until;

/// A running program, in a process group of its own. Dropping it kills the
/// whole group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error in the file `log`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command, log: &Path) -> Self {
        use std::os::unix::process::CommandExt as _;
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("open {}: {error}", log.display()));
        let err = out.try_clone().expect("duplicate the log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// All that it has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map_or_else(
            |error| format!("({}: {error})", self.log.display()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.pid(), signal);
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it takes longer than [`crate::PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        let log = self.log.clone();
        until("the process to end", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("still running; its log is {}", log.display())),
            Err(error) => Err(error.to_string()),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end and returns its output, killing it after
/// `limit`.
///
/// # Panics
/// If it cannot be started, or runs too long.
#[must_use]
pub fn run(command: &mut Command, limit: Duration) -> Output {
    command.stdout(Stdio::piped());
    run_into(command, limit)
}

/// Runs `command` as [`run`] does, with its standard output where the caller
/// has put it.
///
/// # Panics
/// If it cannot be started, or runs too long.
#[must_use]
pub fn run_into(command: &mut Command, limit: Duration) -> Output {
    use std::os::unix::process::CommandExt as _;
    command.stderr(Stdio::piped()).process_group(0);
    let description = format!("{command:?}");
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("start {description}: {error}"));
    let group = Pid::from_raw(child.id().cast_signed());
    let (done, watch) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let late = watch.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            let _ = killpg(group, Signal::SIGKILL);
        }
        late
    });
    let output = child.wait_with_output();
    drop(done);
    let late = watchdog.join().unwrap_or(true);
    let output = output.unwrap_or_else(|error| panic!("wait for {description}: {error}"));
    assert!(
        !late,
        "{description} ran longer than {limit:?}\nstdout: {}\nstderr: {}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Processes whose command line contains `text`, by id.
#[must_use]
pub fn processes_with(text: &str) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| contains(&line, text.as_ref()))
                && *pid != std::process::id().cast_signed()
        })
        .collect()
}

fn contains(haystack: &[u8], needle: &OsStr) -> bool {
    let needle = needle.as_encoded_bytes();
    !needle.is_empty()
        && haystack
            .windows(needle.len())
            .any(|window| window == needle)
}
