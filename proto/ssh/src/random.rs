//! Randomness.

use crate::error::Error;

/// A source of random bytes. Cookies, padding and ephemeral keys come from
/// it, so it must be unpredictable outside of tests.
pub trait Random: Send {
    /// Fills `out`. Returns false if that is impossible.
    fn fill(&mut self, out: &mut [u8]) -> bool;
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) -> bool {
        getrandom::fill(out).is_ok()
    }
}

/// Bytes taken from the source at once for padding.
const POOL: usize = 256;

/// A source, with a small stock for the few bytes each packet needs.
pub(crate) struct Stock {
    source: Box<dyn Random>,
    pool: [u8; POOL],
    used: usize,
}

impl Stock {
    pub(crate) fn new(source: Box<dyn Random>) -> Self {
        Self {
            source,
            pool: [0; POOL],
            used: POOL,
        }
    }

    /// For keys: straight from the source.
    pub(crate) fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        if self.source.fill(out) {
            Ok(())
        } else {
            Err(Error::Crypto("no randomness"))
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    /// For padding.
    pub(crate) fn pad(&mut self, out: &mut Vec<u8>, len: usize) -> Result<(), Error> {
        if len > POOL - self.used {
            if !self.source.fill(&mut self.pool) {
                return Err(Error::Crypto("no randomness"));
            }
            self.used = 0;
        }
        let pad = self.pool.get(self.used..self.used + len);
        out.extend_from_slice(pad.ok_or(Error::Crypto("padding"))?);
        self.used += len;
        Ok(())
    }
}
