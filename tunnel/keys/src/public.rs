//! Public halves of the key pairs.

use std::fmt;
use std::str::FromStr;

use crate::{KEY_LEN, KeyError, hexkey};

/// Public node key: WireGuard peer key and DERP address of a node.
///
/// Text form `nodekey:` followed by 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodePublic([u8; KEY_LEN]);

/// Public disco key: identifies the sender of path discovery messages.
///
/// Text form `discokey:` followed by 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiscoPublic([u8; KEY_LEN]);

/// Marks the binary form of a node key.
const NODE_BINARY_PREFIX: &[u8; 2] = b"np";

impl NodePublic {
    /// Length of the binary form made by [`to_np_bytes`](Self::to_np_bytes).
    pub const NP_LEN: usize = KEY_LEN + NODE_BINARY_PREFIX.len();

    /// The binary form that control messages carry: `np` and the 32 key bytes.
    pub fn to_np_bytes(&self) -> [u8; Self::NP_LEN] {
        let mut out = [0; Self::NP_LEN];
        out[..2].copy_from_slice(NODE_BINARY_PREFIX);
        out[2..].copy_from_slice(&self.0);
        out
    }

    /// Reads the form made by [`to_np_bytes`](Self::to_np_bytes).
    pub fn from_np_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = bytes
            .strip_prefix(NODE_BINARY_PREFIX)
            .ok_or(KeyError::Prefix("np"))?;
        key.try_into().map(Self).map_err(|_| KeyError::Length)
    }

    /// The 64 digits without prefix, as DERP puts them into an HTTP header.
    pub fn to_untyped_hex(&self) -> String {
        hex::encode(self.0)
    }
}

macro_rules! public_key {
    ($name:ident, $prefix:literal) => {
        impl $name {
            /// Wraps raw key bytes.
            pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
                Self(bytes)
            }

            /// The raw key bytes.
            pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
                &self.0
            }

            /// Whether all bytes are zero, which stands for "no key".
            pub fn is_zero(&self) -> bool {
                self.0 == [0; KEY_LEN]
            }

            /// The key in the form WireGuard implementations take.
            pub fn to_x25519(&self) -> x25519_dalek::PublicKey {
                x25519_dalek::PublicKey::from(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), hex::encode(self.0))
            }
        }

        /// Shortened: prefix and the first eight digits, enough for a log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}…"), hex::encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                hexkey::parse(text, $prefix).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

public_key!(NodePublic, "nodekey:");
public_key!(DiscoPublic, "discokey:");
