//! Where secrets and session numbers come from.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rand::rngs::StdRng;
use rand::{CryptoRng, RngCore, SeedableRng};
use zeroize::Zeroizing;

use crate::crypto::Secret;

/// A node's randomness, and the session numbers it drew.
///
/// Everything follows from the seed, so whoever knows that knows all secrets
/// to come. Past ones stay unknown to who reads the memory later: the
/// generator starts anew after each secret.
pub struct Random {
    rng: StdRng,
    owners: HashMap<u32, u32, BuildHasherDefault<Spread>>,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Random")
            .field("sessions", &self.owners.len())
            .finish_non_exhaustive()
    }
}

impl Random {
    /// `seed` must come from the operating system, except in tests.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: StdRng::from_seed(*Zeroizing::new(seed)),
            owners: HashMap::default(),
        }
    }

    /// Bytes nobody else knows.
    pub(crate) fn secret(&mut self) -> Secret {
        let mut secret = Zeroizing::new([0; 32]);
        self.rng.fill_bytes(&mut *secret);
        self.rng = StdRng::from_rng(&mut self.rng);
        secret
    }

    /// Draws a session number for `owner` that is not in use.
    pub(crate) fn allocate(&mut self, owner: u32) -> u32 {
        loop {
            let index = self.rng.next_u32();
            if let std::collections::hash_map::Entry::Vacant(entry) = self.owners.entry(index) {
                entry.insert(owner);
                return index;
            }
        }
    }

    /// Gives a session number back.
    pub(crate) fn release(&mut self, index: u32) {
        self.owners.remove(&index);
    }

    /// The owner of a session number in use.
    #[must_use]
    pub fn owner(&self, index: u32) -> Option<u32> {
        self.owners.get(&index).copied()
    }

    /// Session numbers in use.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.owners.len()
    }
}

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        self.rng.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }

    fn fill_bytes(&mut self, dst: &mut [u8]) {
        self.rng.fill_bytes(dst);
    }
}

impl CryptoRng for Random {}

/// Session numbers are random already: strangers may look any number up, but
/// only this node puts numbers in.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_belong_to_their_owner_until_released() {
        let mut random = Random::new([1; 32]);
        let numbers: Vec<u32> = (0..1000).map(|n| random.allocate(n % 7)).collect();
        assert_eq!(random.sessions(), 1000);
        assert_eq!(random.owner(numbers[8]), Some(1));
        random.release(numbers[8]);
        assert_eq!(random.owner(numbers[8]), None);
        let spread = numbers.windows(2).filter(|w| w[0].abs_diff(w[1]) < 1 << 16);
        assert!(spread.count() < 10, "not predictable from one another");
    }

    #[test]
    fn the_seed_decides_everything() {
        let (mut a, mut b) = (Random::new([2; 32]), Random::new([2; 32]));
        assert_eq!(a.secret(), b.secret());
        assert_eq!(a.allocate(1), b.allocate(1));
        assert_ne!(*a.secret(), *a.secret());
    }
}
