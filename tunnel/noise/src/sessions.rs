//! The sessions with one peer (section 6.3).

use std::time::Instant;

use crate::random::Random;
use crate::session::Session;

/// The session in use, the one before it, and two that the peer did not use
/// yet: it may have begun twice before an answer reached it.
const SLOTS: usize = 4;

/// All sessions; messages are accepted on each, and sent on one.
#[derive(Default)]
pub(crate) struct Sessions {
    slots: [Option<Box<Session>>; SLOTS],
    /// The slot to send on: of all that certainly work the newest.
    current: Option<usize>,
}

impl Sessions {
    pub(crate) fn current(&self) -> Option<&Session> {
        self.slots[self.current?].as_deref()
    }

    pub(crate) fn current_mut(&mut self) -> Option<&mut Session> {
        self.slots[self.current?].as_deref_mut()
    }

    /// The slot of the session with this number, and the session.
    pub(crate) fn find(&mut self, index: u32) -> Option<(usize, &mut Session)> {
        self.slots
            .iter_mut()
            .enumerate()
            .find_map(|(slot, session)| {
                session
                    .as_deref_mut()
                    .filter(|session| session.index == index)
                    .map(|session| (slot, session))
            })
    }

    /// Takes a new session in. One that the peer is known to have is used from
    /// now on.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        session: Session,
        known: bool,
        random: &mut Random,
    ) {
        for slot in 0..SLOTS {
            if self.slots[slot].as_ref().is_some_and(|s| !s.in_force(now)) {
                self.remove(slot, random);
            }
        }
        let free = (0..SLOTS)
            .find(|slot| self.slots[*slot].is_none())
            .or_else(|| {
                (0..SLOTS)
                    .filter(|slot| Some(*slot) != self.current)
                    .min_by_key(|slot| self.slots[*slot].as_ref().map(|s| s.at))
            });
        let Some(slot) = free else { return };
        self.remove(slot, random);
        self.slots[slot] = Some(Box::new(session));
        if known {
            self.confirm(slot);
        }
    }

    /// The peer has the session in this slot: it is used, unless a newer one
    /// is. Whether that is a change.
    pub(crate) fn confirm(&mut self, slot: usize) -> bool {
        let at = |slot: usize| self.slots[slot].as_ref().map(|s| s.at);
        let newer = self
            .current
            .is_none_or(|current| current != slot && at(slot) >= at(current));
        if newer {
            self.current = Some(slot);
        }
        newer
    }

    pub(crate) fn clear(&mut self, random: &mut Random) {
        for slot in 0..SLOTS {
            self.remove(slot, random);
        }
    }

    fn remove(&mut self, slot: usize, random: &mut Random) {
        if let Some(session) = self.slots[slot].take() {
            random.release(session.index);
        }
        if self.current == Some(slot) {
            self.current = None;
        }
    }
}
