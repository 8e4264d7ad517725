//! Connections kept for the next request.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;

use crate::Endpoint;
use crate::exchange::Driver;

/// More are rarely used at once, and each holds a socket on both sides.
const MOST_IDLE: usize = 4;

/// Shorter than the idle limits of common servers and load balancers.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// How long a connection that just answered may take to be ready again.
const READY_WAIT: Duration = Duration::from_millis(50);

/// Idle connections by endpoint.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<(Connection, Instant)>>);

/// An HTTP connection between two requests.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) endpoint: Endpoint,
    pub(crate) sender: SendRequest<Full<Bytes>>,
    #[expect(dead_code, reason = "held for its Drop")]
    pub(crate) driver: Driver,
    /// See [`Dialed::forward`](crate::dial::Dialed::forward).
    pub(crate) forward: Option<Option<HeaderValue>>,
}

impl Pool {
    /// Takes out a connection that is ready to send.
    pub(crate) async fn take(&self, endpoint: &Endpoint) -> Option<Connection> {
        loop {
            let mut connection = self.pop(endpoint)?;
            let ready = tokio::time::timeout(READY_WAIT, connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                return Some(connection);
            }
        }
    }

    fn pop(&self, endpoint: &Endpoint) -> Option<Connection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(connection, since)| {
            !connection.sender.is_closed() && since.elapsed() < LONGEST_IDLE
        });
        let at = idle
            .iter()
            .rposition(|(connection, _)| connection.endpoint == *endpoint)?;
        Some(idle.remove(at).0)
    }

    /// Puts a connection back whose answer was read to the end.
    pub(crate) fn put(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= MOST_IDLE {
            idle.remove(0);
        }
        idle.push((connection, Instant::now()));
    }
}
