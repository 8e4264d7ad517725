//! Identities of the tunnel: key pairs, the boxes they seal, and the overlay
//! addresses derived from UUIDs.
//!
//! Two kinds of X25519 key pairs exist. The *node* key is the WireGuard static
//! key and at the same time the identity towards DERP relays; the *disco* key
//! signs path discovery messages. Both are made anew for every tunnel, so a
//! restarted program is a new node under the same peer UUID.
//!
//! Private keys are wiped from memory when dropped and never appear in
//! `Debug` or `Display` output.

pub mod addr;
mod hexkey;
mod private;
mod public;
mod shared;

pub use private::{DiscoPrivate, NodePrivate};
pub use public::{DiscoPublic, NodePublic};
pub use shared::{BOX_OVERHEAD, NONCE_LEN, SharedKey};

/// Length of every private and public key, in bytes.
pub const KEY_LEN: usize = 32;

/// Why a key could not be read from its text or binary form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text or bytes do not begin with the prefix of this kind of key.
    #[error("key does not start with {0:?}")]
    Prefix(&'static str),
    /// The key part has another length than 32 bytes.
    #[error("key has the wrong length")]
    Length,
    /// The key part holds something else than hexadecimal digits.
    #[error("key is not hexadecimal")]
    Hex,
}

/// A sealed box did not open: wrong key, wrong nonce or altered bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("box does not open with this key")]
pub struct OpenError;
