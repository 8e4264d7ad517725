//! Sealing and opening of packets in place.
//!
//! ```text
//!            length │ padding length │ payload │ padding │ tag
//! GCM        clear, │◀───────── encrypted ─────────────▶│
//!            authenticated
//! chacha     own key│◀───────── encrypted ─────────────▶│
//! CTR + MAC  ◀────────────── encrypted ────────────────▶│ of the plain text
//! CTR + ETM  clear  │◀───────── encrypted ─────────────▶│ of what is sent
//! ```

use aes::cipher::{KeyIvInit, StreamCipher};
use aes::{Aes128, Aes192, Aes256};
use ctr::Ctr128BE;
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey, chacha20_poly1305_openssh as chacha};
use ring::hmac;

use crate::algo::{CipherName, MacHash, MacName};
use crate::error::Error;

/// Bytes of the length field.
pub(crate) const LENGTH: usize = 4;
/// Largest tag of all methods.
pub(crate) const LARGEST_TAG: usize = 64;
const AEAD_TAG: usize = 16;
const AES_BLOCK: usize = 16;
const SMALLEST_BLOCK: usize = 8;

/// The bytes derived from a key exchange for one direction.
pub(crate) struct KeyMaterial<'a> {
    /// Letters A or B of RFC 4253 §7.2.
    pub(crate) iv: &'a dyn Fn(usize) -> Vec<u8>,
    /// Letters C or D.
    pub(crate) key: &'a dyn Fn(usize) -> Vec<u8>,
    /// Letters E or F.
    pub(crate) mac: &'a dyn Fn(usize) -> Vec<u8>,
}

/// AES-GCM with a counter in its nonce (RFC 5647 §7.1).
struct Gcm {
    key: LessSafeKey,
    fixed: [u8; 4],
    counter: u64,
}

impl Gcm {
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.fixed);
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        Nonce::assume_unique_for_key(nonce)
    }
}

enum Ctr {
    Aes128(Box<Ctr128BE<Aes128>>),
    Aes192(Box<Ctr128BE<Aes192>>),
    Aes256(Box<Ctr128BE<Aes256>>),
}

impl Ctr {
    fn apply(&mut self, data: &mut [u8]) {
        match self {
            Self::Aes128(c) => c.apply_keystream(data),
            Self::Aes192(c) => c.apply_keystream(data),
            Self::Aes256(c) => c.apply_keystream(data),
        }
    }
}

struct Mac {
    key: hmac::Key,
    len: usize,
    etm: bool,
}

impl Mac {
    fn tag(&self, seq: u32, packet: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&seq.to_be_bytes());
        context.update(packet);
        context.sign()
    }

    fn check(&self, seq: u32, packet: &[u8], tag: &[u8]) -> Result<(), Error> {
        let ours = self.tag(seq, packet);
        let ours = ours.as_ref().get(..self.len).unwrap_or_default();
        if same(ours, tag) {
            Ok(())
        } else {
            Err(Error::Integrity)
        }
    }
}

/// Equality in a time that does not depend on the contents.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}

/// Everything about one direction that a cipher needs.
enum Suite<C> {
    Plain,
    Gcm(Box<Gcm>),
    ChaCha(Box<C>),
    CtrMac(Ctr, Mac),
}

