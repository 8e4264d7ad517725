//! The side that begins.

use std::time::Instant;

use x25519_dalek::{PublicKey, StaticSecret};

use super::Agreed;
use crate::Rejected;
use crate::clock::STAMP;
use crate::crypto::{Secret, Transcript, dh};
use crate::identity::Identity;
use crate::message::{INITIATION_LEN, Kind, array, initiation, number, response};

/// An initiation that was not answered yet.
pub(crate) struct Pending {
    pub(crate) index: u32,
    pub(crate) at: Instant,
    ephemeral: StaticSecret,
    transcript: Transcript,
}

impl Pending {
    /// Writes the initiation, all but the two codes at its end. `shared` is
    /// the secret of the two static keys.
    pub(crate) fn begin(
        now: Instant,
        identity: &Identity,
        peer: &PublicKey,
        shared: &Secret,
        index: u32,
        stamp: [u8; STAMP],
        ephemeral: StaticSecret,
    ) -> Option<(Self, [u8; INITIATION_LEN])> {
        let mut message = [0; INITIATION_LEN];
        let mut transcript = Transcript::new(peer);
        let public = PublicKey::from(&ephemeral);
        message[..4].copy_from_slice(&Kind::Initiation.head());
        message[initiation::SENDER].copy_from_slice(&index.to_le_bytes());
        message[initiation::EPHEMERAL].copy_from_slice(public.as_bytes());
        transcript.stir(public.as_bytes());
        transcript.see(public.as_bytes());

        let key = transcript.stir_key(&*dh(&ephemeral, peer)?);
        let field = &mut message[initiation::STATIC];
        field[..32].copy_from_slice(identity.public.as_bytes());
        transcript.seal(&key, field)?;

        let key = transcript.stir_key(&**shared);
        let field = &mut message[initiation::STAMP];
        field[..STAMP].copy_from_slice(&stamp);
        transcript.seal(&key, field)?;

        let pending = Self {
            index,
            at: now,
            ephemeral,
            transcript,
        };
        Some((pending, message))
    }

    /// Takes the answer. A wrong one changes nothing.
    pub(crate) fn finish(&self, identity: &Identity, message: &[u8]) -> Result<Agreed, Rejected> {
        let remote = number(message, response::SENDER).ok_or(Rejected)?;
        let public: [u8; 32] = array(message, response::EPHEMERAL).ok_or(Rejected)?;
        let empty = message.get(response::EMPTY).ok_or(Rejected)?;
        let mut transcript = self.transcript.clone();
        transcript.see(&public);
        transcript.stir(&public);
        let public = PublicKey::from(public);
        transcript.stir(&*dh(&self.ephemeral, &public).ok_or(Rejected)?);
        transcript.stir(&*dh(&identity.secret, &public).ok_or(Rejected)?);
        let key = transcript.stir_no_psk();
        let [] = transcript.open(&key, empty)?;
        let [send, receive] = transcript.split();
        Ok(Agreed {
            remote,
            send,
            receive,
        })
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> ([u8; 32], [u8; 32]) {
        self.transcript.state()
    }
}
