//! Resume tokens: a client that was let in gets one, and keeps its peer id when
//! it comes back with it, so that agents see the same peer again.
//!
//! A token is a JWS in compact form (RFC 7515) with HS512: header
//! `{"alg":"HS512","kid":"<key number>"}`, payload
//! `{"sub":"<peer id>","exp":<unix seconds>}`. It proves nothing but that this
//! server handed out that id; access is checked apart from it.

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

/// The keys tokens are signed with, each with its number. The highest number
/// signs; all verify.
pub(crate) struct ResumeKeys {
    keys: Vec<(u32, hmac::Key)>,
}

impl std::fmt::Debug for ResumeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumeKeys")
            .field("count", &self.keys.len())
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
    /// Keys by number; the secrets should be 64 random bytes.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = (u32, &'a [u8])>) -> Self {
        let mut keys: Vec<_> = secrets
            .into_iter()
            .map(|(number, secret)| (number, hmac::Key::new(hmac::HMAC_SHA512, secret)))
            .collect();
        keys.sort_by_key(|(number, _)| *number);
        Self { keys }
    }

    /// A token for a peer and the moment it ends, in unix seconds. `None`
    /// without a key.
    pub(crate) fn issue(&self, peer: Uuid, now: i64) -> Option<(String, i64)> {
        let (number, key) = self.keys.last()?;
        let exp = now + LIFETIME;
        let header = Header {
            alg: "HS512".into(),
            kid: Some(number.to_string()),
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
        let (_, key) = self
            .keys
            .iter()
            .find(|(known, _)| *known == number)
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

    fn keys() -> ResumeKeys {
        ResumeKeys::new([(2, &[2_u8; 64][..]), (1, &[1_u8; 64])])
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
        let old = ResumeKeys::new([(1, &[1_u8; 64][..])]);
        let (token, _) = old.issue(PEER, NOW).unwrap();
        assert_eq!(keys().verify(&token, NOW), Ok(Some(PEER)));
        let (token, _) = keys().issue(PEER, NOW).unwrap();
        assert_eq!(old.verify(&token, NOW), Err(InvalidToken::UnknownKey));
        let other = ResumeKeys::new([(2, &[3_u8; 64][..])]);
        assert_eq!(other.verify(&token, NOW), Err(InvalidToken::Signature));
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
