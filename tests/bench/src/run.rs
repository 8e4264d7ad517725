//! Runs a program to its end and takes its time and its processor time,
//! children included.

use std::{
    collections::BTreeMap,
    io::Read,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use crate::{net::Namespace, proc};

/// How often processor time is looked at: for processes that are not waited
/// for by their parent, what they use after the last look is missed.
const LOOK: Duration = Duration::from_millis(100);

/// The most of standard error that is kept.
const STDERR_LIMIT: usize = 64 << 10;

/// What to do with standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Keep it.
    Keep,
    /// Count the bytes only.
    Count,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// From start to end.
    pub(crate) elapsed: Duration,
    /// Of all processes in its process group.
    pub(crate) cpu: Duration,
    pub(crate) stdout: Vec<u8>,
    /// Length of standard output.
    pub(crate) bytes: u64,
    pub(crate) stderr: String,
    /// It took too long and was killed.
    pub(crate) late: bool,
}

impl Finished {
    /// Itself, if the program ended well.
    pub(crate) fn ok(self) -> Result<Self> {
        if self.late {
            bail!(
                "killed after {:.0} s; standard error ended with: {}",
                self.elapsed.as_secs_f64(),
                tail(&self.stderr)
            );
        }
        if !self.status.success() {
            bail!("{}: {}", self.status, tail(&self.stderr));
        }
        Ok(self)
    }
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}

/// Runs `command` in `namespace`, at most for `limit`.
pub(crate) fn run(
    namespace: &Namespace,
    command: &mut Command,
    output: Output,
    limit: Duration,
) -> Result<Finished> {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let began = Instant::now();
    let mut child = namespace.spawn(command)?;
    let pid = child.id().cast_signed();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let result = thread::scope(|scope| {
        let stdout = scope.spawn(move || stdout.map(|from| collect(from, output)));
        let stderr = scope.spawn(move || stderr.map(|from| collect(from, Output::Keep)));
        let (ended, watch) = mpsc::channel::<()>();
        let watcher = scope.spawn(move || watch_group(pid, began, limit, &watch));
        // It stays in the process table until its processor time was read.
        let waited = wait_leaving(pid);
        let elapsed = began.elapsed();
        drop(ended);
        let (cpu, late) = watcher.join().unwrap_or_default();
        // Nothing of its group outlives it; this also closes the pipes.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        let (kept, bytes) = stdout.join().ok().flatten().unwrap_or_default();
        let (errors, _) = stderr.join().ok().flatten().unwrap_or_default();
        waited.map(|()| (elapsed, cpu, late, kept, bytes, errors))
    });
    let status = reap(&mut child);
    let (elapsed, cpu, late, stdout, bytes, errors) = result?;
    Ok(Finished {
        status: status?,
        elapsed,
        cpu,
        stdout,
        bytes,
        stderr: String::from_utf8_lossy(&errors[..errors.len().min(STDERR_LIMIT)]).into_owned(),
        late,
    })
}

fn reap(child: &mut Child) -> Result<ExitStatus> {
    child.wait().context("wait for a program")
}

fn wait_leaving(pid: i32) -> Result<()> {
    loop {
        match waitid(
            Id::Pid(Pid::from_raw(pid)),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for a program"),
        }
    }
}

/// Adds up the processor time of a process group until told to stop, and kills
/// it when it takes too long; whether it did.
fn watch_group(
    group: i32,
    began: Instant,
    limit: Duration,
    watch: &mpsc::Receiver<()>,
) -> (Duration, bool) {
    let mut seen = BTreeMap::new();
    let mut late = false;
    loop {
        let stop = watch.recv_timeout(LOOK) != Err(mpsc::RecvTimeoutError::Timeout);
        for pid in proc::pids() {
            if let Some(stat) = proc::stat(pid)
                && stat.group == group
            {
                seen.insert(pid, stat.cpu);
            }
        }
        if stop {
            return (seen.values().sum(), late);
        }
        if began.elapsed() > limit {
            late = true;
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

fn collect(mut from: impl Read, output: Output) -> (Vec<u8>, u64) {
    let mut kept = Vec::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 256 << 10];
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 {
            break;
        }
        bytes += length as u64;
        if output == Output::Keep {
            kept.extend_from_slice(&buffer[..length]);
        }
    }
    (kept, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_text() {
        assert_eq!(tail("1\n2\n3\n4\n5\n"), "2 / 3 / 4 / 5");
        assert_eq!(tail("1"), "1");
        assert_eq!(tail(""), "");
    }

    #[test]
    fn output_is_kept_or_counted() {
        let text = vec![1; 1_000_000];
        assert_eq!(collect(&text[..], Output::Count), (Vec::new(), 1_000_000));
        assert_eq!(collect(&text[..], Output::Keep).0.len(), 1_000_000);
    }

    #[test]
    fn processor_time_of_a_group_is_seen_and_time_is_limited() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]).process_group(0);
        let mut child = command.spawn().unwrap();
        let (_open, watch) = mpsc::channel();
        let pid = child.id().cast_signed();
        let watcher =
            thread::spawn(move || watch_group(pid, Instant::now(), Duration::from_secs(1), &watch));
        assert!(wait_leaving(pid).is_ok());
        child.wait().unwrap();
        drop(_open);
        let (cpu, late) = watcher.join().unwrap();
        assert!(late);
        assert!(cpu > Duration::ZERO, "{cpu:?}");
    }
}
