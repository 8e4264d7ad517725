//! A node with one peer.
#![allow(dead_code, reason = "each test uses its part")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_noise::{
    Admission, Clock, Guard, Identity, Origin, Peer, PublicKey, Random, Rejected, StaticSecret,
};

/// One second.
pub(crate) const S: Duration = Duration::from_secs(1);

pub(crate) struct Node {
    pub(crate) identity: Arc<Identity>,
    pub(crate) guard: Guard,
    pub(crate) peer: Peer,
    pub(crate) random: Random,
    pub(crate) now: Instant,
}

impl Node {
    pub(crate) fn new(now: Instant, secret: [u8; 32], peer: PublicKey) -> Self {
        let clock = Clock::new(now, Duration::from_secs(1_800_000_000));
        let identity = Arc::new(Identity::new(StaticSecret::from(secret), clock));
        Self {
            guard: Guard::new(Arc::clone(&identity)),
            peer: Peer::new(Arc::clone(&identity), peer, 1),
            identity,
            random: Random::new(secret),
            now,
        }
    }

    pub(crate) fn advance(&mut self, other: &mut Self, by: Duration) {
        self.now += by;
        other.now = self.now;
    }

    pub(crate) fn initiate(&mut self) -> [u8; 148] {
        self.peer.initiate(self.now, &mut self.random).unwrap()
    }

    /// Past the guard, which lets everything but a forgery through.
    fn admit(&mut self, message: &[u8]) -> Result<(), Rejected> {
        let origin = Origin::Relay([0; 32]);
        match self
            .guard
            .admit(self.now, origin, message, &mut self.random)
        {
            Admission::Accept => Ok(()),
            Admission::Cookie(_) | Admission::Drop => Err(Rejected),
        }
    }

    pub(crate) fn respond(&mut self, message: &[u8]) -> Result<[u8; 92], Rejected> {
        self.admit(message)?;
        let incoming = self.identity.examine(message)?;
        self.peer.respond(self.now, incoming, &mut self.random)
    }

    pub(crate) fn finish(&mut self, message: &[u8]) -> Result<(), Rejected> {
        self.admit(message)?;
        self.peer.finish(self.now, message, &mut self.random)
    }

    pub(crate) fn can_seal(&self) -> bool {
        self.peer.can_seal(self.now)
    }

    pub(crate) fn seal(&mut self, content: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; content.len() + 64];
        let len = self.peer.seal(self.now, content, usize::MAX, &mut out)?;
        out.truncate(len);
        Some(out)
    }

    pub(crate) fn open(&mut self, message: &[u8]) -> Result<Vec<u8>, Rejected> {
        let mut out = vec![0; message.len()];
        let len = self.peer.open(self.now, message, &mut out)?.len;
        out.truncate(len);
        Ok(out)
    }

    /// A handshake begun by this side.
    pub(crate) fn shake(&mut self, other: &mut Self) {
        let answer = other.respond(&self.initiate()).unwrap();
        self.finish(&answer).unwrap();
    }

    /// The same, and the first message.
    pub(crate) fn confirmed(&mut self, other: &mut Self) {
        self.shake(other);
        let first = self.seal(b"").unwrap();
        other.open(&first).unwrap();
    }
}

pub(crate) fn pair() -> (Node, Node) {
    let now = Instant::now();
    let (one, two) = ([3; 32], [4; 32]);
    let public = |secret: [u8; 32]| PublicKey::from(&StaticSecret::from(secret));
    (
        Node::new(now, one, public(two)),
        Node::new(now, two, public(one)),
    )
}

pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}
