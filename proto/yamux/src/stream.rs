//! State of one stream inside a session.

use crate::{buffer::Buffer, config::INITIAL_WINDOW};

/// How far the sending half is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalEnd {
    Open,
    /// FIN goes out when the send buffer is empty.
    Closing,
    FinSent,
}

#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) outbound: bool,
    /// Outbound: the peer answered. Inbound: the application took it.
    pub(crate) established: bool,
    /// The application let go of the stream: received data is dropped.
    pub(crate) orphaned: bool,
    /// Neither side can send frames for it any more. It stays for the reader.
    pub(crate) off_wire: bool,
    pub(crate) reset: bool,
    pub(crate) local: LocalEnd,
    pub(crate) remote_fin: bool,
    pub(crate) recv: Buffer,
    /// Bytes the peer may still send.
    pub(crate) recv_window: u32,
    pub(crate) send: Buffer,
    /// Bytes we may still send.
    pub(crate) send_window: u32,
    /// Already in the queue of streams that have something to send.
    pub(crate) queued: bool,
}

impl StreamState {
    pub(crate) fn new(outbound: bool) -> Self {
        Self {
            outbound,
            established: false,
            orphaned: false,
            off_wire: false,
            reset: false,
            local: LocalEnd::Open,
            remote_fin: false,
            recv: Buffer::default(),
            recv_window: INITIAL_WINDOW,
            send: Buffer::default(),
            send_window: INITIAL_WINDOW,
            queued: false,
        }
    }

    /// Whether a turn in the send queue would produce a frame.
    pub(crate) fn has_work(&self) -> bool {
        if self.off_wire {
            return false;
        }
        if self.send.is_empty() {
            self.local == LocalEnd::Closing
        } else {
            self.send_window > 0
        }
    }

    pub(crate) fn both_finished(&self) -> bool {
        self.remote_fin && self.local == LocalEnd::FinSent
    }
}
