//! Passwords: Argon2id, and how strong one must be.

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

/// Memory for one hash in KiB: OWASP's recommendation for Argon2id with one
/// lane and two passes.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Bits of guessing work a password must have.
const MIN_ENTROPY: f64 = 52.0;
const MAX_LENGTH: usize = 64;

/// Hashes at the same time: each takes 19 MiB while it runs.
static SLOTS: Semaphore = Semaphore::const_new(2);

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// The stored form of a password.
///
/// # Errors
/// When the hash cannot be computed.
pub(crate) async fn hash(password: String) -> anyhow::Result<String> {
    let _slot = SLOTS.acquire().await?;
    tokio::task::spawn_blocking(move || {
        let salt = SaltString::generate(&mut OsRng);
        hasher()
            .hash_password(password.as_bytes(), &salt)
            .map(|hash| hash.to_string())
            .map_err(|error| anyhow::anyhow!("hash password: {error}"))
    })
    .await?
}

/// Whether a password is the one behind `stored`. An empty `stored` never
/// matches but takes as long.
///
/// # Errors
/// When the check cannot be made.
pub(crate) async fn verify(password: String, stored: String) -> anyhow::Result<bool> {
    let _slot = SLOTS.acquire().await?;
    let matches = tokio::task::spawn_blocking(move || match PasswordHash::new(&stored) {
        Ok(hash) => hasher().verify_password(password.as_bytes(), &hash).is_ok(),
        Err(_) => {
            let mut out = [0; 32];
            let _ = hasher().hash_password_into(password.as_bytes(), b"no such account", &mut out);
            false
        }
    })
    .await?;
    Ok(matches)
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
