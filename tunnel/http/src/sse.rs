//! Streams of server sent events.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use adit_rest::sse::{Decoder, Event};

use crate::{Error, ErrorKind, Response};

/// Time limits of an event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseOptions {
    /// Until the response head. Servers hold it back until the first event or
    /// the first ping, which comes after 15 s.
    pub head_timeout: Duration,
    /// Between two pieces of the stream; servers ping every 15 s.
    pub idle_timeout: Duration,
}

impl Default for SseOptions {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// A stream of events, from [`Client::sse`](crate::Client::sse).
pub struct EventStream {
    response: Response,
    decoder: Decoder,
    ready: VecDeque<Event>,
    idle_timeout: Duration,
}

impl EventStream {
    pub(crate) fn new(response: Response, options: SseOptions) -> Self {
        Self {
            response,
            decoder: Decoder::new(),
            ready: VecDeque::new(),
            idle_timeout: options.idle_timeout,
        }
    }

    /// The next event, pings included; `None` when the server ended the
    /// stream. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let data = match self.response.chunk_within(self.idle_timeout).await {
                Ok(Some(data)) => data,
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            };
            let mut events = Vec::new();
            if let Err(error) = self.decoder.feed(&data, &mut events) {
                let reason = error.to_string();
                return Some(Err(
                    Error::new(ErrorKind::Decode { reason }).at(self.response.url())
                ));
            }
            self.ready.extend(events);
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventStream({:?})", self.response)
    }
}
