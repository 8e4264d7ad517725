//! The part of a connection that stays with its owner.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

/// Longest reason that fits a close frame, in bytes.
const MAX_REASON: usize = 123;

/// Code and reason of a close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseInfo {
    /// Code as in RFC 6455 §7.4; 1005 when the frame had none.
    pub code: u16,
    /// Text for people.
    pub reason: String,
}

impl CloseInfo {
    /// Whether the peer ended the connection in order: codes 1000 and 1001,
    /// or none.
    #[must_use]
    pub const fn is_normal(&self) -> bool {
        matches!(self.code, 1000 | 1001 | 1005)
    }
}

impl From<&CloseFrame> for CloseInfo {
    fn from(frame: &CloseFrame) -> Self {
        Self {
            code: frame.code.into(),
            reason: frame.reason.as_str().to_owned(),
        }
    }
}

/// Tells how a [`crate::ByteStream`] ended, and sets how it is going to end.
/// Clones share the connection.
#[derive(Debug, Clone)]
pub struct Monitor {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    received: Option<CloseInfo>,
    to_send: CloseInfo,
}

impl Monitor {
    pub(crate) fn new() -> Self {
        let to_send = CloseInfo {
            code: 1000,
            reason: String::new(),
        };
        let state = State {
            received: None,
            to_send,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// What the peer's close frame said, if there was one. Many connections
    /// end without.
    #[must_use]
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.lock().received.clone()
    }

    /// Sets what the own close frame is going to say instead of 1000. The
    /// frame is sent when the stream is shut down. A long reason is cut.
    pub fn set_close(&self, code: u16, reason: &str) {
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.lock().to_send = CloseInfo {
            code,
            reason: reason.get(..end).unwrap_or_default().to_owned(),
        };
    }

    pub(crate) fn received(&self, frame: Option<&CloseFrame>) {
        let info = frame.map_or_else(
            || CloseInfo {
                code: 1005,
                reason: String::new(),
            },
            CloseInfo::from,
        );
        self.lock().received = Some(info);
    }

    pub(crate) fn frame_to_send(&self) -> CloseFrame {
        let info = self.lock().to_send.clone();
        CloseFrame {
            code: CloseCode::from(info.code),
            reason: info.reason.into(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
