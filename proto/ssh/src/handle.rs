//! What the application holds of a connection and its channels.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::channel::Stream;
use crate::error::Error;
use crate::request::{ChannelId, Global, GlobalAnswer, OpenOut, Refusal, RequestOut};
use crate::session::Session;

/// The channel or the connection is closed.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("channel closed")]
pub struct Gone;

/// Why the peer has no channel for us.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// The peer refused.
    #[error("peer refused: {description} (code {code})")]
    Refused {
        /// RFC 4254 §5.1.
        code: u32,
        /// The peer's words.
        description: String,
    },
    /// Not authenticated yet, or too many channels.
    #[error("no channel can be opened")]
    Unavailable,
    /// The connection ended.
    #[error("connection closed")]
    Gone,
}

/// Shared by the driver and all handles of one connection.
pub(crate) struct Shared {
    state: Mutex<State>,
    driver: AtomicWaker,
    /// Parent of all tokens of channels.
    pub(crate) ended: CancellationToken,
}

pub(crate) struct State {
    pub(crate) session: Session,
    pub(crate) entries: HashMap<ChannelId, Entry>,
    /// An error that a handle ran into; the driver ends with it.
    pub(crate) error: Option<Error>,
    /// Who waits for answers about the connection, in order.
    pub(crate) asked: VecDeque<oneshot::Sender<GlobalAnswer>>,
    dead: bool,
}

/// Who waits for a channel.
pub(crate) struct Entry {
    pub(crate) reader: Option<Waker>,
    pub(crate) writers: Vec<Waker>,
    pub(crate) closed: CancellationToken,
    pub(crate) opening: Option<oneshot::Sender<Result<(), OpenError>>>,
    /// Who waits for answers to requests, in order.
    pub(crate) answers: VecDeque<oneshot::Sender<bool>>,
}

impl Entry {
    /// Moves everybody who waits to `wakers`.
    pub(crate) fn take_all(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.reader.take());
        wakers.append(&mut self.writers);
    }
}

impl Shared {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            state: Mutex::new(State {
                session,
                entries: HashMap::new(),
                error: None,
                asked: VecDeque::new(),
                dead: false,
            }),
            driver: AtomicWaker::new(),
            ended: CancellationToken::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// Does something to the session and has the driver look at the result.
    fn with<T>(&self, work: impl FnOnce(&mut Session) -> Result<T, Error>) -> Option<T> {
        let mut state = self.lock();
        if state.dead {
            return None;
        }
        let result = work(&mut state.session);
        let wake = result.is_err() || state.session.has_output();
        let result = result
            .map_err(|error| state.error.get_or_insert(error))
            .ok();
        drop(state);
        if wake {
            self.driver.wake();
        }
        result
    }

    /// The connection is over: wakes everybody.
    pub(crate) fn end(&self) {
        let mut wakers = Vec::new();
        {
            let mut state = self.lock();
            state.dead = true;
            state.asked.clear();
            for entry in state.entries.values_mut() {
                entry.opening = None;
                entry.answers.clear();
                entry.take_all(&mut wakers);
            }
        }
        self.ended.cancel();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A handle for a channel the session knows.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        state: &mut State,
        id: ChannelId,
        opening: Option<oneshot::Sender<Result<(), OpenError>>>,
    ) -> Channel {
        let closed = self.ended.child_token();
        let entry = Entry {
            reader: None,
            writers: Vec::new(),
            closed: closed.clone(),
            opening,
            answers: VecDeque::new(),
        };
        state.entries.insert(id, entry);
        Channel {
            shared: Arc::clone(self),
            id,
            closed,
        }
    }
}

