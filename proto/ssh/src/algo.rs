//! Names of algorithms and how two sides agree on them (RFC 4253 §7.1).

use crate::error::Error;
use crate::hostkey::Algorithm;
use crate::rsa::Scheme;
use crate::wire::{Reader, Write};

/// Which side of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What one algorithm is called on the wire.
pub(crate) trait Named: Copy + 'static {
    /// All algorithms of this kind with their names, in order of preference.
    const ALL: &'static [(&'static str, Self)];
    /// Those a client offers.
    const CLIENT: &'static [(&'static str, Self)] = Self::ALL;

    /// Those that `side` offers.
    fn offered(side: Side) -> &'static [(&'static str, Self)] {
        match side {
            Side::Client => Self::CLIENT,
            Side::Server => Self::ALL,
        }
    }
}

/// Key exchange methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kex {
    /// draft-ietf-sshm-mlkem-hybrid-kex.
    MlKem768X25519,
    /// RFC 8731.
    Curve25519,
    /// RFC 5656.
    NistP256,
    NistP384,
    NistP521,
    /// RFC 8268.
    Group14Sha256,
    /// RFC 4253 §8.1.
    Group14Sha1,
}

impl Named for Kex {
    const ALL: &'static [(&'static str, Self)] = &[
        ("mlkem768x25519-sha256", Self::MlKem768X25519),
        ("curve25519-sha256", Self::Curve25519),
        ("curve25519-sha256@libssh.org", Self::Curve25519),
        ("ecdh-sha2-nistp256", Self::NistP256),
        ("ecdh-sha2-nistp384", Self::NistP384),
        ("ecdh-sha2-nistp521", Self::NistP521),
        ("diffie-hellman-group14-sha256", Self::Group14Sha256),
        ("diffie-hellman-group14-sha1", Self::Group14Sha1),
    ];
    /// The first is also the guess.
    const CLIENT: &'static [(&'static str, Self)] = &[
        ("mlkem768x25519-sha256", Self::MlKem768X25519),
        ("curve25519-sha256", Self::Curve25519),
        ("curve25519-sha256@libssh.org", Self::Curve25519),
        ("ecdh-sha2-nistp256", Self::NistP256),
    ];
}

/// Servers here have RSA keys. Clients take no signatures over SHA-1.
impl Named for Algorithm {
    const ALL: &'static [(&'static str, Self)] = &[
        ("rsa-sha2-256", Self::Rsa(Scheme::Sha256)),
        ("rsa-sha2-512", Self::Rsa(Scheme::Sha512)),
        ("ssh-rsa", Self::Rsa(Scheme::Sha1)),
    ];
    const CLIENT: &'static [(&'static str, Self)] = &[
        ("rsa-sha2-256", Self::Rsa(Scheme::Sha256)),
        ("rsa-sha2-512", Self::Rsa(Scheme::Sha512)),
        ("ssh-ed25519", Self::Ed25519),
    ];
}

/// Ciphers: RFC 4344, RFC 5647 as profiled by OpenSSH's PROTOCOL §1.6, and
/// PROTOCOL.chacha20poly1305.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CipherName {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
    Aes128Ctr,
    Aes192Ctr,
    Aes256Ctr,
}

impl CipherName {
    /// True if the cipher authenticates by itself.
    pub(crate) fn is_aead(self) -> bool {
        matches!(
            self,
            Self::Aes128Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305
        )
    }
}

impl Named for CipherName {
    const ALL: &'static [(&'static str, Self)] = &[
        ("aes128-gcm@openssh.com", Self::Aes128Gcm),
        ("aes256-gcm@openssh.com", Self::Aes256Gcm),
        ("chacha20-poly1305@openssh.com", Self::ChaCha20Poly1305),
        ("aes128-ctr", Self::Aes128Ctr),
        ("aes192-ctr", Self::Aes192Ctr),
        ("aes256-ctr", Self::Aes256Ctr),
    ];
}

/// Hash of a MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MacHash {
    Sha256,
    Sha512,
    Sha1,
}

/// MACs: RFC 6668, RFC 4253 §6.4, OpenSSH's PROTOCOL §1.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MacName {
    pub(crate) hash: MacHash,
    /// Bytes of the tag that are sent.
    pub(crate) len: usize,
    /// Computed over the encrypted packet.
    pub(crate) etm: bool,
}

const fn mac(hash: MacHash, len: usize, etm: bool) -> MacName {
    MacName { hash, len, etm }
}