impl<C> Suite<C> {
    fn tag_len(&self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Gcm(_) | Self::ChaCha(_) => AEAD_TAG,
            Self::CtrMac(_, mac) => mac.len,
        }
    }

    fn block(&self) -> usize {
        match self {
            Self::Plain | Self::ChaCha(_) => SMALLEST_BLOCK,
            Self::Gcm(_) | Self::CtrMac(..) => AES_BLOCK,
        }
    }

    /// Whether the length field counts for the alignment.
    fn aligns_length(&self) -> bool {
        match self {
            Self::Plain => true,
            Self::CtrMac(_, mac) => !mac.etm,
            Self::Gcm(_) | Self::ChaCha(_) => false,
        }
    }

    fn new(
        cipher: CipherName,
        mac: MacName,
        keys: &KeyMaterial<'_>,
        chacha: impl FnOnce(&[u8; chacha::KEY_LEN]) -> C,
    ) -> Result<Self, Error> {
        const BROKEN: Error = Error::Crypto("key material");
        let gcm = |algorithm: &'static aead::Algorithm| {
            let key = UnboundKey::new(algorithm, &(keys.key)(algorithm.key_len()));
            let iv = (keys.iv)(12);
            let (fixed, counter) = iv.split_first_chunk().ok_or(BROKEN)?;
            Ok::<_, Error>(Self::Gcm(Box::new(Gcm {
                key: LessSafeKey::new(key.map_err(|_| BROKEN)?),
                fixed: *fixed,
                counter: u64::from_be_bytes(counter.try_into().map_err(|_| BROKEN)?),
            })))
        };
        let ctr_mac = |ctr| Self::CtrMac(ctr, mac_key(mac, keys));
        let iv = || (keys.iv)(AES_BLOCK);
        Ok(match cipher {
            CipherName::Aes128Gcm => gcm(&aead::AES_128_GCM)?,
            CipherName::Aes256Gcm => gcm(&aead::AES_256_GCM)?,
            CipherName::ChaCha20Poly1305 => {
                let key: [u8; chacha::KEY_LEN] =
                    (keys.key)(chacha::KEY_LEN).try_into().map_err(|_| BROKEN)?;
                Self::ChaCha(Box::new(chacha(&key)))
            }
            CipherName::Aes128Ctr => ctr_mac(Ctr::Aes128(Box::new(
                Ctr128BE::new_from_slices(&(keys.key)(16), &iv()).map_err(|_| BROKEN)?,
            ))),
            CipherName::Aes192Ctr => ctr_mac(Ctr::Aes192(Box::new(
                Ctr128BE::new_from_slices(&(keys.key)(24), &iv()).map_err(|_| BROKEN)?,
            ))),
            CipherName::Aes256Ctr => ctr_mac(Ctr::Aes256(Box::new(
                Ctr128BE::new_from_slices(&(keys.key)(32), &iv()).map_err(|_| BROKEN)?,
            ))),
        })
    }
}

fn mac_key(name: MacName, keys: &KeyMaterial<'_>) -> Mac {
    let (algorithm, key_len) = match name.hash {
        MacHash::Sha256 => (hmac::HMAC_SHA256, 32),
        MacHash::Sha512 => (hmac::HMAC_SHA512, 64),
        MacHash::Sha1 => (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 20),
    };
    Mac {
        key: hmac::Key::new(algorithm, &(keys.mac)(key_len)),
        len: name.len,
        etm: name.etm,
    }
}

/// Seals outgoing packets.
pub(crate) struct Sealer(Suite<chacha::SealingKey>);

impl Sealer {
    /// Before the first key exchange.
    pub(crate) fn plain() -> Self {
        Self(Suite::Plain)
    }

    pub(crate) fn new(
        cipher: CipherName,
        mac: MacName,
        keys: &KeyMaterial<'_>,
    ) -> Result<Self, Error> {
        Suite::new(cipher, mac, keys, chacha::SealingKey::new).map(Self)
    }

    /// Bytes of padding a payload needs: at least 4 (RFC 4253 §6).
    pub(crate) fn padding(&self, payload: usize) -> usize {
        let block = self.0.block();
        let counted = 1 + payload + if self.0.aligns_length() { LENGTH } else { 0 };
        let short = block - counted % block;
        if short < 4 { short + block } else { short }
    }

