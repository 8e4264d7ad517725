//! Pseudo terminals, driven by the runtime's poller.
//!
//! Dropping the master hangs the terminal up (SIGHUP to its foreground
//! group). Nothing is ever typed on its behalf: a half-typed command line is
//! discarded, not executed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, unlockpt};
use nix::sys::stat::Mode;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::modes::TerminalModes;
use crate::sys;

/// Size of a terminal in characters. Zeros are passed on as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowSize {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// The master side of a terminal. Clones share it; the terminal hangs up when
/// the last clone, [`PtyReader`] and [`PtyWriter`] are gone.
#[derive(Debug, Clone)]
pub struct Pty {
    master: Arc<AsyncFd<OwnedFd>>,
    path: Arc<Path>,
}

impl Pty {
    /// Opens a terminal of the given size with `modes` applied. Returns the
    /// master and the slave; the slave must be dropped once the process that
    /// uses it has been started, or the end of output is never seen.
    ///
    /// # Errors
    /// The system's error if there is no terminal to be had; also if called
    /// outside a runtime with IO enabled.
    pub fn open(size: WindowSize, modes: &TerminalModes) -> io::Result<(Self, OwnedFd)> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let master = posix_openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = PathBuf::from(nix::pty::ptsname_r(&master)?);
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let slave = nix::fcntl::open(&path, flags, Mode::empty())?;
        sys::set_window_size(slave.as_fd(), size)?;
        modes.apply(slave.as_fd())?;
        let pty = Self {
            master: Arc::new(register(master.into())?),
            path: path.into(),
        };
        Ok((pty, slave))
    }

    /// Path of the terminal device, as in `SSH_TTY`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the size.
    ///
    /// # Errors
    /// The system's error; the terminal may be gone.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        sys::set_window_size(self.fd(), size)
    }

    /// The present size.
    ///
    /// # Errors
    /// The system's error; the terminal may be gone.
    pub fn size(&self) -> io::Result<WindowSize> {
        sys::window_size(self.fd())
    }

    /// Reads what processes write to the terminal. At most one reader should
    /// be in use at a time.
    #[must_use]
    pub fn reader(&self) -> PtyReader {
        PtyReader(Arc::clone(&self.master))
    }

    /// Types into the terminal. At most one writer should be in use at a time.
    #[must_use]
    pub fn writer(&self) -> PtyWriter {
        PtyWriter(Arc::clone(&self.master))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.master.get_ref().as_fd()
    }
}

/// Registers the master with the poller of the current runtime.
fn register(master: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `AsyncFd` owns the descriptor; nothing closes or replaces it
    // before the `AsyncFd` is dropped.
    #[expect(
        unsafe_code,
        reason = "AsyncFd asks its caller to vouch for the descriptor"
    )]
    let registered = unsafe { AsyncFd::register(master) };
    registered.map_err(io::Error::from)
}

/// Output of the terminal. The end of output (no process has the terminal
/// open any more) is a read of zero bytes.
#[derive(Debug)]
pub struct PtyReader(Arc<AsyncFd<OwnedFd>>);

impl AsyncRead for PtyReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let into = buf.initialize_unfilled();
            match ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), into)?)) {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_not_ready) => {}
            }
        }
    }
}

/// Input of the terminal. Shutting it down does nothing: end-of-file on a
/// terminal is a character, and only the user types.
#[derive(Debug)]
pub struct PtyWriter(Arc<AsyncFd<OwnedFd>>);

impl AsyncWrite for PtyWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), buf)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_not_ready) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