impl Named for MacName {
    const ALL: &'static [(&'static str, Self)] = &[
        (
            "hmac-sha2-256-etm@openssh.com",
            mac(MacHash::Sha256, 32, true),
        ),
        (
            "hmac-sha2-512-etm@openssh.com",
            mac(MacHash::Sha512, 64, true),
        ),
        ("hmac-sha2-256", mac(MacHash::Sha256, 32, false)),
        ("hmac-sha2-512", mac(MacHash::Sha512, 64, false)),
        ("hmac-sha1", mac(MacHash::Sha1, 20, false)),
        ("hmac-sha1-96", mac(MacHash::Sha1, 12, false)),
    ];
}

/// The only compression.
const NO_COMPRESSION: &str = "none";
/// A client that wants `SSH_MSG_EXT_INFO` (RFC 8308 §2.1).
const EXT_INFO_CLIENT: &str = "ext-info-c";
/// Strict key exchange (OpenSSH's PROTOCOL §1.10).
const STRICT_CLIENT: &str = "kex-strict-c-v00@openssh.com";
const STRICT_SERVER: &str = "kex-strict-s-v00@openssh.com";

/// What both sides agreed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agreed {
    pub(crate) kex: Kex,
    pub(crate) host_key: Algorithm,
    /// From the client, to the client.
    pub(crate) ciphers: [CipherName; 2],
    pub(crate) macs: [MacName; 2],
    pub(crate) strict: bool,
    pub(crate) wants_ext_info: bool,
    /// The peer has sent a key exchange message on a guess.
    pub(crate) peer_guessed: bool,
    /// A guess, whoever made it, was right.
    pub(crate) guess_right: bool,
}

fn join(names: impl Iterator<Item = &'static str>) -> String {
    let mut list = String::new();
    for name in names {
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(name);
    }
    list
}

/// Our lists, from the cookie on. With `guess`, a key exchange message for
/// the first of them follows.
pub(crate) fn write_offer(side: Side, out: &mut Vec<u8>, cookie: [u8; 16], guess: bool) {
    fn names<T: Named>(side: Side) -> impl Iterator<Item = &'static str> {
        T::offered(side).iter().map(|(name, _)| *name)
    }
    let extensions: &[&str] = match side {
        Side::Client => &[EXT_INFO_CLIENT, STRICT_CLIENT],
        Side::Server => &[STRICT_SERVER],
    };
    out.put(&cookie);
    out.put_string(join(names::<Kex>(side).chain(extensions.iter().copied())));
    out.put_string(join(names::<Algorithm>(side)));
    for _ in 0..2 {
        out.put_string(join(names::<CipherName>(side)));
    }
    for _ in 0..2 {
        out.put_string(join(names::<MacName>(side)));
    }
    for _ in 0..2 {
        out.put_string(NO_COMPRESSION);
    }
    for _ in 0..2 {
        out.put_string("");
    }
    out.put_bool(guess);
    out.put_u32(0);
}

/// The first of the client's algorithms that the server has, too; `list` is
/// the peer's.
fn choose<T: Named>(side: Side, list: &str, what: &'static str) -> Result<T, Error> {
    let ours = T::offered(side);
    let chosen = match side {
        Side::Server => list
            .split(',')
            .find_map(|name| ours.iter().find(|(n, _)| *n == name)),
        Side::Client => ours
            .iter()
            .find(|(n, _)| list.split(',').any(|name| name == *n)),
    };
    chosen
        .map(|(_, algorithm)| *algorithm)
        .ok_or(Error::NoCommonAlgorithm(what))
}

/// Whether the peer's first choice is ours, too.
fn same_first<T: Named>(side: Side, list: &str) -> bool {
    list.split(',').next() == T::offered(side).first().map(|(name, _)| *name)
}

