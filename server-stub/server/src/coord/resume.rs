//! Resume tokens: a client that was let in gets one, and keeps its peer id when
//! it comes back with it, so that agents see the same peer again.
//!
//! A token is a JWS in compact form (RFC 7515) with HS512: header
//! `{"alg":"HS512","kid":"<key number>"}`, payload
//! `{"sub":"<peer id>","exp":<unix seconds>}`. It proves nothing but that this
//! server handed out that id; access is checked apart from it.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// How long a token is good for, in seconds.
pub(crate) const LIFETIME: i64 = 24 * 60 * 60;

/// After how many seconds a client should fetch another.
pub(crate) const REFRESH_IN: i64 = LIFETIME / 2;

/// How long after its end a token is still taken, in seconds: clocks differ.
const LEEWAY: i64 = 60;

/// Longer texts are no tokens of ours.
const MAX_TOKEN_BYTES: usize = 1024;

/// How long a key signs, in seconds.
const KEY_LIFETIME: i64 = 30 * 24 * 60 * 60;

/// How long before a key's time is over its successor is made, in seconds: time
/// enough for all to learn of it.
const OVERLAP: i64 = 60 * 60;

/// The soonest a new key signs if another one does, in seconds.
const NOTICE: i64 = 30 * 60;

/// A key of resume tokens, as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredKey {
    number: u32,
    /// 64 random bytes, as lower-case hex digits.
    secret: String,
    /// When it begins to sign, in unix seconds.
    since: i64,
    /// From when on it counts no more, if it has a successor.
    #[serde(default)]
    until: Option<i64>,
}

impl StoredKey {
    fn counts(&self, now: i64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Drops keys no token in use is signed with, and makes a key if there is none
/// or the newest has served its time. Says whether anything changed.
pub(crate) fn rotate(keys: &mut Vec<StoredKey>, now: i64, secret: impl FnOnce() -> String) -> bool {
    let known = keys.len();
    let last = keys.iter().map(|key| key.number).max().unwrap_or(0);
    keys.retain(|key| key.counts(now));
    let current = keys
        .iter_mut()
        .filter(|key| key.until.is_none())
        .max_by_key(|key| key.number);
    let since = match current {
        Some(key) if key.since + KEY_LIFETIME > now + OVERLAP => return keys.len() < known,
        Some(key) => {
            let since = (key.since + KEY_LIFETIME).max(now + NOTICE);
            key.until = Some(since + OVERLAP + LIFETIME);
            since
        }
        None => now,
    };
    keys.push(StoredKey {
        number: last + 1,
        secret: secret(),
        since,
        until: None,
    });
    true
}

/// The keys tokens are signed with.
pub(crate) struct ResumeKeys {
    keys: RwLock<Vec<(StoredKey, hmac::Key)>>,
}

impl std::fmt::Debug for ResumeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumeKeys")
            .field("count", &self.lock().len())
            .finish()
    }
}

/// Why a token is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum InvalidToken {
    #[error("malformed token")]
    Malformed,
    #[error("unexpected signature algorithm")]
    Algorithm,
    #[error("signed with an unknown key")]
    UnknownKey,
    #[error("the signature does not match")]
    Signature,
    #[error("the token is expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    sub: Uuid,
    exp: i64,
}

impl ResumeKeys {
    pub(crate) fn new(keys: Vec<StoredKey>) -> Self {
        let this = Self {
            keys: RwLock::default(),
        };
        this.set(keys);
        this
    }

    /// Replaces all keys.
    pub(crate) fn set(&self, keys: Vec<StoredKey>) {
        let ready = keys
            .into_iter()
            .map(|key| {
                let hmac = hmac::Key::new(hmac::HMAC_SHA512, key.secret.as_bytes());
                (key, hmac)
            })
            .collect();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = ready;
    }

    fn lock(&self) -> RwLockReadGuard<'_, Vec<(StoredKey, hmac::Key)>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token for a peer and the moment it ends, in unix seconds. Signed with
    /// the newest key whose time has come; `None` without one.
    pub(crate) fn issue(&self, peer: Uuid, now: i64) -> Option<(String, i64)> {
        let keys = self.lock();
        let (stored, key) = keys
            .iter()
            .filter(|(key, _)| key.since <= now && key.counts(now))
            .max_by_key(|(key, _)| key.number)?;
        let exp = now + LIFETIME;
        let header = Header {
            alg: "HS512".into(),
            kid: Some(stored.number.to_string()),
        };
        let signed = format!(
            "{}.{}",
            encode(&header)?,
            encode(&Payload { sub: peer, exp })?
        );
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(key, signed.as_bytes()));
        Some((format!("{signed}.{signature}"), exp))
    }

    /// The peer a token was issued for; `None` for a token without a key
    /// number, which counts as no token at all.
    pub(crate) fn verify(&self, token: &str, now: i64) -> Result<Option<Uuid>, InvalidToken> {
        use InvalidToken::Malformed;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Malformed)?;
        let header: Header = decode(header).ok_or(Malformed)?;
        if header.alg != "HS512" {
            return Err(InvalidToken::Algorithm);
        }
        let Some(kid) = header.kid else {
            return Ok(None);
        };
        let number: u32 = kid.parse().map_err(|_| InvalidToken::UnknownKey)?;
        // Also one that does not sign yet: clocks differ.
        let keys = self.lock();
        let (_, key) = keys
            .iter()
            .find(|(known, _)| known.number == number && known.counts(now))
            .ok_or(InvalidToken::UnknownKey)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Malformed)?;
        hmac::verify(key, signed.as_bytes(), &signature).map_err(|_| InvalidToken::Signature)?;
        let payload: Payload = decode(payload).ok_or(Malformed)?;
        if payload.exp.saturating_add(LEEWAY) < now {
            return Err(InvalidToken::Expired);
        }
        Ok(Some(payload.sub))
    }
}

