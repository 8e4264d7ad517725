//! Key exchange methods: from public values to the shared secret.
//!
//! | Method | Client | Server | Secret | Source |
//! |---|---|---|---|---|
//! | `curve25519-sha256` | string | string | mpint | RFC 8731 |
//! | `ecdh-sha2-nistp*` | string | string | mpint | RFC 5656 §4 |
//! | `diffie-hellman-group14-*` | mpint | mpint | mpint | RFC 4253 §8 |
//! | `mlkem768x25519-sha256` | string | string | string | draft-ietf-sshm-mlkem-hybrid-kex |

use ml_kem::array::Array;
use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
use ml_kem::{Decapsulate, KeyExport};
use num_bigint::BigUint;
use ring::digest::{self, Algorithm};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::algo::Kex;
use crate::error::Error;
use crate::random::Stock;
use crate::wire::{Reader, Write};

/// Sizes in bytes for ML-KEM-768 (FIPS 203 table 3) and X25519.
const MLKEM_KEY: usize = 1184;
const MLKEM_TEXT: usize = 1088;
const X25519: usize = 32;
/// Bytes of a Diffie-Hellman exponent: twice the strongest cipher's key.
const DH_EXPONENT: usize = 64;
/// Attempts to draw a scalar of a curve; each fails with less than 2^-30,
/// and P-521 scalars are cut to size first.
const DRAWS: usize = 8;

/// The 2048-bit MODP group (RFC 3526 §3); its generator is 2.
const GROUP14: &str = "\
    ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74\
    020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437\
    4fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed\
    ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf05\
    98da48361c55d39a69163fa8fd24cf5f83655d23dca3ad961c62f356208552bb\
    9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b\
    e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf695581718\
    3995497cea956ae515d2261898fa051015728e5a8aacaa68ffffffffffffffff";

impl Kex {
    /// The hash of the exchange and of the key derivation.
    pub(crate) fn hash(self) -> &'static Algorithm {
        match self {
            Self::MlKem768X25519 | Self::Curve25519 | Self::NistP256 | Self::Group14Sha256 => {
                &digest::SHA256
            }
            Self::NistP384 => &digest::SHA384,
            Self::NistP521 => &digest::SHA512,
            Self::Group14Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        }
    }
}

/// What an exchange yields, each encoded as the exchange hash and the reply
/// want it.
pub(crate) struct Exchange {
    pub(crate) client: Vec<u8>,
    pub(crate) server: Vec<u8>,
    pub(crate) secret: Vec<u8>,
}

fn as_string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_string(bytes);
    out
}

fn as_mpint(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_mpint(bytes);
    out
}

/// Runs the server's side on the client's first message, from after the
/// message number.
pub(crate) fn run(kex: Kex, message: &[u8], random: &mut Stock) -> Result<Exchange, Error> {
    let mut reader = Reader::new(message, "key exchange message");
    let (client, server, secret) = match kex {
        Kex::Group14Sha256 | Kex::Group14Sha1 => {
            let e = reader.positive()?;
            let (f, secret) = group14(&e, random)?;
            return Ok(Exchange {
                client: as_mpint(&e.to_bytes_be()),
                server: as_mpint(&f.to_bytes_be()),
                secret: as_mpint(&secret.to_bytes_be()),
            });
        }
        Kex::MlKem768X25519 => {
            let client = reader.string()?;
            let (server, secret) = hybrid(client, random)?;
            return Ok(Exchange {
                client: as_string(client),
                server: as_string(&server),
                secret: as_string(&secret),
            });
        }
        Kex::Curve25519 => {
            let client = reader.string()?;
            let (server, secret) = x25519(client, random)?;
            (client, server.to_vec(), secret.to_vec())
        }
        Kex::NistP256 => {
            let client = reader.string()?;
            let (server, secret) = p256(client, random)?;
            (client, server, secret)
        }
        Kex::NistP384 => {
            let client = reader.string()?;
            let (server, secret) = p384(client, random)?;
            (client, server, secret)
        }
        Kex::NistP521 => {
            let client = reader.string()?;
            let (server, secret) = p521(client, random)?;
            (client, server, secret)
        }
    };
    Ok(Exchange {
        client: as_string(client),
        server: as_string(&server),
        secret: as_mpint(&secret),
    })
}

