//! Ed25519 key pairs in OpenSSH's format (PROTOCOL.key of OpenSSH).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rand::Rng as _;

const KIND: &[u8] = b"ssh-ed25519";

/// A key pair as text.
pub(crate) struct KeyPair {
    /// One line, ending with a newline.
    pub(crate) public: String,
    /// PEM text.
    pub(crate) private: String,
}

/// Makes a new pair.
pub(crate) fn generate() -> KeyPair {
    let mut rng = rand::rng();
    let key = SigningKey::from_bytes(&rng.random());
    let public = public_blob(&key);
    KeyPair {
        public: format!("ssh-ed25519 {}\n", STANDARD.encode(&public)),
        private: pem(&private_blob(&key, &public, rng.random())),
    }
}

fn field(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

fn public_blob(key: &SigningKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(51);
    field(&mut out, KIND);
    field(&mut out, key.verifying_key().as_bytes());
    out
}

fn private_blob(key: &SigningKey, public: &[u8], check: u32) -> Vec<u8> {
    let mut inner = Vec::with_capacity(160);
    inner.extend_from_slice(&check.to_be_bytes());
    inner.extend_from_slice(&check.to_be_bytes());
    field(&mut inner, KIND);
    field(&mut inner, key.verifying_key().as_bytes());
    field(&mut inner, &key.to_keypair_bytes());
    field(&mut inner, b"");
    let mut pad = 1;
    while inner.len() % 8 != 0 {
        inner.push(pad);
        pad += 1;
    }
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"openssh-key-v1\0");
    field(&mut out, b"none");
    field(&mut out, b"none");
    field(&mut out, b"");
    out.extend_from_slice(&1u32.to_be_bytes());
    field(&mut out, public);
    field(&mut out, &inner);
    out
}

fn pem(blob: &[u8]) -> String {
    let body = STANDARD.encode(blob);
    let mut out = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(70));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blobs_have_their_fixed_lengths() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = public_blob(&key);
        assert_eq!(public.len(), 51);
        assert_eq!(private_blob(&key, &public, 1).len() % 2, 0);
        let pair = generate();
        assert!(
            pair.public
                .starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI")
        );
        assert!(pair.private.lines().all(|line| line.len() <= 70));
    }
}