/// Reads the peer's `SSH_MSG_KEXINIT` from the cookie on and decides.
pub(crate) fn agree(side: Side, body: &[u8]) -> Result<Agreed, Error> {
    let mut reader = Reader::new(body, "KEXINIT");
    let _cookie: [u8; 16] = reader.array()?;
    let mut lists = [""; 10];
    for list in &mut lists {
        *list = reader.name()?;
    }
    let peer_guessed = reader.bool()?;
    reader.u32()?;
    let [
        kex,
        host_key,
        cipher_in,
        cipher_out,
        mac_in,
        mac_out,
        zip_in,
        zip_out,
        _,
        _,
    ] = lists;
    let ciphers = [
        choose::<CipherName>(side, cipher_in, "cipher")?,
        choose::<CipherName>(side, cipher_out, "cipher")?,
    ];
    let mac = |cipher: CipherName, list| {
        if cipher.is_aead() {
            Ok(MacName::ALL[0].1)
        } else {
            choose::<MacName>(side, list, "MAC")
        }
    };
    for list in [zip_in, zip_out] {
        if !list.split(',').any(|name| name == NO_COMPRESSION) {
            return Err(Error::NoCommonAlgorithm("compression"));
        }
    }
    let lists = |name| kex.split(',').any(|n| n == name);
    Ok(Agreed {
        kex: choose(side, kex, "key exchange")?,
        host_key: choose(side, host_key, "host key algorithm")?,
        macs: [mac(ciphers[0], mac_in)?, mac(ciphers[1], mac_out)?],
        ciphers,
        strict: lists(match side {
            Side::Client => STRICT_SERVER,
            Side::Server => STRICT_CLIENT,
        }),
        wants_ext_info: side == Side::Server && lists(EXT_INFO_CLIENT),
        peer_guessed,
        guess_right: same_first::<Kex>(side, kex) && same_first::<Algorithm>(side, host_key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(kex: &str, ciphers: &str, macs: &str, follows: bool) -> Vec<u8> {
        let mut out = vec![0; 16];
        for list in [
            kex,
            "ssh-ed25519,rsa-sha2-512",
            ciphers,
            ciphers,
            macs,
            macs,
            "none,zlib",
            "none",
            "",
            "",
        ] {
            out.put_string(list);
        }
        out.put_bool(follows);
        out.put_u32(0);
        out
    }

    #[test]
    fn the_client_decides() {
        let agreed = agree(
            Side::Server,
            &offer(
                "sntrup761x25519-sha512,ecdh-sha2-nistp256,curve25519-sha256,ext-info-c",
                "3des-cbc,aes256-ctr,aes128-gcm@openssh.com",
                "umac-64@openssh.com,hmac-sha2-512",
                true,
            ),
        )
        .unwrap();
        assert_eq!(agreed.kex, Kex::NistP256);
        assert_eq!(agreed.host_key, Algorithm::Rsa(Scheme::Sha512));
        assert_eq!(agreed.ciphers, [CipherName::Aes256Ctr; 2]);
        assert_eq!(agreed.macs, [mac(MacHash::Sha512, 64, false); 2]);
        assert!(!agreed.strict && agreed.wants_ext_info);
        assert!(agreed.peer_guessed && !agreed.guess_right);
    }

    #[test]
    fn a_client_decides_by_its_own_order() {
        let theirs = offer(
            "curve25519-sha256,mlkem768x25519-sha256,kex-strict-s-v00@openssh.com",
            "aes256-ctr,aes128-gcm@openssh.com",
            "hmac-sha1",
            false,
        );
        let agreed = agree(Side::Client, &theirs).unwrap();
        assert_eq!(agreed.kex, Kex::MlKem768X25519);
        assert_eq!(agreed.host_key, Algorithm::Rsa(Scheme::Sha512));
        assert_eq!(agreed.ciphers, [CipherName::Aes128Gcm; 2]);
        assert!(agreed.strict && !agreed.wants_ext_info && !agreed.guess_right);
    }

    #[test]
    fn both_sides_guess_the_same() {
        for (here, there) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
            let mut offer = Vec::new();
            write_offer(there, &mut offer, [0; 16], true);
            let agreed = agree(here, &offer).unwrap();
            assert!(agreed.guess_right && agreed.peer_guessed && agreed.strict);
            assert_eq!(agreed.kex, Kex::CLIENT[0].1);
        }
    }

    #[test]
    fn nothing_in_common_is_an_error() {
        for (kex, cipher, mac) in [
            ("x", "aes128-ctr", "hmac-sha1"),
            ("curve25519-sha256", "x", "hmac-sha1"),
            ("curve25519-sha256", "aes128-ctr", "x"),
        ] {
            let result = agree(Side::Server, &offer(kex, cipher, mac, false));
            assert!(matches!(result, Err(Error::NoCommonAlgorithm(_))));
        }
        // No MAC is needed here.
        let aead = offer("curve25519-sha256", "aes256-gcm@openssh.com", "x", false);
        assert!(agree(Side::Server, &aead).is_ok());
        assert!(agree(Side::Server, b"too short").is_err());
    }
}