/// RFC 8731 §3: the all-zero value must be refused.
fn x25519_shared(secret: &StaticSecret, theirs: &[u8]) -> Result<[u8; X25519], Error> {
    const INVALID: Error = Error::KeyExchange("invalid X25519 value");
    let theirs: [u8; X25519] = theirs.try_into().map_err(|_| INVALID)?;
    let shared = secret.diffie_hellman(&PublicKey::from(theirs));
    if !shared.was_contributory() {
        return Err(INVALID);
    }
    Ok(shared.to_bytes())
}

fn x25519(client: &[u8], random: &mut Stock) -> Result<([u8; X25519], [u8; X25519]), Error> {
    let secret = StaticSecret::from(random.array::<X25519>()?);
    let shared = x25519_shared(&secret, client)?;
    Ok((PublicKey::from(&secret).to_bytes(), shared))
}

fn hybrid(client: &[u8], random: &mut Stock) -> Result<(Vec<u8>, Vec<u8>), Error> {
    const INVALID: Error = Error::KeyExchange("invalid ML-KEM key");
    let (kem, curve) = client.split_at_checked(MLKEM_KEY).ok_or(INVALID)?;
    let kem = Array::try_from(kem).map_err(|_| INVALID)?;
    let kem = EncapsulationKey::new(&kem).map_err(|_| INVALID)?;
    let (public, classic) = x25519(curve, random)?;
    let (ciphertext, key) = kem.encapsulate_deterministic(&Array(random.array::<32>()?));
    let mut server = ciphertext.to_vec();
    server.put(&public);
    Ok((server, combine(&key, &classic)))
}

/// The secret of the hybrid method.
fn combine(kem: &[u8], classic: &[u8]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(kem);
    context.update(classic);
    context.finish().as_ref().to_vec()
}

/// One function per NIST curve; `$mask` cuts the first byte of a draw to the
/// size of the curve's order.
macro_rules! nist {
    ($name:ident, $krate:ident, $size:literal, $mask:literal) => {
        fn $name(client: &[u8], random: &mut Stock) -> Result<(Vec<u8>, Vec<u8>), Error> {
            const INVALID: Error = Error::KeyExchange("invalid ECDH value");
            // RFC 5656 §4 leaves compression open; nobody uses it.
            if client.first() != Some(&4) {
                return Err(INVALID);
            }
            let client = $krate::PublicKey::from_sec1_bytes(client).map_err(|_| INVALID)?;
            for _ in 0..DRAWS {
                let mut scalar = random.array::<$size>()?;
                scalar[0] &= $mask;
                // Zero, or not below the order.
                let Ok(secret) = $krate::SecretKey::from_slice(&scalar) else {
                    continue;
                };
                let shared = secret.diffie_hellman(&client);
                let public = $krate::Sec1Point::from(secret.public_key());
                return Ok((
                    public.as_bytes().to_vec(),
                    shared.raw_secret_bytes().to_vec(),
                ));
            }
            Err(Error::Crypto("no scalar in the range"))
        }
    };
}
nist!(p256, p256, 32, 0xff);
nist!(p384, p384, 48, 0xff);
nist!(p521, p521, 66, 0x01);

fn group14(e: &BigUint, random: &mut Stock) -> Result<(BigUint, BigUint), Error> {
    let one = BigUint::from(1u32);
    let p = BigUint::parse_bytes(GROUP14.as_bytes(), 16).ok_or(Error::Crypto("group 14"))?;
    if *e <= one || *e >= &p - &one {
        return Err(Error::KeyExchange("Diffie-Hellman value out of range"));
    }
    let y = BigUint::from_bytes_be(&random.array::<DH_EXPONENT>()?);
    let f = BigUint::from(2u32).modpow(&y, &p);
    Ok((f, e.modpow(&y, &p)))
}

/// A client's part of an exchange that awaits the server's.
pub(crate) struct Attempt {
    /// Encoded for the exchange hash and the first message.
    client: Vec<u8>,
    secret: Secret,
}

