//! Moves bytes between a transport and its session.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::{connection::Shared, connection::now, error::Error};

/// Size of the read buffer, and so the largest input of one step.
const READ_BUFFER: usize = 16 * 1024;

thread_local! {
    /// Input is copied out of it at once, so all sessions of a thread share
    /// one: an idle session holds no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BUFFER]);
}
/// Steps before other tasks get a turn.
const BUDGET: usize = 64;

pub(crate) struct Driver<IO> {
    io: IO,
    shared: Arc<Shared>,
    /// What is being written.
    chunk: Bytes,
    /// Bytes were written that the transport may still hold.
    dirty: bool,
    timer: Pin<Box<Sleep>>,
    write_timeout: Duration,
    write_deadline: Option<Instant>,
    /// The session is over: only the goodbye and the shutdown are left.
    ending: bool,
}

/// Reads one piece. Copied out of the buffer, so that data waiting in a stream
/// pins only itself.
fn read_into<IO: AsyncRead>(
    io: Pin<&mut IO>,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<Bytes>> {
    let mut buffer = ReadBuf::new(buffer);
    ready!(io.poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
}

/// What one direction did.
#[derive(PartialEq, Eq)]
enum Step {
    Progress,
    Idle,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    pub(crate) fn new(io: IO, shared: Arc<Shared>, write_timeout: Duration) -> Self {
        Self {
            io,
            shared,
            chunk: Bytes::new(),
            dirty: false,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            write_timeout,
            write_deadline: None,
            ending: false,
        }
    }

    /// Reads one piece, unless the session has too many answers waiting.
    fn step_read(&mut self, cx: &mut Context<'_>) -> Result<Step, Error> {
        if self.shared.lock().session.is_congested() {
            return Ok(Step::Idle);
        }
        let io = Pin::new(&mut self.io);
        let read = SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => read_into(io, cx, &mut scratch),
            // The transport is itself a session that is being read.
            Err(_) => read_into(io, cx, &mut vec![0; READ_BUFFER]),
        });
        let input = match read {
            Poll::Pending => return Ok(Step::Idle),
            Poll::Ready(outcome) => outcome?,
        };
        if input.is_empty() {
            return Err(Error::Eof);
        }
        let mut state = self.shared.lock();
        let outcome = state.session.handle_input(now(), input);
        state.notify();
        outcome.map(|()| Step::Progress)
    }

    fn step_write(&mut self, cx: &mut Context<'_>) -> Result<Step, Error> {
        if self.chunk.is_empty() {
            let mut state = self.shared.lock();
            let chunk = state.session.poll_transmit(now());
            state.notify();
            drop(state);
            match chunk {
                Some(chunk) => self.chunk = chunk,
                None if self.dirty => return self.step_flush(cx),
                None => {
                    self.write_deadline = None;
                    return Ok(Step::Idle);
                }
            }
        }
        match Pin::new(&mut self.io).poll_write(cx, &self.chunk) {
            Poll::Pending => self.write_stalled(),
            Poll::Ready(Ok(0)) => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Poll::Ready(Ok(count)) => {
                self.chunk.advance(count);
                self.dirty = true;
                self.write_deadline = None;
                Ok(Step::Progress)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }

    fn step_flush(&mut self, cx: &mut Context<'_>) -> Result<Step, Error> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => self.write_stalled(),
            Poll::Ready(Ok(())) => {
                self.dirty = false;
                self.write_deadline = None;
                Ok(Step::Progress)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }

    fn write_stalled(&mut self) -> Result<Step, Error> {
        let now = Instant::now();
        let timeout = self.write_timeout;
        let deadline = *self.write_deadline.get_or_insert_with(|| now + timeout);
        if deadline <= now {
            return Err(Error::WriteTimeout);
        }
        Ok(Step::Idle)
    }

    /// Runs what is due and arms the timer for what is next.
    fn step_timer(&mut self, cx: &mut Context<'_>) -> Result<Step, Error> {
        let mut state = self.shared.lock();
        let due = state.session.poll_timeout().map(Instant::from_std);
        let due = [due, self.write_deadline].into_iter().flatten().min();
        let Some(due) = due else {
            return Ok(Step::Idle);
        };
        if due <= Instant::now() {
            let outcome = state.session.handle_timeout(now());
            state.notify();
            outcome?;
            if self.write_deadline.is_some_and(|at| at <= Instant::now()) {
                return Err(Error::WriteTimeout);
            }
            return Ok(Step::Progress);
        }
        drop(state);
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        match self.timer.as_mut().poll(cx) {
            Poll::Ready(()) => Ok(Step::Progress),
            Poll::Pending => Ok(Step::Idle),
        }
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        for _ in 0..BUDGET {
            let steps = [self.step_write(cx), self.step_read(cx), self.step_timer(cx)];
            let mut idle = true;
            for step in steps {
                match step {
                    Ok(step) => idle &= step == Step::Idle,
                    Err(error) => return Poll::Ready(error),
                }
            }
            if let Some(error) = self.shared.lock().session.error() {
                return Poll::Ready(error.clone());
            }
            if idle {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what the session still wants to say and shuts the transport
    /// down, within the write timeout.
    fn end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self
            .write_deadline
            .get_or_insert_with(|| Instant::now() + self.write_timeout);
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            if self.chunk.is_empty() {
                match self.shared.lock().session.poll_transmit(now()) {
                    Some(chunk) => self.chunk = chunk,
                    None => break,
                }
            }
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.chunk)) {
                Ok(count) if count > 0 => self.chunk.advance(count),
                _ => return Poll::Ready(()),
            }
        }
        // Whatever the transport says now, the session is over.
        let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        Poll::Ready(())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.lock().driver_waker = Some(cx.waker().clone());
        if !this.ending {
            let reason = ready!(this.run(cx));
            this.ending = true;
            this.write_deadline = None;
            let mut state = this.shared.lock();
            state.session.close(now(), reason);
            state.notify();
        }
        ready!(this.end(cx));
        let reason = this.shared.lock().session.error().cloned();
        tracing::debug!(reason = ?reason, "yamux session ended");
        this.shared
            .closed
            .send_replace(Some(reason.unwrap_or(Error::Closed)));
        Poll::Ready(())
    }
}

impl<IO> Drop for Driver<IO> {
    /// Also when aborted or when the runtime stops: whoever waits is told.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.session.close(now(), Error::Closed);
        state.notify();
        drop(state);
        self.shared.closed.send_if_modified(|closed| {
            let open = closed.is_none();
            if open {
                *closed = Some(Error::Closed);
            }
            open
        });
    }
}
