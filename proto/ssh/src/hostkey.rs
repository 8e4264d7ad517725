//! Host keys as a client checks them.

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::error::Error;
use crate::rsa::{self, Scheme};
use crate::wire::Reader;

/// Signature algorithms of host keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// RFC 8332.
    Rsa(Scheme),
    /// RFC 8709.
    Ed25519,
}

const ED25519_NAME: &str = "ssh-ed25519";

/// Checks that the holder of `key` has signed `message`. Both are blobs as
/// they go over the wire.
pub(crate) fn verify(
    algorithm: Algorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), Error> {
    let valid = match algorithm {
        Algorithm::Rsa(scheme) => rsa::verify(scheme, key, message, signature)?,
        Algorithm::Ed25519 => {
            let mut key = Reader::new(key, "host key");
            let mut signature = Reader::new(signature, "signature");
            key.name()? == ED25519_NAME
                && signature.name()? == ED25519_NAME
                && UnparsedPublicKey::new(&ED25519, key.string()?)
                    .verify(message, signature.string()?)
                    .is_ok()
        }
    };
    if valid {
        Ok(())
    } else {
        Err(Error::KeyExchange("the host key's signature is wrong"))
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::wire::Write;

    #[test]
    fn ed25519_signatures() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let blob = |bytes: &[u8]| {
            let mut blob = Vec::new();
            blob.put_string(ED25519_NAME);
            blob.put_string(bytes);
            blob
        };
        let key = blob(pair.public_key().as_ref());
        let signature = blob(pair.sign(b"message").as_ref());
        assert!(verify(Algorithm::Ed25519, &key, b"message", &signature).is_ok());
        assert!(verify(Algorithm::Ed25519, &key, b"massage", &signature).is_err());
        let rsa = Algorithm::Rsa(Scheme::Sha256);
        assert!(verify(rsa, &key, b"message", &signature).is_err());
    }
}
