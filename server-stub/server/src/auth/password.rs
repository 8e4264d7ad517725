//! Passwords: Argon2id, and how strong one must be.

use anyhow::anyhow;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{Output, ParamsString, PasswordHash, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::Semaphore;

/// Memory for one hash in KiB: OWASP's recommendation for Argon2id with one
/// lane and two passes.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LENGTH: usize = 32;
/// Bits of guessing work a password must have.
const MIN_ENTROPY: f64 = 52.0;
const MAX_LENGTH: usize = 64;
/// Address space asked for with each hash. Above 32 MiB glibc always gives a
/// mapping of its own, which goes back to the system when it is freed; smaller
/// ones would stay with the process. What is not used costs nothing.
const RESERVED_BLOCKS: usize = 33 * 1024;

/// Hashes at the same time: each takes 19 MiB while it runs.
static SLOTS: Semaphore = Semaphore::const_new(2);

fn params() -> Params {
    Params::new(MEMORY_KIB, PASSES, 1, Some(LENGTH)).unwrap_or_default()
}

fn derive(password: &str, salt: &[u8], params: Params) -> anyhow::Result<Output> {
    let blocks = params.block_count();
    let mut memory: Vec<Block> = Vec::with_capacity(blocks.max(RESERVED_BLOCKS));
    memory.resize_with(blocks, Block::default);
    let mut out = [0; LENGTH];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password.as_bytes(), salt, &mut out, &mut memory[..])
        .map_err(|error| anyhow!("hash password: {error}"))?;
    Output::new(&out).map_err(|error| anyhow!("hash password: {error}"))
}

fn decode(salt: Salt<'_>) -> anyhow::Result<Vec<u8>> {
    let mut buffer = [0; Salt::MAX_LENGTH];
    let bytes = salt
        .decode_b64(&mut buffer)
        .map_err(|error| anyhow!("salt of a password: {error}"))?;
    Ok(bytes.to_vec())
}

fn hash_now(password: &str) -> anyhow::Result<String> {
    let wrong = |error| anyhow!("hash password: {error}");
    let salt = SaltString::generate(&mut OsRng);
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params()).map_err(wrong)?,
        salt: Some(salt.as_salt()),
        hash: Some(derive(password, &decode(salt.as_salt())?, params())?),
    };
    Ok(hash.to_string())
}

fn verify_now(password: &str, stored: &str) -> anyhow::Result<bool> {
    let Ok(hash) = PasswordHash::new(stored) else {
        derive(password, b"no such account", params())?;
        return Ok(false);
    };
    let (Some(salt), Some(expected)) = (hash.salt, hash.hash) else {
        return Ok(false);
    };
    let params = Params::try_from(&hash).map_err(|error| anyhow!("stored password: {error}"))?;
    // Outputs are compared in constant time.
    Ok(derive(password, &decode(salt)?, params)? == expected)
}

/// The stored form of a password.
///
/// # Errors
/// When the hash cannot be computed.
pub(crate) async fn hash(password: String) -> anyhow::Result<String> {
    let _slot = SLOTS.acquire().await?;
    tokio::task::spawn_blocking(move || hash_now(&password)).await?
}

/// Whether a password is the one behind `stored`. An empty `stored` never
/// matches but takes as long.
///
/// # Errors
/// When the check cannot be made.
pub(crate) async fn verify(password: String, stored: String) -> anyhow::Result<bool> {
    let _slot = SLOTS.acquire().await?;
    tokio::task::spawn_blocking(move || verify_now(&password, &stored)).await?
}

/// Why a password is not acceptable.
pub(crate) fn weakness(password: &str) -> Option<String> {
    if password.chars().count() > MAX_LENGTH {
        return Some(format!(
            "password must be no more than {MAX_LENGTH} characters"
        ));
    }
    (entropy(password) < MIN_ENTROPY)
        .then(|| "too easy to guess: make it longer or mix letters, digits and signs".to_owned())
}

/// Bits of guessing work: length times the size of the alphabets in use, with
/// repeated characters counted at most twice in a row.
fn entropy(password: &str) -> f64 {
    let mut size = 0;
    let has = |test: fn(char) -> bool| password.chars().any(test);
    if has(|c| c.is_ascii_lowercase()) {
        size += 26;
    }
    if has(|c| c.is_ascii_uppercase()) {
        size += 26;
    }
    if has(|c| c.is_ascii_digit()) {
        size += 10;
    }
    if has(|c| c.is_ascii_punctuation() || c == ' ') {
        size += 33;
    }
    if has(|c| !c.is_ascii()) {
        size += 100;
    }
    let mut counted = 0;
    let mut run = (None, 0);
    for c in password.chars() {
        run = if run.0 == Some(c) {
            (run.0, run.1 + 1)
        } else {
            (Some(c), 1)
        };
        if run.1 <= 2 {
            counted += 1;
        }
    }
    f64::from(counted) * f64::from(size.max(1)).log2()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn weak_passwords_are_named() {
        assert!(weakness("password").is_some());
        assert!(weakness("aaaaaaaaaaaaaaaaaaaaaaaa").is_some());
        assert!(weakness(&"Aa1!".repeat(20)).is_some());
        assert!(weakness("Password-0001-example").is_none());
    }

    #[tokio::test]
    async fn only_the_right_password_matches() {
        let stored = hash("Password-0001-example".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(
            verify("Password-0001-example".into(), stored.clone())
                .await
                .unwrap()
        );
        assert!(
            !verify("Password-0002-example".into(), stored)
                .await
                .unwrap()
        );
        assert!(!verify(String::new(), String::new()).await.unwrap());
    }
}
