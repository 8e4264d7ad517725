//! NaCl boxes between two key pairs.

use std::fmt;
use std::sync::Arc;

use crypto_box::aead::AeadInPlace;
use crypto_box::aead::generic_array::GenericArray;
use crypto_box::{PublicKey, SalsaBox, SecretKey};

use crate::{KEY_LEN, OpenError};

/// Length of a box nonce, in bytes.
pub const NONCE_LEN: usize = 24;

/// How much longer a sealed box is than its content: the Poly1305 tag, which
/// comes first.
pub const BOX_OVERHEAD: usize = 16;

/// Precomputed key of `crypto_box` (X25519, XSalsa20-Poly1305) for one pair.
///
/// The same on both ends; clones share one copy. A nonce must never be used twice with one key.
#[derive(Clone)]
pub struct SharedKey(Arc<SalsaBox>);

impl SharedKey {
    pub(crate) fn new(private: &[u8; KEY_LEN], public: &[u8; KEY_LEN]) -> Self {
        let private = SecretKey::from(*private);
        Self(Arc::new(SalsaBox::new(&PublicKey::from(*public), &private)))
    }

    /// Appends tag and ciphertext of `plaintext` to `out`.
    pub fn seal_into(&self, nonce: &[u8; NONCE_LEN], plaintext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + BOX_OVERHEAD, 0);
        out.extend_from_slice(plaintext);
        let (tag, body) = out[start..].split_at_mut(BOX_OVERHEAD);
        // The cipher refuses only bodies beyond its 2^70 byte counter.
        if let Ok(computed) =
            self.0
                .encrypt_in_place_detached(GenericArray::from_slice(nonce), b"", body)
        {
            tag.copy_from_slice(&computed);
        }
    }

    /// Tag and ciphertext of `plaintext`.
    pub fn seal(&self, nonce: &[u8; NONCE_LEN], plaintext: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(BOX_OVERHEAD + plaintext.len());
        self.seal_into(nonce, plaintext, &mut out);
        out
    }

    /// Opens what [`seal`](Self::seal) made on the other end.
    pub fn open(&self, nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (tag, body) = sealed.split_at_checked(BOX_OVERHEAD).ok_or(OpenError)?;
        let mut plaintext = body.to_vec();
        self.0
            .decrypt_in_place_detached(
                GenericArray::from_slice(nonce),
                b"",
                &mut plaintext,
                GenericArray::from_slice(tag),
            )
            .map_err(|_| OpenError)?;
        Ok(plaintext)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(secret)")
    }
}
