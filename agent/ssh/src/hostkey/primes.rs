//! Primes drawn from a reproducible stream of bits.

use std::sync::LazyLock;

use num_bigint::BigUint;

use super::generator::Generator;

/// Bits that are drawn; the bit above them is always set.
const DRAWN_BITS: usize = 1024;
/// Words of 32 bits that hold a candidate.
const WORDS: usize = DRAWN_BITS / 32 + 1;
/// Trial division goes this far; it removes 94 % of all candidates.
const TRIAL_LIMIT: u32 = 8192;
/// Bases of the Miller-Rabin test. Candidates are random, not chosen to
/// deceive: the chance that a composite of this size passes even one round is
/// below 2⁻¹⁰⁰.
const BASES: [u32; 8] = [2, 3, 5, 7, 11, 13, 17, 19];

static SMALL_PRIMES: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut primes: Vec<u32> = Vec::new();
    for n in 2..TRIAL_LIMIT {
        let prime = primes
            .iter()
            .take_while(|p| **p * **p <= n)
            .all(|p| n % p != 0);
        if prime {
            primes.push(n);
        }
    }
    primes
});

/// Draws candidates until one is prime, differs from `other`, and has
/// `candidate − 1` coprime to the prime `e`.
pub(super) fn draw(generator: &mut Generator, e: &BigUint, other: Option<&BigUint>) -> BigUint {
    let zero = BigUint::from(0u32);
    let one = BigUint::from(1u32);
    loop {
        let words = candidate(generator);
        if has_small_factor(&words) {
            continue;
        }
        let number = BigUint::new(words.to_vec());
        if probably_prime(&number) && (&number - &one) % e != zero && Some(&number) != other {
            return number;
        }
    }
}

/// One candidate, least significant word first: bit `i` is the lowest bit of
/// the `i`-th word drawn.
fn candidate(generator: &mut Generator) -> [u32; WORDS] {
    let mut words = [0u32; WORDS];
    words[WORDS - 1] = 1;
    for word in words.iter_mut().take(WORDS - 1) {
        for bit in 0..u32::BITS {
            if generator.next() & 1 == 1 {
                *word |= 1 << bit;
            }
        }
    }
    words
}

fn has_small_factor(words: &[u32; WORDS]) -> bool {
    if words[0] & 1 == 0 {
        return true;
    }
    SMALL_PRIMES.iter().any(|prime| {
        let prime = u64::from(*prime);
        let rest = words
            .iter()
            .rev()
            .fold(0u64, |rest, word| (rest << 32 | u64::from(*word)) % prime);
        rest == 0
    })
}

/// Miller-Rabin for odd numbers.
fn probably_prime(n: &BigUint) -> bool {
    let one = BigUint::from(1u32);
    let minus_one = n - &one;
    let twos = minus_one.trailing_zeros().unwrap_or(0);
    let odd = &minus_one >> twos;
    BASES.iter().all(|base| {
        let mut x = BigUint::from(*base).modpow(&odd, n);
        if x == one || x == minus_one {
            return true;
        }
        for _ in 1..twos {
            x = &x * &x % n;
            if x == minus_one {
                return true;
            }
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primality_is_right_for_small_numbers() {
        let primes: Vec<u32> = (21..2000u32)
            .filter(|n| n % 2 == 1 && probably_prime(&BigUint::from(*n)))
            .collect();
        let expected: Vec<u32> = SMALL_PRIMES
            .iter()
            .copied()
            .filter(|p| (21..2000).contains(p))
            .collect();
        assert_eq!(primes, expected);
    }

    #[test]
    fn the_published_vector_counts_its_candidates() {
        let mut generator = Generator::new(5_808_831_876_770_788_593);
        let count = |generator: &mut Generator| {
            (1..)
                .find(|_| {
                    let words = candidate(generator);
                    !has_small_factor(&words) && probably_prime(&BigUint::new(words.to_vec()))
                })
                .unwrap_or(0)
        };
        assert_eq!(count(&mut generator), 306);
        assert_eq!(count(&mut generator), 747);
    }
}
