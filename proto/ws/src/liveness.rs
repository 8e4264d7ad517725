//! Pings that find out whether the peer is still there.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

/// When to send pings. The payload counts up from 1 in ASCII digits.
#[derive(Debug, Clone, Copy)]
pub struct Liveness {
    /// Time from one ping to the next, and longest wait for the answer.
    pub interval: Duration,
}

impl Default for Liveness {
    /// 15 s, as Coder's server does.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
        }
    }
}

/// What is due.
pub(crate) enum Probe {
    Ping(Bytes),
    Dead,
}

#[derive(Debug)]
pub(crate) struct Prober {
    interval: Duration,
    timer: Pin<Box<Sleep>>,
    counter: u64,
    waiting: bool,
}

impl Prober {
    pub(crate) fn new(liveness: Liveness) -> Self {
        Self {
            interval: liveness.interval,
            timer: Box::pin(tokio::time::sleep(liveness.interval)),
            counter: 0,
            waiting: false,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Probe> {
        std::task::ready!(self.timer.as_mut().poll(cx));
        self.timer.as_mut().reset(Instant::now() + self.interval);
        if self.waiting {
            return Poll::Ready(Probe::Dead);
        }
        self.waiting = true;
        self.counter += 1;
        Poll::Ready(Probe::Ping(self.counter.to_string().into()))
    }

    pub(crate) fn pong(&mut self, payload: &[u8]) {
        if payload == self.counter.to_string().as_bytes() {
            self.waiting = false;
        }
    }
}