/// A connection.
#[derive(Clone)]
pub struct Connection(pub(crate) Arc<Shared>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// Asks the peer to open a channel. Dropping the future gives it up.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self, open: &OpenOut) -> Result<Channel, OpenError> {
        let (channel, opened) = self.begin(open)?;
        opened.await?;
        Ok(channel)
    }

    /// Asks the peer to open a channel. The future resolves when it has
    /// answered. Requests made on the channel meanwhile follow as soon as the
    /// protocol allows; data waits.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn begin(
        &self,
        open: &OpenOut,
    ) -> Result<(Channel, impl Future<Output = Result<(), OpenError>> + use<>), OpenError> {
        let (answer_tx, answer) = oneshot::channel();
        let channel = {
            let mut state = self.0.lock();
            if state.dead {
                return Err(OpenError::Gone);
            }
            match state.session.open(open) {
                Ok(Some(id)) => self.0.adopt(&mut state, id, Some(answer_tx)),
                Ok(None) => return Err(OpenError::Unavailable),
                Err(error) => {
                    state.error.get_or_insert(error);
                    drop(state);
                    self.0.driver.wake();
                    return Err(OpenError::Gone);
                }
            }
        };
        self.0.driver.wake();
        let opened = async { answer.await.unwrap_or(Err(OpenError::Gone)) };
        Ok((channel, opened))
    }

    /// Makes a request about the connection; the future resolves to the
    /// answer.
    ///
    /// # Errors
    /// [`Gone`], from either.
    pub fn ask(
        &self,
        request: &Global,
    ) -> Result<impl Future<Output = Result<GlobalAnswer, Gone>> + use<>, Gone> {
        let (answer_tx, answer) = oneshot::channel();
        {
            let mut state = self.0.lock();
            if state.dead {
                return Err(Gone);
            }
            state.asked.push_back(answer_tx);
            if let Err(error) = state.session.ask_global(request) {
                state.error.get_or_insert(error);
            }
        }
        self.0.driver.wake();
        Ok(async { answer.await.map_err(|_| Gone) })
    }

    /// Ends the connection with a farewell.
    pub fn disconnect(&self) {
        self.0.with(|session| {
            session.disconnect("");
            Err::<(), _>(Error::Closed)
        });
    }
}

/// The answer to a request about the connection. Dropping it means failure.
#[derive(Debug)]
pub struct GlobalReply {
    conn: Connection,
    number: Option<u64>,
}

impl GlobalReply {
    pub(crate) fn new(conn: Connection, number: u64) -> Self {
        Self {
            conn,
            number: Some(number),
        }
    }

    /// Answers.
    pub fn answer(mut self, answer: GlobalAnswer) {
        self.give(answer);
    }

    fn give(&mut self, answer: GlobalAnswer) {
        if let Some(number) = self.number.take() {
            self.conn.0.with(|s| s.answer_global(number, answer));
        }
    }
}

impl Drop for GlobalReply {
    fn drop(&mut self) {
        self.give(GlobalAnswer::Failure);
    }
}

/// A channel the peer asks for. Dropping it refuses.
#[derive(Debug)]
pub struct Opening(Option<Channel>);

impl Opening {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(Some(channel))
    }

    /// Our number of the channel.
    #[must_use]
    pub fn id(&self) -> Option<ChannelId> {
        self.0.as_ref().map(Channel::id)
    }

    /// Opens the channel. `None` is not returned unless the connection is
    /// gone.
    #[must_use]
    pub fn accept(mut self) -> Option<Channel> {
        let channel = self.0.take()?;
        channel.shared.with(|s| s.accept(channel.id))?;
        Some(channel)
    }

    /// Refuses.
    pub fn refuse(mut self, why: Refusal, description: &str) {
        self.say_no(why, description);
    }

    /// Resolves once the connection has ended.
    pub async fn closed(&self) {
        if let Some(channel) = &self.0 {
            channel.closed().await;
        }
    }

    fn say_no(&mut self, why: Refusal, description: &str) {
        if let Some(channel) = self.0.take() {
            channel
                .shared
                .with(|s| s.refuse(channel.id, why, description));
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.say_no(Refusal::Prohibited, "");
    }
}

