//! This node.

use x25519_dalek::{PublicKey, StaticSecret};

use crate::clock::Clock;
use crate::cookie;

/// The node's static key, and the clock of its initiations.
pub struct Identity {
    pub(crate) secret: StaticSecret,
    pub(crate) public: PublicKey,
    pub(crate) clock: Clock,
    /// Key of the first code of messages to this node.
    pub(crate) mac_key: [u8; 32],
    /// Key of cookie replies by this node.
    pub(crate) cookie_key: [u8; 32],
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The node that holds `secret`.
    #[must_use]
    pub fn new(secret: StaticSecret, clock: Clock) -> Self {
        let public = PublicKey::from(&secret);
        Self {
            secret,
            clock,
            mac_key: cookie::mac_key(&public),
            cookie_key: cookie::cookie_key(&public),
            public,
        }
    }

    /// The public half of the key.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}
