//! The primitives, under the names of section 5.4.

use blake2::digest::consts::U16;
use blake2::digest::generic_array::GenericArray;
use blake2::digest::{Digest, FixedOutput, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::Rejected;
use crate::message::{MAC, TAG};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// Bytes of a secret.
pub(crate) const KEY: usize = 32;

pub(crate) type Secret = Zeroizing<[u8; KEY]>;

/// BLAKE2s of all parts in a row.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    for part in parts {
        Digest::update(&mut hash, part);
    }
    hash.finalize().into()
}

/// Keyed BLAKE2s with 16 bytes of output; the key has at most 32 bytes.
fn keyed(key: &[u8], data: &[u8]) -> Option<Blake2sMac<U16>> {
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).ok()?;
    Mac::update(&mut mac, data);
    Some(mac)
}

/// Code of `data` under a key.
pub(crate) fn mac<const N: usize>(key: &[u8; N], data: &[u8]) -> [u8; MAC] {
    const { assert!(N <= 32, "longer keys do not exist") };
    keyed(key, data).map_or([0; MAC], |mac| mac.finalize_fixed().into())
}

/// Whether `code` is the code of `data`, in constant time.
pub(crate) fn verify<const N: usize>(key: &[u8; N], data: &[u8], code: &[u8; MAC]) -> bool {
    keyed(key, data).is_some_and(|mac| mac.verify(GenericArray::from_slice(code)).is_ok())
}

/// HMAC (RFC 2104) with BLAKE2s.
fn hmac(key: &[u8; KEY], parts: &[&[u8]]) -> Secret {
    let pad = |byte: u8| {
        let mut block = Zeroizing::new([byte; 64]);
        for (b, k) in block.iter_mut().zip(key) {
            *b ^= k;
        }
        block
    };
    let mut inner = Blake2s256::new();
    Digest::update(&mut inner, *pad(0x36));
    for part in parts {
        Digest::update(&mut inner, part);
    }
    Zeroizing::new(hash(&[&*pad(0x5c), &inner.finalize()]))
}

/// `N` keys out of a key and an input.
fn kdf<const N: usize>(key: &[u8; KEY], input: &[u8]) -> [Secret; N] {
    let root = hmac(key, &[input]);
    let mut last: Option<Secret> = None;
    let mut number = 0;
    std::array::from_fn(|_| {
        number += 1;
        let next = match &last {
            None => hmac(&root, &[&[number]]),
            Some(last) => hmac(&root, &[&**last, &[number]]),
        };
        last = Some(next.clone());
        next
    })
}

/// The shared secret of two keys, unless one of them is a trap.
pub(crate) fn dh(own: &StaticSecret, other: &PublicKey) -> Option<Secret> {
    let shared = own.diffie_hellman(other);
    shared
        .was_contributory()
        .then(|| Zeroizing::new(shared.to_bytes()))
}

/// A transport or handshake cipher.
pub(crate) fn cipher(key: &[u8; KEY]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key)
        .ok()
        .map(LessSafeKey::new)
}

/// The nonce of message `counter`.
pub(crate) fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Chaining key and transcript hash of a handshake.
#[derive(Clone)]
pub(crate) struct Transcript {
    chain: Secret,
    hash: [u8; 32],
}

impl Transcript {
    /// The state before the first message to `responder`.
    pub(crate) fn new(responder: &PublicKey) -> Self {
        let chain = hash(&[CONSTRUCTION]);
        let named = hash(&[&chain, IDENTIFIER]);
        Self {
            chain: Zeroizing::new(chain),
            hash: hash(&[&named, responder.as_bytes()]),
        }
    }

