//! The host key, derived from the names of owner, workspace and agent.
//!
//! A rebuilt workspace of the same name keeps its key, and so does one that
//! moves between this agent and Coder's: the derivation is bit-exact. The key
//! is guessable by design (its seed has 31 effective bits); peers are
//! authenticated by the tunnel that carries SSH.
//!
//! Derivation: FNV-1a over the names seeds [`generator`]; two 1025-bit primes
//! are drawn from it bit by bit; the public exponent is 65537. The modulus
//! has 2049 or 2050 bits, which rules out crypto libraries that insist on
//! round sizes.

mod cooked;
mod generator;
mod primes;

use std::fmt;

use adit_ssh::RsaKey;
use num_bigint::BigUint;
use thiserror::Error;

use generator::Generator;

/// Public exponent.
const EXPONENT: u32 = 65_537;

/// The derived numbers do not form a key; cannot happen with a correct
/// generator.
#[derive(Debug, Error)]
#[error("derive host key")]
pub struct HostKeyError;

/// The server's RSA host key.
#[derive(Clone)]
pub struct HostKey(RsaKey);

impl HostKey {
    /// Derives the key of an agent. Takes tens of milliseconds of CPU: call
    /// it off the async executor (`spawn_blocking`).
    ///
    /// # Errors
    /// [`HostKeyError`], which no input is known to cause.
    pub fn derive(owner: &str, workspace: &str, agent: &str) -> Result<Self, HostKeyError> {
        let mut generator = Generator::new(seed(owner, workspace, agent));
        let e = BigUint::from(EXPONENT);
        let p = primes::draw(&mut generator, &e, None);
        let q = primes::draw(&mut generator, &e, Some(&p));
        RsaKey::from_primes(&p, &q, &e)
            .map(Self)
            .ok_or(HostKeyError)
    }

    /// Fingerprint as OpenSSH prints it: `SHA256:` and base64.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }

    pub(crate) fn private(&self) -> &RsaKey {
        &self.0
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostKey").field(&self.fingerprint()).finish()
    }
}

/// FNV-1a, 64 bits, over the names separated by NUL.
fn seed(owner: &str, workspace: &str, agent: &str) -> i64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = [owner, "\0", workspace, "\0", agent];
    let hash = bytes
        .iter()
        .flat_map(|s| s.bytes())
        .fold(OFFSET, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        });
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn keys_are_bit_exact() {
        for (names, expected_seed, bits, fingerprint) in [
            (
                ["alice", "dev", "main"],
                5_808_831_876_770_788_593,
                2049,
                "SHA256:rF+q3uQiMaiLgI0R6NS75lUl3SOwTTK/6bSBhVWfpAI",
            ),
            (
                ["coder", "test", "agent"],
                -8_743_751_320_861_685_073,
                2050,
                "SHA256:Ur97A0alvb2ohajqyVNoo3vfSb7Q2LQ3QGEnqTzp7fE",
            ),
            (
                ["", "", ""],
                590_684_067_820_433_389,
                2049,
                "SHA256:fU6jtBnYYAsd80iOx+dbobXehqqTgT+85PaE2WSADcw",
            ),
        ] {
            let [owner, workspace, agent] = names;
            assert_eq!(seed(owner, workspace, agent), expected_seed);
            let key = HostKey::derive(owner, workspace, agent).unwrap();
            assert_eq!(key.fingerprint(), fingerprint);
            assert_eq!(key.0.bits(), bits);
        }
    }

    #[test]
    fn the_primes_are_those_of_the_vector() {
        let mut generator = Generator::new(seed("alice", "dev", "main"));
        let e = BigUint::from(EXPONENT);
        let p = primes::draw(&mut generator, &e, None);
        let q = primes::draw(&mut generator, &e, Some(&p));
        let hash = |number: &BigUint| -> String {
            let bytes = number.to_bytes_be();
            assert_eq!(bytes.len(), 129);
            Sha256::digest(bytes)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect()
        };
        assert_eq!(
            hash(&p),
            "2e216ce2b9b959b0538ebd0698b906a7a6e85332a9f406f6ab7841bcb3ce5d4e"
        );
        assert_eq!(
            hash(&q),
            "84c20688fac6922e8ff3736977322b92ce2f151276492d9379e4e981770b96bd"
        );
    }

    #[test]
    fn debug_shows_the_fingerprint_only() {
        let key = HostKey::derive("", "", "").unwrap();
        let text = format!("{key:?}");
        assert!(
            text.starts_with("HostKey(\"SHA256:") && text.len() < 70,
            "{text}"
        );
    }
}
