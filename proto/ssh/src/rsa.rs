//! RSA host keys of any size (RFC 4253 §6.6, RFC 8332).
//!
//! Signatures have exactly the length of the modulus, also for moduli that
//! are not a whole number of bytes or words. The arithmetic is not constant
//! time; the peer can neither choose what is signed nor see more of it than
//! the time of one handshake.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use num_bigint::BigUint;
use ring::digest::{self, Algorithm};

use crate::error::Error;
use crate::wire::{Reader, Write};

/// Name of the key type.
const KEY_TYPE: &str = "ssh-rsa";

/// `DigestInfo` up to the digest (RFC 8017 §9.2, note 1).
const SHA1_INFO: &[u8] = b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14";
const SHA256_INFO: &[u8] =
    b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
const SHA512_INFO: &[u8] =
    b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40";

/// Smallest modulus that holds a signature, in bits; far below what is safe.
const SMALLEST: u64 = 1024;
/// Largest modulus of a peer, in bits: its cost grows with the square.
const LARGEST: u64 = 16_384;

/// Signature algorithm of an RSA key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Sha256,
    Sha512,
    Sha1,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "rsa-sha2-256",
            Self::Sha512 => "rsa-sha2-512",
            Self::Sha1 => KEY_TYPE,
        }
    }

    fn parts(self) -> (&'static Algorithm, &'static [u8]) {
        match self {
            Self::Sha256 => (&digest::SHA256, SHA256_INFO),
            Self::Sha512 => (&digest::SHA512, SHA512_INFO),
            Self::Sha1 => (&digest::SHA1_FOR_LEGACY_USE_ONLY, SHA1_INFO),
        }
    }
}

/// An RSA private key.
#[derive(Clone)]
pub struct RsaKey {
    n: BigUint,
    e: BigUint,
    p: BigUint,
    q: BigUint,
    /// d mod (p−1), d mod (q−1), q⁻¹ mod p.
    dp: BigUint,
    dq: BigUint,
    q_inv: BigUint,
}

impl RsaKey {
    /// The key with these primes and this public exponent. `None` if they do
    /// not form a key of at least 1024 bits. The numbers are not tested for
    /// being prime.
    #[must_use]
    pub fn from_primes(p: &BigUint, q: &BigUint, e: &BigUint) -> Option<Self> {
        let one = BigUint::from(1u32);
        if *p <= one || *q <= one || p == q {
            return None;
        }
        let n = p * q;
        if n.bits() < SMALLEST {
            return None;
        }
        let (p1, q1) = (p - &one, q - &one);
        let d = e.modinv(&(&p1 * &q1))?;
        Some(Self {
            n,
            e: e.clone(),
            dp: &d % &p1,
            dq: &d % &q1,
            q_inv: q.modinv(p)?,
            p: p.clone(),
            q: q.clone(),
        })
    }

    /// The public key as it goes over the wire (RFC 4253 §6.6).
    #[must_use]
    pub fn public_blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        blob.put_string(KEY_TYPE);
        blob.put_mpint(&self.e.to_bytes_be());
        blob.put_mpint(&self.n.to_bytes_be());
        blob
    }

    /// Fingerprint as OpenSSH prints it: `SHA256:` and base64.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.public_blob());
        format!("SHA256:{}", STANDARD_NO_PAD.encode(digest))
    }

    /// Bits of the modulus.
    #[must_use]
    pub fn bits(&self) -> u64 {
        self.n.bits()
    }

    /// The signature blob over `message`; `None` if the arithmetic went
    /// wrong, which would give the key away.
    pub(crate) fn sign(&self, scheme: Scheme, message: &[u8]) -> Option<Vec<u8>> {
        let len = usize::try_from(self.n.bits().div_ceil(8)).ok()?;
        let m = encode(scheme, message, len)?;
        let s1 = m.modpow(&self.dp, &self.p);
        let s2 = m.modpow(&self.dq, &self.q);
        let difference = (&s1 + &self.p - (&s2 % &self.p)) % &self.p;
        let s = s2 + (&self.q_inv * difference % &self.p) * &self.q;
        if s.modpow(&self.e, &self.n) != m {
            return None;
        }
        let digits = s.to_bytes_be();
        let mut padded = vec![0; len.checked_sub(digits.len())?];
        padded.extend_from_slice(&digits);
        let mut blob = Vec::new();
        blob.put_string(scheme.name());
        blob.put_string(padded);
        Some(blob)
    }
}

