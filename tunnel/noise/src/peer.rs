//! One peer: its handshakes, cookies and sessions.

use std::sync::Arc;
use std::time::Instant;

use x25519_dalek::{PublicKey, StaticSecret};

use crate::Rejected;
use crate::clock::{STAMP, after};
use crate::cookie::Jar;
use crate::crypto::{Secret, dh};
use crate::handshake::{Incoming, Pending};
use crate::identity::Identity;
use crate::limits::{INITIATION_INTERVAL, REKEY_AFTER_MESSAGES, REKEY_ATTEMPT_TIME};
use crate::message::{INITIATION_LEN, Kind, RESPONSE_LEN, data, kind, number, response};
use crate::random::Random;
use crate::session::Session;
use crate::sessions::Sessions;

/// The session that packets are sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// When it was agreed.
    pub at: Instant,
    /// This side began the handshake.
    pub initiator: bool,
    /// It has carried so many messages that it must be renewed.
    pub worn: bool,
}

/// An authentic transport message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Length of its padded content; 0 for a keepalive.
    pub len: usize,
    /// It is the first on a session that is the current one from now on.
    pub renewed: bool,
}

/// What this node shares with one peer.
///
/// Call [`close`](Self::close) before dropping it, so that its session numbers
/// are free again.
pub struct Peer {
    identity: Arc<Identity>,
    key: PublicKey,
    /// Owner of its session numbers.
    owner: u32,
    /// Secret of the two static keys, once it was needed.
    shared: Option<Secret>,
    jar: Jar,
    /// The last initiation and the one before: an answer to either may be on
    /// its way.
    pending: [Option<Pending>; 2],
    sessions: Sessions,
    /// Time stamp of the last initiation sent.
    stamp: [u8; STAMP],
    /// Greatest time stamp received: lower ones are copies.
    seen: [u8; STAMP],
    /// When the last initiation was accepted.
    answered: Option<Instant>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// The holder of `key`; its session numbers will belong to `owner`.
    #[must_use]
    pub fn new(identity: Arc<Identity>, key: PublicKey, owner: u32) -> Self {
        Self {
            identity,
            owner,
            shared: None,
            jar: Jar::new(&key),
            key,
            pending: [None, None],
            sessions: Sessions::default(),
            stamp: [0; STAMP],
            seen: [0; STAMP],
            answered: None,
        }
    }

    /// The session that packets are sent on, even if it is over.
    #[must_use]
    pub fn current(&self) -> Option<Standing> {
        self.sessions.current().map(|session| Standing {
            at: session.at,
            initiator: session.initiator,
            worn: session.sent() >= REKEY_AFTER_MESSAGES,
        })
    }

    /// Whether [`seal`](Self::seal) would work.
    #[must_use]
    pub fn can_seal(&self, now: Instant) -> bool {
        self.sessions.current().is_some_and(|s| s.can_seal(now))
    }

    /// Begins a handshake. `None` if the peer's key is no usable one.
    pub fn initiate(&mut self, now: Instant, random: &mut Random) -> Option<[u8; INITIATION_LEN]> {
        let stamp = self.identity.clock.stamp(now).max(after(self.stamp));
        let shared = self.shared()?.clone();
        let index = random.allocate(self.owner);
        let begun = Pending::begin(
            now,
            &self.identity,
            &self.key,
            &shared,
            index,
            stamp,
            StaticSecret::from(*random.secret()),
        );
        let Some((pending, mut message)) = begun else {
            random.release(index);
            return None;
        };
        self.stamp = stamp;
        self.jar.stamp(now, &mut message);
        self.pending.rotate_right(1);
        if let Some(oldest) = self.pending[0].replace(pending) {
            random.release(oldest.index);
        }
        Some(message)
    }

    /// Answers an initiation that this peer sent.
    ///
    /// # Errors
    /// It is a copy, a forgery or too soon after the last one.
    pub fn respond(
        &mut self,
        now: Instant,
        mut incoming: Incoming,
        random: &mut Random,
    ) -> Result<[u8; RESPONSE_LEN], Rejected> {
        let soon = self
            .answered
            .is_some_and(|at| now.saturating_duration_since(at) < INITIATION_INTERVAL);
        if *incoming.sender() != self.key || soon {
            return Err(Rejected);
        }
        let stamp = incoming.authenticate(self.shared().ok_or(Rejected)?)?;
        if stamp <= self.seen {
            return Err(Rejected);
        }
        let secret = StaticSecret::from(*random.secret());
        let index = random.allocate(self.owner);
        let made = incoming.answer(index, &secret).and_then(|(agreed, m)| {
            Session::new(index, now, false, &agreed).map(|session| (session, m))
        });
        let Some((session, mut message)) = made else {
            random.release(index);
            return Err(Rejected);
        };
        self.seen = stamp;
        self.answered = Some(now);
        self.jar.stamp(now, &mut message);
        self.sessions.insert(now, session, false, random);
        Ok(message)
    }

