//! The two codes at the end of handshake messages, and cookies received
//! (sections 5.4.4 and 5.4.7).

use std::time::Instant;

use x25519_dalek::PublicKey;

use crate::Rejected;
use crate::crypto::{hash, mac, open_cookie};
use crate::limits::COOKIE_LIFE;
use crate::message::{MAC, array, cookie};

/// Key of the first code of messages to `receiver`.
pub(crate) fn mac_key(receiver: &PublicKey) -> [u8; 32] {
    hash(&[b"mac1----", receiver.as_bytes()])
}

/// Key of cookie replies by `sender`.
pub(crate) fn cookie_key(sender: &PublicKey) -> [u8; 32] {
    hash(&[b"cookie--", sender.as_bytes()])
}

/// Codes of messages to one peer, and the cookie it gave.
pub(crate) struct Jar {
    mac_key: [u8; 32],
    cookie_key: [u8; 32],
    /// First code of the last message: a cookie reply must belong to it.
    last: Option<[u8; MAC]>,
    cookie: Option<([u8; MAC], Instant)>,
}

impl Jar {
    pub(crate) fn new(peer: &PublicKey) -> Self {
        Self {
            mac_key: mac_key(peer),
            cookie_key: cookie_key(peer),
            last: None,
            cookie: None,
        }
    }

    /// Writes both codes at the end of a handshake message.
    pub(crate) fn stamp(&mut self, now: Instant, message: &mut [u8]) {
        let Some((rest, second)) = message.split_last_chunk_mut::<MAC>() else {
            return;
        };
        let Some((covered, first)) = rest.split_last_chunk_mut::<MAC>() else {
            return;
        };
        *first = mac(&self.mac_key, covered);
        self.last = Some(*first);
        *second = match &self.cookie {
            Some((cookie, at)) if now.saturating_duration_since(*at) < COOKIE_LIFE => {
                mac(cookie, rest)
            }
            _ => [0; MAC],
        };
    }

    /// Takes the cookie out of a cookie reply.
    pub(crate) fn receive(&mut self, now: Instant, reply: &[u8]) -> Result<(), Rejected> {
        let nonce = array(reply, cookie::NONCE).ok_or(Rejected)?;
        let sealed = array(reply, cookie::COOKIE).ok_or(Rejected)?;
        let last = self.last.as_ref().ok_or(Rejected)?;
        let cookie = open_cookie(&self.cookie_key, &nonce, sealed, last).ok_or(Rejected)?;
        self.cookie = Some((cookie, now));
        Ok(())
    }
}