/// An open channel. Dropping it closes it.
pub struct Channel {
    shared: Arc<Shared>,
    id: ChannelId,
    closed: CancellationToken,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Channel").field(&self.id).finish()
    }
}

impl Channel {
    /// Our number of the channel.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// The next piece the peer sent and its stream, or `None` once it has
    /// ended. Taking it lets the peer send more. For one reader. Cancel safe.
    pub async fn recv(&self) -> Option<(Stream, Bytes)> {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            match state.session.read(self.id) {
                Ok(None) => {}
                Ok(Some(piece)) => {
                    if state.session.has_output() {
                        self.shared.driver.wake();
                    }
                    return Poll::Ready(Some(piece));
                }
                Err(error) => {
                    state.error.get_or_insert(error);
                    self.shared.driver.wake();
                    return Poll::Ready(None);
                }
            }
            if state.dead || state.session.input_ended(self.id) {
                return Poll::Ready(None);
            }
            match state.entries.get_mut(&self.id) {
                Some(entry) => {
                    entry.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
                None => Poll::Ready(None),
            }
        })
        .await
    }

    /// Sends data; waits while the peer does not take it. A dropped future
    /// has sent a part.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send(&self, stream: Stream, mut data: Bytes) -> Result<(), Gone> {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            loop {
                if data.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let room = match state.session.room(self.id) {
                    Some(room) if !state.dead => room,
                    _ => return Poll::Ready(Err(Gone)),
                };
                if room == 0 {
                    let Some(entry) = state.entries.get_mut(&self.id) else {
                        return Poll::Ready(Err(Gone));
                    };
                    if !entry.writers.iter().any(|w| w.will_wake(cx.waker())) {
                        entry.writers.push(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
                let part = data.split_to(room.min(data.len()));
                state.session.send(self.id, stream, part);
                self.shared.driver.wake();
            }
        })
        .await
    }

    fn queue(&self, work: impl FnOnce(&mut Session)) -> Result<(), Gone> {
        if self.closed.is_cancelled() {
            return Err(Gone);
        }
        let done = self.shared.with(|session| {
            work(session);
            Ok(())
        });
        done.ok_or(Gone)
    }

    /// Says that no data follows.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn eof(&self) -> Result<(), Gone> {
        self.queue(|session| session.eof(self.id))
    }

    /// Makes a request to which no answer is wanted, after all data.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn request(&self, request: &RequestOut) -> Result<(), Gone> {
        self.queue(|session| session.request(self.id, request, false))
    }

    /// Makes a request; the future resolves to whether it was granted.
    ///
    /// # Errors
    /// [`Gone`], from either.
    pub fn ask(
        &self,
        request: &RequestOut,
    ) -> Result<impl Future<Output = Result<bool, Gone>> + use<>, Gone> {
        let (answer_tx, answer) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.dead {
                return Err(Gone);
            }
            let entry = state.entries.get_mut(&self.id).ok_or(Gone)?;
            entry.answers.push_back(answer_tx);
            state.session.request(self.id, request, true);
        }
        self.shared.driver.wake();
        Ok(async { answer.await.map_err(|_| Gone) })
    }

    /// Closes the channel after all data.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn close(&self) -> Result<(), Gone> {
        self.queue(|session| session.close(self.id))
    }

    /// Drops what the peer has sent and what it will send.
    pub fn discard(&self) {
        self.shared.with(|session| session.discard(self.id));
    }

    /// Resolves once the peer has closed the channel or the connection ended.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// True once the peer has closed the channel or the connection ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Resolves once the connection has ended.
    pub async fn cut(&self) {
        self.shared.ended.cancelled().await;
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // The entry may own the last waker of a task; drop it unlocked.
        let entry = {
            let mut state = self.shared.lock();
            state.session.release(self.id);
            state.entries.remove(&self.id)
        };
        drop(entry);
        self.shared.driver.wake();
    }
}