    /// Takes the answer to an initiation of this side. Packets can be sent
    /// now; one must be, or the peer cannot send.
    ///
    /// # Errors
    /// It answers nothing, or is a forgery.
    pub fn finish(
        &mut self,
        now: Instant,
        message: &[u8],
        random: &mut Random,
    ) -> Result<(), Rejected> {
        if kind(message) != Some(Kind::Response) {
            return Err(Rejected);
        }
        let index = number(message, response::RECEIVER).ok_or(Rejected)?;
        let (place, pending) = self
            .pending
            .iter()
            .enumerate()
            .filter_map(|(place, pending)| Some((place, pending.as_ref()?)))
            .find(|(_, pending)| pending.index == index)
            .ok_or(Rejected)?;
        if now.saturating_duration_since(pending.at) >= REKEY_ATTEMPT_TIME {
            return Err(Rejected);
        }
        let agreed = pending.finish(&self.identity, message)?;
        let session = Session::new(index, now, true, &agreed).ok_or(Rejected)?;
        // Answers come in order: what was asked before is void.
        self.pending[place] = None;
        for older in &mut self.pending[place..] {
            if let Some(older) = older.take() {
                random.release(older.index);
            }
        }
        self.sessions.insert(now, session, true, random);
        Ok(())
    }

    /// Takes a cookie; the next handshake message carries it.
    ///
    /// # Errors
    /// It does not belong to the last message, or is a forgery.
    pub fn take_cookie(&mut self, now: Instant, reply: &[u8]) -> Result<(), Rejected> {
        if kind(reply) != Some(Kind::Cookie) {
            return Err(Rejected);
        }
        self.jar.receive(now, reply)
    }

    /// Seals a packet (empty for a keepalive) on the current session into
    /// `out`; the message's length. Content is filled up to a multiple of 16,
    /// but to no more than `largest` bytes.
    pub fn seal(
        &mut self,
        now: Instant,
        content: &[u8],
        largest: usize,
        out: &mut [u8],
    ) -> Option<usize> {
        let session = self.sessions.current_mut()?;
        if session.can_seal(now) {
            session.seal(content, largest, out)
        } else {
            None
        }
    }

    /// Opens a transport message into `out`.
    ///
    /// # Errors
    /// It is a copy, a forgery, too old, or larger than `out`.
    pub fn open(
        &mut self,
        now: Instant,
        message: &[u8],
        out: &mut [u8],
    ) -> Result<Opened, Rejected> {
        if kind(message) != Some(Kind::Data) {
            return Err(Rejected);
        }
        let index = number(message, data::RECEIVER).ok_or(Rejected)?;
        let (slot, session) = self.sessions.find(index).ok_or(Rejected)?;
        if !session.in_force(now) {
            return Err(Rejected);
        }
        let len = session.open(message, out)?;
        Ok(Opened {
            len,
            renewed: self.sessions.confirm(slot),
        })
    }

    /// Whether a session with this number is in force.
    pub fn accepts(&mut self, now: Instant, index: u32) -> bool {
        self.sessions
            .find(index)
            .is_some_and(|(_, session)| session.in_force(now))
    }

    /// Forgets handshakes under way.
    pub fn abandon(&mut self, random: &mut Random) {
        for pending in &mut self.pending {
            if let Some(pending) = pending.take() {
                random.release(pending.index);
            }
        }
    }

    /// Forgets all session keys.
    pub fn forget(&mut self, random: &mut Random) {
        self.sessions.clear(random);
    }

    /// Gives all session numbers back.
    pub fn close(&mut self, random: &mut Random) {
        self.abandon(random);
        self.forget(random);
    }

    fn shared(&mut self) -> Option<&Secret> {
        if self.shared.is_none() {
            self.shared = dh(&self.identity.secret, &self.key);
        }
        self.shared.as_ref()
    }
}
