//! Requests that come before a session starts, and those that follow it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use adit_agent_exec::{ConnectionKind, Signal, TerminalModes, WindowSize};
use tokio::sync::{mpsc, watch};

use crate::channel::ChannelIo;

/// Tells which kind of client opened the session; not for the program.
const TYPE_VARIABLE: &str = "CODER_SSH_SESSION_TYPE";
/// Names a target container; sessions inside containers are not offered.
const CONTAINER_VARIABLES: [&str; 2] = ["CODER_CONTAINER", "CODER_CONTAINER_USER"];
/// Signals kept until the program exists.
const SIGNALS: usize = 128;
/// Environment requests a client may make, in entries and in bytes.
const ENV_ENTRIES: usize = 4096;
const ENV_BYTES: usize = 1 << 20;

/// `pty-req`.
#[derive(Debug)]
pub(crate) struct PtyRequest {
    pub(crate) term: String,
    pub(crate) modes: TerminalModes,
}

impl PtyRequest {
    pub(crate) fn new(term: String, modes: Vec<(u8, u32)>) -> Self {
        Self {
            term,
            modes: TerminalModes(modes),
        }
    }
}

/// `x11-req`.
#[derive(Debug)]
pub(crate) struct X11Request {
    pub(crate) single_connection: bool,
    pub(crate) protocol: String,
    /// Hexadecimal digits.
    pub(crate) cookie: String,
    pub(crate) screen: u32,
}

impl X11Request {
    pub(crate) fn new(
        single_connection: bool,
        protocol: String,
        cookie: String,
        screen: u32,
    ) -> Self {
        Self {
            single_connection,
            protocol,
            cookie,
            screen,
        }
    }
}

/// The handler's view of a session channel.
pub(crate) struct Slot {
    setup: Option<Box<Setup>>,
    has_pty: bool,
    size: watch::Sender<WindowSize>,
    signals: mpsc::Sender<Signal>,
}

/// Everything a session starts with.
pub(crate) struct Setup {
    pub(crate) io: ChannelIo,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) pty: Option<PtyRequest>,
    pub(crate) x11: Option<X11Request>,
    pub(crate) size: watch::Receiver<WindowSize>,
    pub(crate) signals: mpsc::Receiver<Signal>,
    env_bytes: usize,
}

impl Slot {
    pub(crate) fn new(io: ChannelIo) -> Self {
        let (signals_tx, signals) = mpsc::channel(SIGNALS);
        let (size_tx, size) = watch::channel(WindowSize::default());
        Self {
            setup: Some(Box::new(Setup {
                io,
                env: Vec::new(),
                pty: None,
                x11: None,
                size,
                signals,
                env_bytes: 0,
            })),
            has_pty: false,
            size: size_tx,
            signals: signals_tx,
        }
    }

    /// The set-up, the first time.
    pub(crate) fn take(&mut self) -> Option<Box<Setup>> {
        self.setup.take()
    }

    pub(crate) fn set_pty(&mut self, request: PtyRequest, cols: u32, rows: u32) -> bool {
        match &mut self.setup {
            Some(setup) if setup.pty.is_none() => {
                setup.pty = Some(request);
                self.has_pty = true;
                self.size.send_replace(window_size(cols, rows));
                true
            }
            _ => false,
        }
    }

    pub(crate) fn resize(&self, cols: u32, rows: u32) -> bool {
        if self.has_pty {
            self.size.send_replace(window_size(cols, rows));
        }
        self.has_pty
    }

    pub(crate) fn set_x11(&mut self, request: X11Request) -> bool {
        match &mut self.setup {
            Some(setup) if setup.x11.is_none() => {
                setup.x11 = Some(request);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn set_env(&mut self, name: Vec<u8>, value: Vec<u8>) -> bool {
        let Some(setup) = &mut self.setup else {
            return false;
        };
        setup.env_bytes += name.len() + value.len();
        if setup.env.len() >= ENV_ENTRIES || setup.env_bytes > ENV_BYTES {
            return false;
        }
        let pair = (OsString::from_vec(name), OsString::from_vec(value));
        setup.env.push(pair);
        true
    }

    /// Names that mean nothing here are treated as KILL. Beyond the buffer
    /// signals are lost, as they are in a kernel.
    pub(crate) fn signal(&self, name: &[u8]) {
        let _ = self.signals.try_send(match name {
            b"ABRT" => Signal::SIGABRT,
            b"ALRM" => Signal::SIGALRM,
            b"FPE" => Signal::SIGFPE,
            b"HUP" => Signal::SIGHUP,
            b"ILL" => Signal::SIGILL,
            b"INT" => Signal::SIGINT,
            b"PIPE" => Signal::SIGPIPE,
            b"QUIT" => Signal::SIGQUIT,
            b"SEGV" => Signal::SIGSEGV,
            b"TERM" => Signal::SIGTERM,
            b"USR1" => Signal::SIGUSR1,
            b"USR2" => Signal::SIGUSR2,
            _ => Signal::SIGKILL,
        });
    }
}

impl Setup {
    /// Removes the variables that are meant for the server and returns the
    /// kind of session they declare.
    pub(crate) fn take_kind(&mut self) -> ConnectionKind {
        let declared = self.env.iter().rfind(|(n, _)| n == TYPE_VARIABLE);
        let declared = declared.map(|(_, v)| v.to_string_lossy().to_ascii_lowercase());
        self.env
            .retain(|(n, _)| n != TYPE_VARIABLE && !CONTAINER_VARIABLES.iter().any(|c| n == c));
        match declared.as_deref() {
            None | Some("" | "ssh") => ConnectionKind::Ssh,
            Some("vscode") => ConnectionKind::VsCode,
            Some("jetbrains") => ConnectionKind::JetBrains,
            Some(other) => {
                tracing::warn!(kind = other, "unknown kind of SSH session");
                ConnectionKind::Unspecified
            }
        }
    }
}

fn window_size(cols: u32, rows: u32) -> WindowSize {
    let clip = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    WindowSize {
        cols: clip(cols),
        rows: clip(rows),
    }
}
