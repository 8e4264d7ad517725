//! SSH, before its keys are exchanged and after.

mod early;
mod hostile;

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use adit_ssh::{Config, Random, RsaKey, Session};
use num_bigint::BigUint;

pub use early::ssh;
pub use hostile::{ssh_client, ssh_server};

/// 2^521 − 1 and 2^607 − 1 are prime.
static HOST_KEY: LazyLock<RsaKey> = LazyLock::new(|| {
    let mersenne = |bits: u32| (BigUint::from(1u32) << bits) - 1u32;
    RsaKey::from_primes(&mersenne(607), &mersenne(521), &BigUint::from(65_537u32))
        .expect("a valid key")
});

/// The same bytes every time: SplitMix64.
struct Repeated(u64);

impl Random for Repeated {
    fn fill(&mut self, out: &mut [u8]) -> bool {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            chunk.copy_from_slice(&mixed.to_be_bytes()[..chunk.len()]);
        }
        true
    }
}

fn server_config() -> Config {
    Config::new("SSH-2.0-Go", HOST_KEY.clone())
}

fn client_config() -> Config {
    Config::client("SSH-2.0-Test")
}

fn session(config: &Arc<Config>, seed: u64, now: Instant) -> Session {
    Session::new(Arc::clone(config), Box::new(Repeated(seed)), now).expect("randomness")
}
