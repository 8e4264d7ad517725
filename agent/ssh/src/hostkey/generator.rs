//! The seeded random source of Go's `math/rand`: an additive lagged Fibonacci
//! generator (Mitchell and Reeds). Only for reproducing numbers, never for
//! secrets: the seed has 31 bits.

use super::cooked::COOKED;

/// Words of state, the longer lag.
pub(super) const LENGTH: usize = 607;
/// The shorter lag.
const TAP: usize = 273;
/// Modulus of the seeding generator.
const MODULUS: i64 = (1 << 31) - 1;
/// Seed used instead of zero, on which the seeding generator would stick.
const ZERO_SEED: i64 = 89_482_311;
/// Numbers of the seeding generator that are thrown away.
const WARM_UP: usize = 20;

/// The generator.
pub(super) struct Generator {
    state: Box<[u64; LENGTH]>,
    tap: usize,
    feed: usize,
}

impl Generator {
    /// A generator started with `seed`.
    pub(super) fn new(seed: i64) -> Self {
        let mut x = match seed % MODULUS {
            0 => ZERO_SEED,
            s if s < 0 => s + MODULUS,
            s => s,
        };
        let mut next = || {
            // 48271 · x mod 2³¹−1 fits into 64 bits, so no decomposition.
            x = x * 48_271 % MODULUS;
            u64::try_from(x).unwrap_or_default()
        };
        for _ in 0..WARM_UP {
            next();
        }
        let mut state = Box::new(COOKED);
        for word in state.iter_mut() {
            *word ^= (next() << 40) ^ (next() << 20) ^ next();
        }
        Self {
            state,
            tap: 0,
            feed: LENGTH - TAP,
        }
    }

    /// The next 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.tap = self.tap.checked_sub(1).unwrap_or(LENGTH - 1);
        self.feed = self.feed.checked_sub(1).unwrap_or(LENGTH - 1);
        let sum = self.state[self.feed].wrapping_add(self.state[self.tap]);
        self.state[self.feed] = sum;
        sum
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_table_is_complete() {
        let mut hash = Sha256::new();
        for word in COOKED {
            hash.update(word.to_le_bytes());
        }
        let text: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            text,
            "1928503b93a563e491119a5889baba73d1605b90b63634c14a408805797a7c7b"
        );
    }

    #[test]
    fn known_seeds_give_known_words() {
        assert_eq!(Generator::new(1).next(), 0x4d65_8221_07fc_fd52);
        for (seed, first, second) in [
            (
                5_808_831_876_770_788_593,
                0x68fc_2fea_7223_86d5,
                0xf9b2_4f5d_e931_2c10,
            ),
            (
                -8_743_751_320_861_685_073,
                0xac8d_538e_cc2d_51b7,
                0xc3fe_53a1_8822_6f19,
            ),
            (
                590_684_067_820_433_389,
                0xfc64_30dc_a91f_d9b1,
                0xc91d_d4a3_2772_5796_u64,
            ),
        ] {
            let mut generator = Generator::new(seed);
            assert_eq!((generator.next(), generator.next()), (first, second));
        }
    }
}
