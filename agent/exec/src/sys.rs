//! The system calls for which no safe wrapper exists in our dependencies.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;

use crate::pty::WindowSize;

/// Highest classic signal number; dispositions of real-time signals are left
/// alone.
const LAST_SIGNAL: libc::c_int = 31;

/// Makes the child lead a new session; with `terminal`, its standard input
/// (already the terminal by then) becomes the controlling terminal.
///
/// The child also starts with default signal dispositions – an agent started
/// under `nohup` must not pass that on – and with every descriptor beyond the
/// standard three marked close-on-exec, whoever opened it.
pub(crate) fn lead_session(command: &mut std::process::Command, terminal: bool) {
    let prepare = move || {
        for signal in 1..=LAST_SIGNAL {
            // SAFETY: signal(2) is async-signal-safe; it fails harmlessly for
            // the two signals whose disposition is fixed.
            #[expect(
                unsafe_code,
                reason = "no safe wrapper is async-signal-safe by contract"
            )]
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        nix::unistd::setsid().map_err(io::Error::from)?;
        if terminal {
            // SAFETY: TIOCSCTTY takes an integer and touches no memory.
            #[expect(unsafe_code, reason = "ioctl without a safe wrapper in nix")]
            let done = unsafe { libc::ioctl(0, libc::TIOCSCTTY as _, 0) };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        close_range_on_exec();
        Ok(())
    };
    // SAFETY: the closure only makes async-signal-safe system calls and does
    // not allocate.
    #[expect(
        unsafe_code,
        reason = "setsid and TIOCSCTTY must run between fork and exec"
    )]
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Marks all descriptors from 3 on close-on-exec; older kernels refuse, which
/// is fine because our own descriptors carry the mark already.
fn close_range_on_exec() {
    #[cfg(target_os = "linux")]
    {
        const FIRST: libc::c_uint = 3;
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        // SAFETY: the call changes descriptor flags only.
        #[expect(unsafe_code, reason = "close_range has no wrapper in nix")]
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                FIRST,
                libc::c_uint::MAX,
                CLOSE_RANGE_CLOEXEC,
            );
        }
    }
}

/// Tells the terminal its size; the kernel sends SIGWINCH if it changed.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
    let raw = libc::winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `raw` is a valid winsize that outlives the call.
    #[expect(unsafe_code, reason = "ioctl without a safe wrapper in nix")]
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const raw) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads the size of the terminal.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> io::Result<WindowSize> {
    let mut raw = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `raw` is a valid winsize that outlives the call.
    #[expect(unsafe_code, reason = "ioctl without a safe wrapper in nix")]
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut raw) };
    if done == 0 {
        Ok(WindowSize {
            cols: raw.ws_col,
            rows: raw.ws_row,
        })
    } else {
        Err(io::Error::last_os_error())
    }
}
