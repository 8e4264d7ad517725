//! X11 forwarding: a local display whose connections become `x11` channels.
//!
//! Displays are taken from a small range shared by all sessions. When it is
//! used up, the session that used its display longest ago is closed for the
//! new one.

mod xauthority;

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_ssh::OpenOut;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connection::Connection;
use crate::session::X11Request;

/// TCP port of display 0.
const BASE_PORT: u16 = 6000;
/// Displays handed out: high enough to stay clear of real servers.
const FIRST_DISPLAY: u16 = 10;
const LAST_DISPLAY: u16 = 200;
/// Sessions closed, at most, to make room for one.
const EVICTIONS: usize = 10;
/// Time an evicted session has to let go of its port.
const EVICTION_WAIT: Duration = Duration::from_secs(1);

/// Why there is no display.
#[derive(Debug, Error)]
pub(crate) enum X11Error {
    #[error("no free display")]
    Exhausted,
    #[error("the cookie is not hexadecimal")]
    Cookie,
    #[error("write ~/.Xauthority: {0}")]
    Authority(#[source] io::Error),
    #[error("listen: {0}")]
    Listen(#[from] io::Error),
}

impl X11Error {
    /// What failed, for the counter.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Exhausted | Self::Listen(_) => "listen",
            Self::Cookie | Self::Authority(_) => "xauthority",
        }
    }
}

/// The displays in use, least recently used first.
#[derive(Default)]
pub(crate) struct Displays {
    active: Mutex<Vec<Active>>,
    freed: Notify,
}

struct Active {
    display: u16,
    used: Instant,
    evict: CancellationToken,
}

impl Displays {
    /// Binds the first free port of the range.
    fn bind(&self, evict: &CancellationToken) -> Result<Option<(u16, StdListener)>, X11Error> {
        for display in FIRST_DISPLAY..=LAST_DISPLAY {
            match StdListener::bind((Ipv4Addr::LOCALHOST, BASE_PORT + display)) {
                Ok(listener) => {
                    self.active().push(Active {
                        display,
                        used: Instant::now(),
                        evict: evict.clone(),
                    });
                    return Ok(Some((display, listener)));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn touch(&self, display: u16) {
        if let Some(entry) = self.active().iter_mut().find(|a| a.display == display) {
            entry.used = Instant::now();
        }
    }

    fn release(&self, display: u16) {
        self.active().retain(|a| a.display != display);
        self.freed.notify_waiters();
    }

    /// Asks the least recently used session to end and waits a moment for it.
    async fn evict(&self) -> bool {
        let freed = self.freed.notified();
        let victim = {
            let active = self.active();
            let running = active.iter().filter(|a| !a.evict.is_cancelled());
            running.min_by_key(|a| a.used).map(|a| a.evict.clone())
        };
        let Some(victim) = victim else {
            return false;
        };
        victim.cancel();
        let _ = tokio::time::timeout(EVICTION_WAIT, freed).await;
        true
    }

    fn active(&self) -> MutexGuard<'_, Vec<Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's display; closed when dropped.
pub(crate) struct Display {
    name: String,
    evict: CancellationToken,
    _stop: DropGuard,
}

impl Display {
    /// Value of `DISPLAY`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Resolves when the session must end to make room for another.
    pub(crate) async fn evicted(&self) {
        self.evict.cancelled().await;
    }
}

/// Opens a display for a session and notes its cookie in `.Xauthority` below
/// `home`.
pub(crate) async fn open_display(
    conn: &Arc<Connection>,
    request: &X11Request,
    home: &Path,
) -> Result<Display, X11Error> {
    let cookie = xauthority::decode_hex(&request.cookie).ok_or(X11Error::Cookie)?;
    let evict = CancellationToken::new();
    let (display, listener) = bind(conn, &evict).await?;
    let hold = Hold {
        conn: Arc::clone(conn),
        display,
    };
    let entry = xauthority::Entry::local(display, request.protocol.as_bytes(), &cookie);
    let path = home.join(".Xauthority");
    xauthority::add(&path, entry)
        .await
        .map_err(X11Error::Authority)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let token = conn.token.child_token();
    let stop = token.clone().drop_guard();
    conn.tasks
        .spawn(serve(hold, listener, token, request.single_connection));
    Ok(Display {
        name: format!("localhost:{display}.{}", request.screen),
        evict,
        _stop: stop,
    })
}

async fn bind(
    conn: &Connection,
    evict: &CancellationToken,
) -> Result<(u16, StdListener), X11Error> {
    let displays = &conn.server.displays;
    for _ in 0..EVICTIONS {
        if let Some(found) = displays.bind(evict)? {
            return Ok(found);
        }
        if !displays.evict().await {
            break;
        }
    }
    displays.bind(evict)?.ok_or(X11Error::Exhausted)
}

/// Keeps a display registered.
struct Hold {
    conn: Arc<Connection>,
    display: u16,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.conn.server.displays.release(self.display);
    }
}

/// The listener is declared after the hold in the loop's frame, so it is
/// closed before the display counts as free.
async fn serve(hold: Hold, listener: TcpListener, token: CancellationToken, single: bool) {
    let hold = Arc::new(hold);
    let listener = listener;
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, origin)) = accepted else {
            return;
        };
        let _ = stream.set_nodelay(true);
        hold.conn.server.displays.touch(hold.display);
        let task_hold = Arc::clone(&hold);
        hold.conn.tasks.spawn(async move {
            let open = OpenOut::X11 {
                originator: origin.ip().to_string(),
                originator_port: origin.port(),
            };
            match task_hold.conn.open(&open).await {
                Ok(io) => io.relay(stream).await,
                Err(error) => tracing::debug!(%error, "client refused an X11 connection"),
            }
        });
        if single {
            return;
        }
    }
}