/// What the client keeps to itself.
enum Secret {
    Hybrid(Box<DecapsulationKey>, StaticSecret),
    X25519(StaticSecret),
    NistP256(Box<p256::SecretKey>),
}

impl Attempt {
    /// Draws the client's values for a method that clients offer.
    pub(crate) fn new(kex: Kex, random: &mut Stock) -> Result<Self, Error> {
        let (client, secret) = match kex {
            Kex::MlKem768X25519 => {
                let kem = DecapsulationKey::from_seed(Array(random.array::<64>()?));
                let curve = StaticSecret::from(random.array::<X25519>()?);
                let mut client = kem.encapsulation_key().to_bytes().to_vec();
                client.put(PublicKey::from(&curve).as_bytes());
                (client, Secret::Hybrid(Box::new(kem), curve))
            }
            Kex::Curve25519 => {
                let secret = StaticSecret::from(random.array::<X25519>()?);
                let client = PublicKey::from(&secret).as_bytes().to_vec();
                (client, Secret::X25519(secret))
            }
            Kex::NistP256 => {
                let scalar = random.array::<32>()?;
                // Fails with less than 2^-30.
                let secret = p256::SecretKey::from_slice(&scalar)
                    .map_err(|_| Error::Crypto("no scalar in the range"))?;
                let client = p256::Sec1Point::from(secret.public_key());
                (
                    client.as_bytes().to_vec(),
                    Secret::NistP256(Box::new(secret)),
                )
            }
            _ => return Err(Error::NoCommonAlgorithm("key exchange")),
        };
        Ok(Self {
            client: as_string(&client),
            secret,
        })
    }

    /// What goes into the first message, after its number.
    pub(crate) fn message(&self) -> &[u8] {
        &self.client
    }

    /// Takes the server's value.
    pub(crate) fn finish(self, server: &[u8]) -> Result<Exchange, Error> {
        let secret = match self.secret {
            Secret::Hybrid(kem, curve) => {
                const INVALID: Error = Error::KeyExchange("invalid ML-KEM ciphertext");
                let (ciphertext, public) = server.split_at_checked(MLKEM_TEXT).ok_or(INVALID)?;
                let ciphertext = Array::try_from(ciphertext).map_err(|_| INVALID)?;
                let key = kem.decapsulate(&ciphertext);
                let classic = x25519_shared(&curve, public)?;
                as_string(&combine(&key, &classic))
            }
            Secret::X25519(secret) => as_mpint(&x25519_shared(&secret, server)?),
            Secret::NistP256(secret) => {
                let server = p256::PublicKey::from_sec1_bytes(server)
                    .map_err(|_| Error::KeyExchange("invalid ECDH value"))?;
                as_mpint(secret.diffie_hellman(&server).raw_secret_bytes())
            }
        };
        Ok(Exchange {
            client: self.client,
            server: as_string(server),
            secret,
        })
    }
}

