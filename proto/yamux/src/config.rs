//! Limits and timers of a session.

use std::time::Duration;

/// Limits and timers. The default is what hashicorp/yamux uses, plus bounds of
/// our own where it has none.
#[derive(Debug, Clone)]
pub struct Config {
    /// Streams of the peer that may wait to be accepted; more are refused with
    /// RST. Also how many own streams may wait for the peer's ACK.
    pub accept_backlog: usize,
    /// Streams of the peer that may exist at once; more are refused with RST.
    pub max_inbound_streams: usize,
    /// Bytes that may wait to be read, over all streams; more ends the session.
    pub max_buffered: usize,
    /// Time from the start, and from each answer, to the next keepalive ping.
    /// `None` sends none.
    pub keepalive_interval: Option<Duration>,
    /// Longest time without write progress, and longest wait for a pong.
    pub write_timeout: Duration,
    /// Longest wait for the ACK of an own stream; ends the session.
    pub stream_open_timeout: Duration,
    /// Longest time between an own FIN and the peer's; then the stream is
    /// reset.
    pub stream_close_timeout: Duration,
    /// Receive window of each stream in bytes. Not below 262144, which every
    /// peer assumes at the start.
    pub receive_window: u32,
    /// Bytes that a stream takes from the writer before they are sent.
    pub send_buffer: usize,
}

/// Window that both ends assume for a new stream.
pub const INITIAL_WINDOW: u32 = 256 * 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            accept_backlog: 256,
            max_inbound_streams: 8192,
            max_buffered: 64 * 1024 * 1024,
            keepalive_interval: Some(Duration::from_secs(30)),
            write_timeout: Duration::from_secs(10),
            stream_open_timeout: Duration::from_secs(75),
            stream_close_timeout: Duration::from_secs(5 * 60),
            receive_window: INITIAL_WINDOW,
            send_buffer: 64 * 1024,
        }
    }
}
