//! Being PID 1 of a container.
//!
//! The first process of a container inherits every orphan. It therefore runs
//! the real agent as a child, reaps whatever ends, passes stop signals on and
//! ends as the child does.

use std::process::{Command, ExitCode};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid, setsid};

/// Whether this process has to reap.
pub(crate) fn is_needed(no_reap: bool) -> bool {
    cfg!(target_os = "linux") && !no_reap && getpid().as_raw() == 1
}

fn handled() -> SigSet {
    SigSet::from_iter([
        Signal::SIGCHLD,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
    ])
}

/// Called where the agent itself runs. The reaper's blocked signals are
/// inherited and have to be opened before anything else is started; and it
/// leaves the reaper's session, so that a terminal's signals come through the
/// reaper only.
pub(crate) fn detach_child(no_reap: bool) {
    let _ = handled().thread_unblock();
    if no_reap && getppid().as_raw() == 1 {
        // Fails if it already leads a group, which is as good.
        let _ = setsid();
    }
}

/// Runs the agent as a child until it ends.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let signals = handled();
    // Blocked, they wait for `wait` below.
    signals.thread_block().context("cannot block signals")?;
    let mut args = std::env::args_os();
    let program = args.next().context("no program name")?;
    let program = std::env::current_exe().unwrap_or_else(|_| program.into());
    let child = Command::new(program)
        .args(args)
        .arg("--no-reap")
        .spawn()
        .context("cannot start the agent below the reaper")?;
    let child = Pid::from_raw(i32::try_from(child.id()).context("process id")?);
    loop {
        if let Some(code) = reap(child) {
            return Ok(code);
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                let _ = kill(child, signal);
            }
        }
    }
}

/// Reaps everything that ended; the exit code if the agent is among it.
fn reap(child: Pid) -> Option<ExitCode> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                return Some(exit_code(code));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                return Some(exit_code(128 + signal as i32));
            }
            Ok(WaitStatus::StillAlive) => return None,
            Err(nix::errno::Errno::EINTR) | Ok(_) => {}
            Err(_) => return Some(ExitCode::FAILURE),
        }
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_processes_do_not_reap() {
        assert!(!is_needed(false));
        assert!(!is_needed(true));
    }
}
