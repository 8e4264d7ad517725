//! The two handshake messages (sections 5.4.2 and 5.4.3).

mod initiator;
mod responder;

pub(crate) use initiator::Pending;
pub use responder::Incoming;

use crate::crypto::Secret;

/// What both sides have after a handshake.
pub(crate) struct Agreed {
    /// Session number of the other side.
    pub(crate) remote: u32,
    pub(crate) send: Secret,
    pub(crate) receive: Secret,
}

#[cfg(test)]
mod tests;