    /// Seals the packet `out[start..]`, which is complete but for its tag.
    pub(crate) fn seal(&mut self, seq: u32, out: &mut Vec<u8>, start: usize) -> Result<(), Error> {
        const BROKEN: Error = Error::Crypto("sealing");
        let packet = out.get_mut(start..).ok_or(BROKEN)?;
        match &mut self.0 {
            Suite::Plain => {}
            Suite::Gcm(gcm) => {
                let (length, body) = packet.split_at_mut_checked(LENGTH).ok_or(BROKEN)?;
                let nonce = gcm.next_nonce();
                let tag = gcm
                    .key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*length), body)
                    .map_err(|_| BROKEN)?;
                out.extend_from_slice(tag.as_ref());
            }
            Suite::ChaCha(key) => {
                let mut tag = [0; AEAD_TAG];
                key.seal_in_place(seq, packet, &mut tag);
                out.extend_from_slice(&tag);
            }
            Suite::CtrMac(ctr, mac) => {
                let tag = if mac.etm {
                    ctr.apply(packet.get_mut(LENGTH..).ok_or(BROKEN)?);
                    mac.tag(seq, packet)
                } else {
                    let tag = mac.tag(seq, packet);
                    ctr.apply(packet);
                    tag
                };
                out.extend_from_slice(tag.as_ref().get(..mac.len).ok_or(BROKEN)?);
            }
        }
        Ok(())
    }
}

/// Opens incoming packets.
pub(crate) struct Opener(Suite<chacha::OpeningKey>);

impl Opener {
    /// Before the first key exchange.
    pub(crate) fn plain() -> Self {
        Self(Suite::Plain)
    }

    pub(crate) fn new(
        cipher: CipherName,
        mac: MacName,
        keys: &KeyMaterial<'_>,
    ) -> Result<Self, Error> {
        Suite::new(cipher, mac, keys, chacha::OpeningKey::new).map(Self)
    }

    /// Bytes of a packet needed to learn its length.
    pub(crate) fn head_len(&self) -> usize {
        match &self.0 {
            Suite::CtrMac(_, mac) if !mac.etm => AES_BLOCK,
            _ => LENGTH,
        }
    }

    pub(crate) fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    /// The length field of the packet that starts with `head`, of
    /// [`Opener::head_len`] bytes. Must be called once per packet: it may
    /// decrypt the head in place. The length is not authenticated yet.
    pub(crate) fn length(&mut self, seq: u32, head: &mut [u8]) -> Result<u32, Error> {
        if let Suite::CtrMac(ctr, mac) = &mut self.0
            && !mac.etm
        {
            ctr.apply(head);
        }
        let field = *head.first_chunk().ok_or(Error::Crypto("opening"))?;
        let length = match &self.0 {
            Suite::ChaCha(key) => key.decrypt_packet_length(seq, field),
            _ => field,
        };
        Ok(u32::from_be_bytes(length))
    }

    /// Whether a packet may have this length.
    pub(crate) fn accepts(&self, length: usize) -> bool {
        let counted = length + if self.0.aligns_length() { LENGTH } else { 0 };
        // One byte of padding length, one of payload, four of padding.
        length >= 6 && counted.is_multiple_of(self.0.block())
    }

    /// Opens a whole packet, its tag included, in place.
    pub(crate) fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Error> {
        const BROKEN: Error = Error::Crypto("opening");
        let head_len = self.head_len();
        let end = packet.len().checked_sub(self.tag_len()).ok_or(BROKEN)?;
        let (packet, tag) = packet.split_at_mut(end);
        match &mut self.0 {
            Suite::Plain => {}
            Suite::Gcm(gcm) => {
                let (length, body) = packet.split_at_mut_checked(LENGTH).ok_or(BROKEN)?;
                let nonce = gcm.next_nonce();
                let tag = aead::Tag::try_from(&*tag).map_err(|_| BROKEN)?;
                gcm.key
                    .open_in_place_separate_tag(nonce, Aad::from(&*length), tag, body, 0..)
                    .map_err(|_| Error::Integrity)?;
            }
            Suite::ChaCha(key) => {
                let tag = (&*tag).try_into().map_err(|_| BROKEN)?;
                key.open_in_place(seq, packet, tag)
                    .map_err(|_| Error::Integrity)?;
            }
            Suite::CtrMac(ctr, mac) if mac.etm => {
                mac.check(seq, packet, tag)?;
                ctr.apply(packet.get_mut(LENGTH..).ok_or(BROKEN)?);
            }
            Suite::CtrMac(ctr, mac) => {
                ctr.apply(packet.get_mut(head_len..).ok_or(BROKEN)?);
                mac.check(seq, packet, tag)?;
            }
        }
        Ok(())
    }
}
