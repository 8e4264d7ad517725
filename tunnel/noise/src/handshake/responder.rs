//! The side that answers.

use x25519_dalek::{PublicKey, StaticSecret};

use super::Agreed;
use crate::Rejected;
use crate::clock::STAMP;
use crate::crypto::{Secret, Transcript, dh};
use crate::identity::Identity;
use crate::message::{Kind, RESPONSE_LEN, SEALED_STAMP, array, initiation, kind, number, response};

/// An initiation of which only the sender is known yet.
///
/// Its name is readable only to this node, but nothing proves so far that the
/// message is not a copy, or made by somebody who knows the sender's key.
pub struct Incoming {
    sender: PublicKey,
    remote: u32,
    ephemeral: PublicKey,
    stamp: [u8; SEALED_STAMP],
    transcript: Transcript,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Finds out who an initiation is from. Its first code must have been
    /// checked: this costs a curve multiplication.
    ///
    /// # Errors
    /// It is no initiation to this node.
    pub fn examine(&self, message: &[u8]) -> Result<Incoming, Rejected> {
        if kind(message) != Some(Kind::Initiation) {
            return Err(Rejected);
        }
        let remote = number(message, initiation::SENDER).ok_or(Rejected)?;
        let public: [u8; 32] = array(message, initiation::EPHEMERAL).ok_or(Rejected)?;
        let stamp = array(message, initiation::STAMP).ok_or(Rejected)?;
        let sealed = message.get(initiation::STATIC).ok_or(Rejected)?;
        let mut transcript = Transcript::new(&self.public);
        transcript.stir(&public);
        transcript.see(&public);
        let ephemeral = PublicKey::from(public);
        let key = transcript.stir_key(&*dh(&self.secret, &ephemeral).ok_or(Rejected)?);
        let sender: [u8; 32] = transcript.open(&key, sealed)?;
        Ok(Incoming {
            sender: sender.into(),
            remote,
            ephemeral,
            stamp,
            transcript,
        })
    }
}

impl Incoming {
    /// The static key the initiation names.
    #[must_use]
    pub fn sender(&self) -> &PublicKey {
        &self.sender
    }

    /// Proves that the sender made the message; when, by its clock. `shared`
    /// is the secret of the two static keys.
    pub(crate) fn authenticate(&mut self, shared: &Secret) -> Result<[u8; STAMP], Rejected> {
        let key = self.transcript.stir_key(&**shared);
        self.transcript.open(&key, &self.stamp)
    }

    /// Writes the response, all but the two codes at its end.
    pub(crate) fn answer(
        mut self,
        index: u32,
        secret: &StaticSecret,
    ) -> Option<(Agreed, [u8; RESPONSE_LEN])> {
        let mut message = [0; RESPONSE_LEN];
        let transcript = &mut self.transcript;
        let public = PublicKey::from(secret);
        message[..4].copy_from_slice(&Kind::Response.head());
        message[response::SENDER].copy_from_slice(&index.to_le_bytes());
        message[response::RECEIVER].copy_from_slice(&self.remote.to_le_bytes());
        message[response::EPHEMERAL].copy_from_slice(public.as_bytes());
        transcript.see(public.as_bytes());
        transcript.stir(public.as_bytes());
        transcript.stir(&*dh(secret, &self.ephemeral)?);
        transcript.stir(&*dh(secret, &self.sender)?);
        let key = transcript.stir_no_psk();
        transcript.seal(&key, &mut message[response::EMPTY])?;
        let [receive, send] = transcript.split();
        let agreed = Agreed {
            remote: self.remote,
            send,
            receive,
        };
        Some((agreed, message))
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> ([u8; 32], [u8; 32]) {
        self.transcript.state()
    }
}