/// Derives `len` bytes for the letter `letter` (RFC 4253 §7.2). `secret` is
/// encoded.
pub(crate) fn derive(
    hash: &'static Algorithm,
    secret: &[u8],
    exchange_hash: &[u8],
    letter: u8,
    session_id: &[u8],
    len: usize,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + hash.output_len());
    while out.len() < len {
        let mut context = digest::Context::new(hash);
        context.update(secret);
        context.update(exchange_hash);
        if out.is_empty() {
            context.update(&[letter]);
            context.update(session_id);
        } else {
            context.update(&out);
        }
        out.extend_from_slice(context.finish().as_ref());
    }
    out.truncate(len);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo::Named as _;
    use crate::random::{Random, SystemRandom};

    fn stock() -> Stock {
        Stock::new(Box::new(SystemRandom))
    }

    fn field(exchange: &[u8]) -> &[u8] {
        Reader::new(exchange, "test").string().unwrap()
    }

    #[test]
    fn curves_agree_with_their_other_side() {
        macro_rules! check {
            ($kex:expr, $krate:ident, $size:literal) => {
                let mut scalar = [0; $size];
                SystemRandom.fill(&mut scalar[2..]);
                let secret = $krate::SecretKey::from_slice(&scalar).unwrap();
                let public = $krate::Sec1Point::from(secret.public_key());
                let exchange = run($kex, &as_string(public.as_bytes()), &mut stock()).unwrap();
                let server = $krate::PublicKey::from_sec1_bytes(field(&exchange.server)).unwrap();
                let shared = secret.diffie_hellman(&server);
                assert_eq!(exchange.secret, as_mpint(shared.raw_secret_bytes()));
            };
        }
        check!(Kex::NistP256, p256, 32);
        check!(Kex::NistP384, p384, 48);
        check!(Kex::NistP521, p521, 66);
    }

    /// RFC 7748 §5.2, first vector.
    #[test]
    fn x25519_is_that_of_the_rfc() {
        struct Fixed([u8; 32]);
        impl Random for Fixed {
            fn fill(&mut self, out: &mut [u8]) -> bool {
                out.copy_from_slice(&self.0);
                true
            }
        }
        let bytes = |hex: &str| -> [u8; 32] {
            let number = BigUint::parse_bytes(hex.as_bytes(), 16).unwrap();
            number.to_bytes_be().try_into().unwrap()
        };
        let scalar = bytes("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
        let point = bytes("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
        let secret = bytes("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
        let mut random = Stock::new(Box::new(Fixed(scalar)));
        let exchange = run(Kex::Curve25519, &as_string(&point), &mut random).unwrap();
        assert_eq!(exchange.secret, as_mpint(&secret));
    }

    #[test]
    fn invalid_values_are_refused() {
        let prime = BigUint::parse_bytes(GROUP14.as_bytes(), 16).unwrap();
        assert_eq!(prime.bits(), 2048);
        let one = BigUint::from(1u32);
        for (kex, message) in [
            (Kex::Curve25519, as_string(&[0; 32])),
            (Kex::Curve25519, as_string(&[1; 31])),
            (Kex::NistP256, as_string(&[4; 65])),
            (Kex::NistP256, as_string(&[])),
            (Kex::NistP521, as_string(&[0])),
            (Kex::MlKem768X25519, as_string(&[0xff; 1216])),
            (Kex::MlKem768X25519, as_string(&[1; 1184])),
            (Kex::Group14Sha256, as_mpint(&[])),
            (Kex::Group14Sha256, as_mpint(&[1])),
            (Kex::Group14Sha1, as_mpint(&(&prime - &one).to_bytes_be())),
            (Kex::Group14Sha1, b"\0\0\0\x01\x80".to_vec()),
        ] {
            assert!(run(kex, &message, &mut stock()).is_err(), "{kex:?}");
        }
    }

    #[test]
    fn clients_agree_with_servers() {
        for (_, kex) in Kex::CLIENT {
            let attempt = Attempt::new(*kex, &mut stock()).unwrap();
            let here = run(*kex, attempt.message(), &mut stock()).unwrap();
            let there = attempt.finish(field(&here.server)).unwrap();
            assert_eq!(here.secret, there.secret);
            assert_eq!((here.client, here.server), (there.client, there.server));
            for wrong in [&[][..], &[4; 65], &[0; 32], &[0; 1120]] {
                let attempt = Attempt::new(*kex, &mut stock()).unwrap();
                assert!(attempt.finish(wrong).is_err(), "{kex:?}");
            }
        }
        assert!(Attempt::new(Kex::NistP521, &mut stock()).is_err());
    }

    #[test]
    fn groups_agree_with_their_other_side() {
        let prime = BigUint::parse_bytes(GROUP14.as_bytes(), 16).unwrap();
        let x = BigUint::from(0x1234_5678_9abc_def0u64);
        let e = BigUint::from(2u32).modpow(&x, &prime);
        let message = as_mpint(&e.to_bytes_be());
        let exchange = run(Kex::Group14Sha256, &message, &mut stock()).unwrap();
        let f = Reader::new(&exchange.server, "test").positive().unwrap();
        let secret = f.modpow(&x, &prime);
        assert_eq!(exchange.secret, as_mpint(&secret.to_bytes_be()));
    }
}
