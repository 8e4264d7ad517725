//! Private halves of the key pairs.

use std::fmt;
use std::str::FromStr;

use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{DiscoPublic, KEY_LEN, KeyError, NodePublic, SharedKey, hexkey};

/// Private node key: WireGuard static key and DERP identity.
///
/// Text form `privkey:` followed by 64 hexadecimal digits; it can be read, but
/// only [`as_bytes`](Self::as_bytes) gives the secret out.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NodePrivate([u8; KEY_LEN]);

/// Private disco key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DiscoPrivate([u8; KEY_LEN]);

/// Clears and sets the bits that RFC 7748 section 5 fixes for X25519 scalars.
fn clamp(bytes: &mut [u8; KEY_LEN]) {
    bytes[0] &= 248;
    bytes[31] = (bytes[31] & 127) | 64;
}

macro_rules! private_key {
    ($name:ident, $public:ident) => {
        impl $name {
            /// Makes a key from the operating system's randomness.
            pub fn generate() -> Self {
                Self::generate_with(&mut rand::rng())
            }

            /// Makes a key from the given source, for reproducible runs.
            pub fn generate_with<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
                let mut bytes = [0; KEY_LEN];
                rng.fill_bytes(&mut bytes);
                Self::from_bytes(bytes)
            }

            /// Wraps key bytes, clamping them.
            pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
                clamp(&mut bytes);
                Self(bytes)
            }

            /// The secret bytes.
            pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
                &self.0
            }

            /// The key in the form WireGuard implementations take.
            pub fn to_x25519(&self) -> x25519_dalek::StaticSecret {
                x25519_dalek::StaticSecret::from(self.0)
            }

            /// The matching public key.
            pub fn public(&self) -> $public {
                $public::from_bytes(x25519_dalek::PublicKey::from(&self.to_x25519()).to_bytes())
            }

            /// The key that both ends share, for boxes to and from `peer`.
            ///
            /// Costs one curve multiplication; keep the result per peer.
            pub fn shared(&self, peer: &$public) -> SharedKey {
                SharedKey::new(&self.0, peer.as_bytes())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }
    };
}

private_key!(NodePrivate, NodePublic);
private_key!(DiscoPrivate, DiscoPublic);

impl FromStr for NodePrivate {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        hexkey::parse(text, "privkey:").map(Self::from_bytes)
    }
}