fn encode(part: &impl Serialize) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).ok()?))
}

fn decode<T: for<'a> Deserialize<'a>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Uuid = Uuid::from_u128(7);
    const NOW: i64 = 1_800_000_000;

    fn key(number: u32, since: i64) -> StoredKey {
        StoredKey {
            number,
            secret: format!("{number:0>128}"),
            since,
            until: None,
        }
    }

    fn keys() -> ResumeKeys {
        ResumeKeys::new(vec![key(2, NOW), key(1, 0)])
    }

    #[test]
    fn a_token_brings_its_peer_back_for_a_day() {
        let (token, exp) = keys().issue(PEER, NOW).unwrap();
        assert_eq!(exp, NOW + 86_400);
        assert_eq!(keys().verify(&token, NOW), Ok(Some(PEER)));
        assert_eq!(keys().verify(&token, exp + 60), Ok(Some(PEER)));
        assert_eq!(keys().verify(&token, exp + 61), Err(InvalidToken::Expired));
    }

    #[test]
    fn older_keys_verify_and_unknown_ones_do_not() {
        let old = ResumeKeys::new(vec![key(1, 0)]);
        let (token, _) = old.issue(PEER, NOW).unwrap();
        assert_eq!(keys().verify(&token, NOW), Ok(Some(PEER)));
        let (token, _) = keys().issue(PEER, NOW).unwrap();
        assert_eq!(old.verify(&token, NOW), Err(InvalidToken::UnknownKey));
        let mut wrong = key(2, 0);
        wrong.secret = "other".into();
        let other = ResumeKeys::new(vec![wrong]);
        assert_eq!(other.verify(&token, NOW), Err(InvalidToken::Signature));
    }

    #[test]
    fn a_key_hands_over_to_its_successor_without_a_gap() {
        let mut keys = Vec::new();
        assert!(rotate(&mut keys, NOW, || "first".into()));
        let all = ResumeKeys::new(keys.clone());
        // Looked at every ten minutes, for three months.
        let (mut made, mut tokens) = (1, Vec::new());
        for now in (NOW..NOW + 3 * KEY_LIFETIME).step_by(600) {
            if rotate(&mut keys, now, || format!("secret {now}")) {
                all.set(keys.clone());
                made = made.max(keys.last().unwrap().number);
            }
            assert!(keys.len() <= 2);
            tokens.push(all.issue(PEER, now).unwrap());
            let in_use = tokens.len().saturating_sub(144);
            let (token, _) = &tokens[in_use];
            assert_eq!(all.verify(token, now), Ok(Some(PEER)));
        }
        assert_eq!(made, 4);
        assert!(!rotate(
            &mut keys,
            NOW + 3 * KEY_LIFETIME - OVERLAP - 1,
            String::new
        ));
    }

    #[test]
    fn keys_of_earlier_versions_are_read() {
        let text = r#"[{"number":1,"secret":"00","since":7}]"#;
        let keys: Vec<StoredKey> = serde_json::from_str(text).unwrap();
        assert!(keys[0].until.is_none() && keys[0].since == 7);
    }

    #[test]
    fn a_token_without_key_number_is_none() {
        let token = format!("{}.e30.", URL_SAFE_NO_PAD.encode(br#"{"alg":"HS512"}"#));
        assert_eq!(keys().verify(&token, NOW), Ok(None));
    }

    #[test]
    fn other_texts_are_refused() {
        let none = format!(
            "{}.e30.",
            URL_SAFE_NO_PAD.encode(br#"{"alg":"none","kid":"1"}"#)
        );
        assert_eq!(keys().verify(&none, NOW), Err(InvalidToken::Algorithm));
        for text in ["", ".", "..", "a.b.c", &"x.".repeat(1000)] {
            assert_eq!(
                keys().verify(text, NOW),
                Err(InvalidToken::Malformed),
                "{text}"
            );
        }
    }
}
