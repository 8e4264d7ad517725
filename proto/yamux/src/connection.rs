//! A session over a tokio transport.
//!
//! One task per session moves bytes between the transport and the
//! [`Session`]; handles share the session behind a lock that is never held
//! across an await. The task belongs to the handles: when the last one is
//! dropped, it is aborted and the transport with it.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
    task::AbortHandle,
};

use crate::{
    config::Config,
    driver::Driver,
    error::Error,
    session::{Event, Role, Session},
    stream_io::Stream,
};

/// How long [`Connection::close`] waits for the transport.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Wakers of the tasks that hold the two halves of a stream.
#[derive(Debug, Default)]
pub(crate) struct StreamWakers {
    pub(crate) read: Option<Waker>,
    pub(crate) write: Option<Waker>,
}

/// The session with everyone who waits for it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) session: Session,
    pub(crate) wakers: HashMap<u32, StreamWakers>,
    accept_waker: Option<Waker>,
    open_wakers: Vec<Waker>,
    pings: HashMap<u32, oneshot::Sender<Result<Duration, Error>>>,
    pub(crate) driver_waker: Option<Waker>,
}

impl State {
    /// Wakes whoever waits for what just happened, and the driver.
    pub(crate) fn notify(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Incoming => wake(&mut self.accept_waker),
                Event::CanOpen => self.open_wakers.drain(..).for_each(Waker::wake),
                Event::Readable(id) => {
                    if let Some(wakers) = self.wakers.get_mut(&id) {
                        wake(&mut wakers.read);
                    }
                }
                Event::Writable(id) => {
                    if let Some(wakers) = self.wakers.get_mut(&id) {
                        wake(&mut wakers.write);
                    }
                }
                Event::Pong(id, rtt) => self.answer_ping(id, Ok(rtt)),
                Event::PingLost(id) => self.answer_ping(id, Err(Error::PingTimeout)),
            }
        }
        if let Some(error) = self.session.error() {
            for (_, waiting) in self.pings.drain() {
                // The caller may have stopped waiting.
                let _ = waiting.send(Err(error.clone()));
            }
        }
    }

    pub(crate) fn wake_driver(&mut self) {
        wake(&mut self.driver_waker);
    }

    fn answer_ping(&mut self, id: u32, answer: Result<Duration, Error>) {
        if let Some(waiting) = self.pings.remove(&id) {
            // The caller may have stopped waiting.
            let _ = waiting.send(answer);
        }
    }
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

/// What handles and driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) closed: watch::Sender<Option<Error>>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the driver running.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) shared: Arc<Shared>,
    driver: AbortHandle,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Handle of a session. Clones share the session.
#[derive(Debug, Clone)]
pub struct Connection {
    owner: Arc<Owner>,
}

impl Connection {
    /// Starts a session on the side that dialled. Must be called in a tokio
    /// runtime.
    pub fn client<IO>(io: IO, config: Config) -> (Self, Incoming)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::start(io, Role::Client, config)
    }

    /// Starts a session on the side that listened. Must be called in a tokio
    /// runtime.
    pub fn server<IO>(io: IO, config: Config) -> (Self, Incoming)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::start(io, Role::Server, config)
    }

    fn start<IO>(io: IO, role: Role, config: Config) -> (Self, Incoming)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let write_timeout = config.write_timeout;
        let now = tokio::time::Instant::now().into_std();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                session: Session::new(role, config, now),
                wakers: HashMap::new(),
                accept_waker: None,
                open_wakers: Vec::new(),
                pings: HashMap::new(),
                driver_waker: None,
            }),
            closed: watch::Sender::new(None),
        });
        let driver = tokio::spawn(Driver::new(io, Arc::clone(&shared), write_timeout));
        let owner = Arc::new(Owner {
            shared,
            driver: driver.abort_handle(),
        });
        let incoming = Incoming {
            owner: Arc::clone(&owner),
        };
        (Self { owner }, incoming)
    }

    /// Opens a stream, waiting while too many own streams are not yet
    /// acknowledged. Returns before the peer accepted it.
    ///
    /// # Errors
    /// When the session is over or the peer takes no more streams.
    pub async fn open(&self) -> Result<Stream, Error> {
        let id = poll_fn(|cx| self.poll_open(cx)).await?;
        Ok(Stream::new(Arc::clone(&self.owner), id))
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<Result<u32, Error>> {
        let mut state = self.owner.shared.lock();
        match state.session.open(now()) {
            Ok(Some(id)) => {
                state.wakers.insert(id, StreamWakers::default());
                state.wake_driver();
                Poll::Ready(Ok(id))
            }
            Ok(None) => {
                // Waiters are woken together; duplicates of one task would
                // only cost a spurious wake-up.
                state.open_wakers.push(cx.waker().clone());
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Measures the round trip. Gives up after the write timeout.
    ///
    /// # Errors
    /// [`Error::PingTimeout`] without an answer; the session goes on. Others
    /// when the session is over.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let answer = {
            let mut state = self.owner.shared.lock();
            let id = state.session.ping(now())?;
            let (sender, receiver) = oneshot::channel();
            state.pings.insert(id, sender);
            state.wake_driver();
            receiver
        };
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Waits for the end of the session and returns its reason.
    pub async fn closed(&self) -> Error {
        let mut closed = self.owner.shared.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Error::Closed),
            Err(_) => Error::Closed,
        }
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.owner.shared.lock().session.error().is_some()
    }

    /// Asks the peer not to open streams any more. Existing ones go on.
    pub fn go_away(&self) {
        let mut state = self.owner.shared.lock();
        state.session.go_away();
        state.wake_driver();
    }

    /// Ends the session: streams fail, what was written before is sent as far
    /// as the peer's windows permit, and the transport is shut down. Waits at
    /// most 5 seconds for that.
    pub async fn close(&self) {
        {
            let mut state = self.owner.shared.lock();
            state.session.close(now(), Error::Closed);
            state.notify();
            state.wake_driver();
        }
        // The transport is dropped with the handles even if it does not
        // finish in time.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.closed()).await;
    }
}

/// Streams opened by the peer.
#[derive(Debug)]
pub struct Incoming {
    owner: Arc<Owner>,
}

impl Incoming {
    /// Waits for a stream of the peer and acknowledges it. `None` when the
    /// session is over.
    pub async fn accept(&mut self) -> Option<Stream> {
        let id = poll_fn(|cx| {
            let mut state = self.owner.shared.lock();
            if let Some(id) = state.session.accept() {
                state.wakers.insert(id, StreamWakers::default());
                state.wake_driver();
                return Poll::Ready(Some(id));
            }
            if state.session.error().is_some() {
                return Poll::Ready(None);
            }
            state.accept_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await?;
        Some(Stream::new(Arc::clone(&self.owner), id))
    }

    /// The session the streams belong to.
    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection {
            owner: Arc::clone(&self.owner),
        }
    }
}

/// The runtime's clock, which tests can pause.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
