//! The local terminal during a session.

#[cfg(not(unix))]
pub(crate) use other::{RawMode, resized, size};
#[cfg(unix)]
pub(crate) use unix::{RawMode, resized, size};

/// Columns and rows where the terminal does not say.
pub(crate) const DEFAULT_SIZE: (u32, u32) = (80, 24);

#[cfg(unix)]
mod unix {
    use std::io;

    use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

    use super::DEFAULT_SIZE;

    /// Raw mode until dropped.
    #[derive(Debug)]
    pub(crate) struct RawMode(Termios);

    impl RawMode {
        /// Enters raw mode; `None` if standard input is no terminal.
        pub(crate) fn enter() -> Option<Self> {
            let before = tcgetattr(io::stdin()).ok()?;
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).ok()?;
            Some(Self(before))
        }
    }

    impl Drop for RawMode {
        fn drop(&mut self) {
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
        }
    }

    mod ioctl {
        #![expect(
            unsafe_code,
            reason = "the size of a terminal is only told by an ioctl"
        )]
        nix::ioctl_read_bad!(get_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);

        pub(super) fn size() -> Option<(u32, u32)> {
            let mut size = nix::libc::winsize {
                ws_row: 0,
                ws_col: 0,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // SAFETY: the pointer is to a live winsize, which the kernel fills.
            unsafe { get_size(nix::libc::STDOUT_FILENO, &raw mut size) }.ok()?;
            Some((size.ws_col.into(), size.ws_row.into()))
        }
    }

    /// Columns and rows.
    pub(crate) fn size() -> (u32, u32) {
        ioctl::size()
            .filter(|(columns, rows)| *columns > 0 && *rows > 0)
            .unwrap_or(DEFAULT_SIZE)
    }

    /// Completes each time the window has changed.
    pub(crate) fn resized() -> impl FnMut() -> futures_util::future::BoxFuture<'static, ()> {
        use std::sync::Arc;
        use tokio::{
            signal::unix::{SignalKind, signal},
            sync::Mutex,
        };
        let changes = signal(SignalKind::window_change())
            .ok()
            .map(|changes| Arc::new(Mutex::new(changes)));
        move || {
            let changes = changes.clone();
            Box::pin(async move {
                match changes {
                    Some(changes) => {
                        changes.lock().await.recv().await;
                    }
                    None => std::future::pending().await,
                }
            })
        }
    }
}

#[cfg(not(unix))]
mod other {
    #[derive(Debug)]
    pub(crate) struct RawMode;

    impl RawMode {
        pub(crate) fn enter() -> Option<Self> {
            None
        }
    }

    pub(crate) fn size() -> (u32, u32) {
        super::DEFAULT_SIZE
    }

    pub(crate) fn resized() -> impl FnMut() -> futures_util::future::BoxFuture<'static, ()> {
        || Box::pin(std::future::pending())
    }
}