    /// Takes something both sides see.
    pub(crate) fn see(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// Takes something that changes the keys to come.
    pub(crate) fn stir(&mut self, input: &[u8]) {
        [self.chain] = kdf(&self.chain, input);
    }

    /// The same, and gives a key for the next field.
    pub(crate) fn stir_key(&mut self, input: &[u8]) -> Secret {
        let key;
        [self.chain, key] = kdf(&self.chain, input);
        key
    }

    /// The absent pre-shared key; gives a key for the next field.
    pub(crate) fn stir_no_psk(&mut self) -> Secret {
        let (seen, key);
        [self.chain, seen, key] = kdf(&self.chain, &[0; KEY]);
        self.see(&*seen);
        key
    }

    /// Seals `field`, whose last 16 bytes are room for the tag.
    pub(crate) fn seal(&mut self, key: &[u8; KEY], field: &mut [u8]) -> Option<()> {
        let (plain, room) = field.split_last_chunk_mut::<TAG>()?;
        let tag = cipher(key)?
            .seal_in_place_separate_tag(nonce(0), Aad::from(&self.hash), plain)
            .ok()?;
        room.copy_from_slice(tag.as_ref());
        self.see(field);
        Some(())
    }

    /// Opens a sealed field of 16 bytes more than `N`.
    pub(crate) fn open<const N: usize>(
        &mut self,
        key: &[u8; KEY],
        sealed: &[u8],
    ) -> Result<[u8; N], Rejected> {
        let mut room = [0; 64];
        let room = room.get_mut(..sealed.len()).ok_or(Rejected)?;
        room.copy_from_slice(sealed);
        let plain = cipher(key)
            .ok_or(Rejected)?
            .open_in_place(nonce(0), Aad::from(&self.hash), room)
            .map_err(|_| Rejected)?;
        let plain = (&*plain).try_into().map_err(|_| Rejected)?;
        self.see(sealed);
        Ok(plain)
    }

    /// The transport keys: from the initiator and to it.
    pub(crate) fn split(&self) -> [Secret; 2] {
        kdf(&self.chain, &[])
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> ([u8; 32], [u8; 32]) {
        (*self.chain, self.hash)
    }
}

/// The cipher of a cookie reply (XChaCha20-Poly1305) for its nonce.
fn extended(key: &[u8; KEY], nonce: &[u8; 24]) -> Option<(LessSafeKey, Nonce)> {
    let (head, tail) = nonce.split_at(16);
    let subkey = Zeroizing::new(<[u8; KEY]>::from(chacha20::hchacha::<
        chacha20::cipher::consts::U10,
    >(
        GenericArray::from_slice(key),
        GenericArray::from_slice(head),
    )));
    let mut short = [0; 12];
    short[4..].copy_from_slice(tail);
    Some((cipher(&subkey)?, Nonce::assume_unique_for_key(short)))
}

/// Seals a cookie for the message that ended in `first_mac`.
pub(crate) fn seal_cookie(
    key: &[u8; KEY],
    nonce: &[u8; 24],
    cookie: &[u8; MAC],
    first_mac: &[u8; MAC],
) -> Option<[u8; MAC + TAG]> {
    let (cipher, nonce) = extended(key, nonce)?;
    let mut sealed = [0; MAC + TAG];
    let (text, room) = sealed.split_at_mut(MAC);
    text.copy_from_slice(cookie);
    let tag = cipher
        .seal_in_place_separate_tag(nonce, Aad::from(first_mac), text)
        .ok()?;
    room.copy_from_slice(tag.as_ref());
    Some(sealed)
}

/// Opens what [`seal_cookie`] made.
pub(crate) fn open_cookie(
    key: &[u8; KEY],
    nonce: &[u8; 24],
    mut sealed: [u8; MAC + TAG],
    first_mac: &[u8; MAC],
) -> Option<[u8; MAC]> {
    let (cipher, nonce) = extended(key, nonce)?;
    cipher
        .open_in_place(nonce, Aad::from(first_mac), &mut sealed)
        .ok()?
        .first_chunk()
        .copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use super::*;

    /// RFC 7693, appendix B.
    #[test]
    fn blake2s() {
        assert_eq!(
            hex::encode(hash(&[b"a", b"bc"])),
            "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
        );
    }

    /// draft-irtf-cfrg-xchacha-03, section 2.2.1 and appendix A.3.1 give the
    /// subkey; the rest is RFC 8439.
    #[test]
    fn the_long_nonce_is_split_as_the_draft_says() {
        let key: [u8; 32] = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let head = hex::decode("000000090000004a0000000031415927").unwrap();
        let subkey = chacha20::hchacha::<chacha20::cipher::consts::U10>(
            GenericArray::from_slice(&key),
            GenericArray::from_slice(&head),
        );
        assert_eq!(
            hex::encode(subkey),
            "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
        );
        let sealed = seal_cookie(&key, &[7; 24], &[1; 16], &[2; 16]).unwrap();
        assert_eq!(open_cookie(&key, &[7; 24], sealed, &[2; 16]), Some([1; 16]));
        assert_eq!(open_cookie(&key, &[7; 24], sealed, &[3; 16]), None);
        assert_eq!(open_cookie(&key, &[8; 24], sealed, &[2; 16]), None);
    }

    #[test]
    fn traps_give_no_secret() {
        let own = StaticSecret::from([9; 32]);
        assert!(dh(&own, &PublicKey::from([0; 32])).is_none());
        let mut one = [0; 32];
        one[0] = 1;
        assert!(dh(&own, &PublicKey::from(one)).is_none());
    }

    #[test]
    fn codes_are_verified() {
        let code = mac(&[1; 32], b"data");
        assert!(verify(&[1; 32], b"data", &code));
        assert!(!verify(&[1; 32], b"date", &code));
        assert!(!verify(&[2; 32], b"data", &code));
    }
}