/// The number that is signed (EMSA-PKCS1-v1_5, RFC 8017 §9.2), for a modulus
/// of `len` bytes.
fn encode(scheme: Scheme, message: &[u8], len: usize) -> Option<BigUint> {
    let (algorithm, info) = scheme.parts();
    let digest = digest::digest(algorithm, message);
    let padding = len.checked_sub(3 + info.len() + digest.as_ref().len())?;
    let mut encoded = vec![0, 1];
    encoded.resize(2 + padding, 0xff);
    encoded.push(0);
    encoded.extend_from_slice(info);
    encoded.extend_from_slice(digest.as_ref());
    Some(BigUint::from_bytes_be(&encoded))
}

/// Whether the blob `signature` is that of `message` by the public key in
/// `key`.
pub(crate) fn verify(
    scheme: Scheme,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<bool, Error> {
    let mut reader = Reader::new(key, "host key");
    if reader.name()? != KEY_TYPE {
        return Ok(false);
    }
    let (e, n) = (reader.positive()?, reader.positive()?);
    let mut reader = Reader::new(signature, "signature");
    if reader.name()? != scheme.name() {
        return Ok(false);
    }
    let s = BigUint::from_bytes_be(reader.string()?);
    let sizes_fit = (SMALLEST..=LARGEST).contains(&n.bits()) && e.bits() <= 64 && s < n;
    let len = usize::try_from(n.bits().div_ceil(8)).unwrap_or(0);
    Ok(sizes_fit && encode(scheme, message, len) == Some(s.modpow(&e, &n)))
}

impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RsaKey")
            .field("bits", &self.bits())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 2^607−1 and 2^521−1 are prime (Mersenne); their product has 1128 bits.
    pub(crate) fn key() -> RsaKey {
        let prime = |bits: u32| (BigUint::from(1u32) << bits) - 1u32;
        RsaKey::from_primes(&prime(607), &prime(521), &BigUint::from(65_537u32)).unwrap()
    }

    #[test]
    fn signatures_verify_and_have_the_length_of_the_modulus() {
        let key = key();
        for scheme in [Scheme::Sha256, Scheme::Sha512, Scheme::Sha1] {
            for i in 0..40u32 {
                let blob = key.sign(scheme, &i.to_be_bytes()).unwrap();
                let mut reader = Reader::new(&blob, "signature");
                assert_eq!(reader.name().unwrap(), scheme.name());
                let signature = reader.string().unwrap();
                assert_eq!(signature.len(), 141);
                let opened = BigUint::from_bytes_be(signature).modpow(&key.e, &key.n);
                let digest = digest::digest(scheme.parts().0, &i.to_be_bytes());
                assert!(opened.to_bytes_be().ends_with(digest.as_ref()));
                let check = |key: &[u8], i: u32, blob: &[u8]| {
                    verify(scheme, key, &i.to_be_bytes(), blob).unwrap_or(false)
                };
                let public = key.public_blob();
                assert!(check(&public, i, &blob));
                assert!(!check(&public, i + 1, &blob));
                assert!(!check(&public[..50], i, &blob));
                let mut altered = blob.clone();
                *altered.last_mut().unwrap() ^= 1;
                assert!(!check(&public, i, &altered));
            }
        }
    }

    #[test]
    fn nonsense_is_no_key() {
        let n = |n: u32| BigUint::from(n);
        assert!(RsaKey::from_primes(&n(7), &n(11), &n(65_537)).is_none());
        assert!(RsaKey::from_primes(&n(0), &n(11), &n(3)).is_none());
        let p = key().p;
        assert!(RsaKey::from_primes(&p, &p, &n(65_537)).is_none());
    }
}
