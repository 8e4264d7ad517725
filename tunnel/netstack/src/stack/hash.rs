//! Keyed hash for initial sequence numbers, timestamp offsets and ports
//! (RFC 6528): SipHash-2-4.

/// A 128-bit key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key(u64, u64);

impl Key {
    pub(super) fn from_seed(seed: u64) -> Self {
        // Two steps of splitmix64.
        let mix = |n: u64| {
            let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            n ^ (n >> 31)
        };
        Self(mix(seed.wrapping_add(1)), mix(seed.wrapping_add(2)))
    }

    /// Hash of `data`; `domain` separates uses.
    pub(super) fn hash(&self, domain: u8, data: &[u8]) -> u64 {
        let mut v = [
            self.0 ^ 0x736f_6d65_7073_6575,
            self.1 ^ 0x646f_7261_6e64_6f6d,
            self.0 ^ 0x6c79_6765_6e65_7261,
            self.1 ^ 0x7465_6462_7974_6573 ^ u64::from(domain),
        ];
        let mut words = data.chunks_exact(8);
        for word in words.by_ref() {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            absorb(&mut v, u64::from_le_bytes(bytes));
        }
        let rest = words.remainder();
        let mut bytes = [0; 8];
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[7] = data.len() as u8;
        absorb(&mut v, u64::from_le_bytes(bytes));
        v[2] ^= 0xff;
        for _ in 0..4 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_siphash_2_4() {
        // Reference vector of the SipHash paper: key 00..0f, input 00..0e.
        let key = Key(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let data: Vec<u8> = (0..15).collect();
        assert_eq!(key.hash(0, &data), 0xa129_ca61_49be_45e5);
        assert_ne!(key.hash(1, &data), key.hash(0, &data));
    }
}
