//! What the server offers in the key exchange.

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::{Algorithm, HashAlg};
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use crate::config::Config;
use crate::hostkey::HostKey;
use crate::inbox::WINDOW;
use crate::server::SHORTEST_SILENCE;

/// The identification of the SSH server in Coder's agent. No client is known
/// to look at it, and none shall have a reason to start.
const IDENTIFICATION: &str = "SSH-2.0-Go";

/// Signs of life that may stay unanswered.
const UNANSWERED: usize = 3;

/// In the order Coder's agent offers them.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G14_SHA256,
    kex::DH_G14_SHA1,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

const HOST_KEYS: &[Algorithm] = &[
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha256),
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha512),
    },
    Algorithm::Rsa { hash: None },
];

const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

/// `hmac-sha1-96` of Coder's agent is missing here; every client that knows
/// it knows the others.
const MACS: &[mac::Name] = &[
    mac::HMAC_SHA256_ETM,
    mac::HMAC_SHA512_ETM,
    mac::HMAC_SHA256,
    mac::HMAC_SHA512,
    mac::HMAC_SHA1,
];

/// The configuration of the SSH library.
pub(crate) fn server_config(config: &Config, key: &HostKey) -> russh::server::Config {
    russh::server::Config {
        server_id: SshId::Standard(Cow::Borrowed(IDENTIFICATION)),
        methods: MethodSet::from(&[MethodKind::None][..]),
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key.private()],
        window_size: WINDOW,
        manual_window_adjust: true,
        inactivity_timeout: None,
        keepalive_interval: config
            .max_timeout
            .filter(|max| *max >= SHORTEST_SILENCE)
            .map(|max| max / 3),
        keepalive_max: UNANSWERED,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Borrowed(HOST_KEYS),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        ..russh::server::Config::default()
    }
}
