//! Runs a session on a byte stream.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use crate::config::Config;
use crate::error::Error;
use crate::handle::{Connection, GlobalReply, OpenError, Opening, Shared};
use crate::random::SystemRandom;
use crate::request::{ChannelId, Global, Open, Request};
use crate::session::{Event, Session};

/// Input is read in pieces of this size, growing while they are filled.
const SMALLEST_READ: usize = 4 << 10;
const LARGEST_READ: usize = 128 << 10;
/// An output buffer larger than this is given back when idle.
const KEPT_OUTPUT: usize = 16 << 10;
/// Turns of reading and writing before other tasks get theirs.
const TURNS: usize = 16;
/// Time for a farewell.
const FAREWELL: Duration = Duration::from_secs(1);
/// A timer that is not needed now is set this far.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// The application of one connection. Its methods are called by the task of
/// the connection, so they must not wait.
pub trait Handler: Send {
    /// The client may use the connection from now on. The name is empty for
    /// the client itself.
    fn authenticated(&mut self, conn: &Connection, user: &[u8]);

    /// The peer wants a channel.
    fn open(&mut self, opening: Opening, open: Open);

    /// A request on a channel; returns whether it is granted.
    fn request(&mut self, id: ChannelId, request: Request) -> bool;

    /// A client's request about the connection.
    fn global(&mut self, reply: GlobalReply, request: Global);

    /// The peer closed a channel.
    fn closed(&mut self, id: ChannelId);
}

/// Serves one connection to its end. Dropping the future cuts it.
///
/// # Errors
/// Whatever ended the connection, unless the peer closed the stream.
pub async fn serve<IO, H>(io: IO, config: Arc<Config>, handler: H) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let (_, end) = connect(io, config, handler)?;
    end.await
}

/// Begins a connection. What is asked of the connection goes out while the
/// future is polled, which resolves when the connection has ended; dropping it
/// cuts the connection. What is asked before it is polled first goes out with
/// the least number of round trips.
///
/// # Errors
/// [`Error::Crypto`] without randomness. The future's: whatever ended the
/// connection, unless the peer closed the stream.
pub fn connect<IO, H>(
    io: IO,
    config: Arc<Config>,
    handler: H,
) -> Result<(Connection, impl Future<Output = Result<(), Error>>), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let session = Session::new(config, Box::new(SystemRandom), now())?;
    let shared = Arc::new(Shared::new(session));
    let conn = Connection(Arc::clone(&shared));
    let end = End(Arc::clone(&shared));
    let mut driver = Driver {
        io,
        conn: conn.clone(),
        shared,
        handler,
        input: BytesMut::new(),
        read_size: SMALLEST_READ,
        backlog: false,
        output: Vec::new(),
        written: 0,
        unflushed: false,
        timer: Box::pin(tokio::time::sleep(FAR)),
        events: Vec::new(),
        wakers: Vec::new(),
    };
    let drive = async move {
        let _end = end;
        let result = poll_fn(|cx| driver.poll(cx)).await;
        if result.is_err() {
            driver.farewell().await;
        }
        match result {
            Err(Error::Disconnected { code, description }) => {
                tracing::debug!(code, description, "peer disconnected");
                Ok(())
            }
            other => other,
        }
    };
    Ok((conn, drive))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Ends all handles, however the driver ends.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Driver<IO, H> {
    io: IO,
    conn: Connection,
    shared: Arc<Shared>,
    handler: H,
    input: BytesMut,
    read_size: usize,
    /// The input may hold whole packets.
    backlog: bool,
    output: Vec<u8>,
    written: usize,
    unflushed: bool,
    timer: Pin<Box<Sleep>>,
    events: Vec<Event>,
    wakers: Vec<Waker>,
}

impl<IO, H> Driver<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.register(cx.waker());
        for _ in 0..TURNS {
            let wrote = self.poll_write(cx)?;
            let read = match self.poll_read(cx)? {
                Read::End => return Poll::Ready(Ok(())),
                Read::Some => true,
                Read::Nothing => false,
            };
            if !wrote && !read && !self.poll_timer(cx)? {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes until the stream takes no more or nothing is left. Returns
    /// whether anything was written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let mut progress = false;
        loop {
            if self.written == self.output.len() && !self.refill()? {
                break;
            }
            let rest = self.output.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.io).poll_write(cx, rest) {
                Poll::Pending => return Ok(progress),
                Poll::Ready(Ok(0)) => {
                    return Err(Error::Io(std::io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(done) => self.written += done?,
            }
            progress = true;
            self.unflushed = true;
        }
        if self.unflushed && Pin::new(&mut self.io).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(progress)
    }

    /// Takes what the session has to send. Returns false if that is nothing.
    fn refill(&mut self) -> Result<bool, Error> {
        if self.output.capacity() > KEPT_OUTPUT && self.output.len() <= KEPT_OUTPUT {
            self.output = Vec::new();
        }
        self.output.clear();
        self.written = 0;
        {
            let mut state = self.shared.lock();
            if let Some(error) = state.error.take() {
                return Err(error);
            }
            let out = state.session.output(now())?;
            std::mem::swap(out, &mut self.output);
        }
        self.dispatch()?;
        Ok(!self.output.is_empty())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Read, Error> {
        let wanted = {
            let mut state = self.shared.lock();
            // Also when the peer takes nothing, so that nothing is fetched.
            if let Some(error) = state.error.take() {
                return Err(error);
            }
            if !state.session.wants_input() {
                return Ok(Read::Nothing);
            }
            state.session.wanted()
        };
        if !self.backlog {
            if self.input.is_empty()
                && self.read_size == SMALLEST_READ
                && self.input.capacity() > LARGEST_READ
            {
                self.input = BytesMut::new();
            }
            let missing = wanted.saturating_sub(self.input.len());
            self.input.reserve(self.read_size.max(missing));
            let room = self.input.capacity() - self.input.len();
            let n = match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input) {
                Poll::Pending => return Ok(Read::Nothing),
                Poll::Ready(n) => n?,
            };
            if n == 0 {
                return Ok(Read::End);
            }
            if n >= room {
                self.read_size = (self.read_size * 4).min(LARGEST_READ);
            } else if n < SMALLEST_READ {
                self.read_size = SMALLEST_READ;
            }
        }
        {
            let mut state = self.shared.lock();
            state.session.handle_input(now(), &mut self.input)?;
            self.backlog = !state.session.wants_input();
        }
        self.dispatch()?;
        Ok(Read::Some)
    }

    /// Tells everybody what happened.
    fn dispatch(&mut self) -> Result<(), Error> {
        loop {
            self.collect();
            for waker in self.wakers.drain(..) {
                waker.wake();
            }
            if self.events.is_empty() {
                return Ok(());
            }
            for event in std::mem::take(&mut self.events) {
                self.handle_event(event)?;
            }
        }
    }

    /// Takes all events. Those that only wake somebody end here.
    fn collect(&mut self) {
        let mut state = self.shared.lock();
        while let Some(event) = state.session.poll_event() {
            match event {
                Event::Readable(id) => {
                    let entry = state.entries.get_mut(&id);
                    self.wakers.extend(entry.and_then(|e| e.reader.take()));
                }
                Event::Room(id) => {
                    if let Some(entry) = state.entries.get_mut(&id) {
                        self.wakers.append(&mut entry.writers);
                    }
                }
                other => self.events.push(other),
            }
        }
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Authenticated { user } => self.handler.authenticated(&self.conn, &user),
            Event::Open { id, open } => {
                let channel = self.shared.adopt(&mut self.shared.lock(), id, None);
                self.handler.open(Opening::new(channel), open);
            }
            Event::Opened(id) => self.opened(id, Ok(())),
            Event::Refused {
                id,
                code,
                description,
            } => self.opened(id, Err(OpenError::Refused { code, description })),
            Event::Answered { id, ok } => {
                let mut state = self.shared.lock();
                let waiting = state.entries.get_mut(&id);
                let waiting = waiting.and_then(|e| e.answers.pop_front());
                drop(state);
                if let Some(waiting) = waiting {
                    // Nobody may wait any more.
                    let _ = waiting.send(ok);
                }
            }
            Event::GlobalAnswered(answer) => {
                let waiting = self.shared.lock().asked.pop_front();
                if let Some(waiting) = waiting {
                    let _ = waiting.send(answer);
                }
            }
            Event::Request {
                id,
                request,
                wants_answer,
            } => {
                let ok = self.handler.request(id, request);
                if wants_answer {
                    self.shared.lock().session.answer(id, ok)?;
                }
            }
            Event::Global { number, request } => {
                let reply = GlobalReply::new(self.conn.clone(), number);
                self.handler.global(reply, request);
            }
            Event::Closed(id) => {
                self.close(id);
                self.handler.closed(id);
            }
            Event::Readable(_) | Event::Room(_) => {}
        }
        Ok(())
    }

    /// Tells everybody who waits for a channel that it is no more.
    fn close(&mut self, id: ChannelId) {
        let closed = {
            let mut state = self.shared.lock();
            state.entries.get_mut(&id).map(|entry| {
                entry.answers.clear();
                entry.take_all(&mut self.wakers);
                entry.closed.clone()
            })
        };
        if let Some(closed) = closed {
            closed.cancel();
        }
    }

    fn opened(&mut self, id: ChannelId, result: Result<(), OpenError>) {
        let mut state = self.shared.lock();
        let waiting = state.entries.get_mut(&id).and_then(|e| e.opening.take());
        drop(state);
        if result.is_err() {
            self.close(id);
        }
        if let Some(waiting) = waiting {
            // Nobody may wait any more.
            let _ = waiting.send(result);
        }
    }

    /// Returns true if something was due. The timer is only moved forward:
    /// every packet postpones some deadline.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let due = {
            let state = self.shared.lock();
            state.session.poll_timeout()
        };
        let due = due.unwrap_or_else(|| now() + FAR);
        if due < self.timer.deadline().into_std() {
            self.timer.as_mut().reset(due.into());
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Ok(false);
        }
        let mut state = self.shared.lock();
        state.session.handle_timeout(now())?;
        let next = state.session.poll_timeout();
        drop(state);
        let next = next.unwrap_or_else(|| now() + FAR);
        self.timer.as_mut().reset(next.into());
        Ok(true)
    }

    /// Sends what is left, and closes our side.
    async fn farewell(&mut self) {
        let mut rest = self.output.split_off(self.written);
        rest.append(self.shared.lock().session.last_output());
        let work = async {
            self.io.write_all(&rest).await?;
            self.io.flush().await?;
            self.io.shutdown().await
        };
        // The stream may be broken already.
        let _ = tokio::time::timeout(FAREWELL, work).await;
    }
}

enum Read {
    End,
    Some,
    Nothing,
}
