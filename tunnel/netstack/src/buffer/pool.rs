//! Receive chunks, recycled, and the budget for everything beyond what each
//! socket is entitled to.

/// Bytes of a receive chunk.
pub(crate) const CHUNK: usize = 16 << 10;
/// Idle chunks kept for reuse.
const KEEP: usize = 64;

/// Chunk recycler and budget of one stack.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Vec<Box<[u8]>>,
    limit: usize,
    used: usize,
}

impl Pool {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            free: Vec::new(),
            limit,
            used: 0,
        }
    }

    /// Takes `bytes` from the budget if they are left.
    pub(crate) fn reserve(&mut self, bytes: usize) -> bool {
        if self.limit - self.used < bytes {
            return false;
        }
        self.used += bytes;
        true
    }

    /// Gives `bytes` back to the budget.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Bytes taken from the budget.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn take(&mut self) -> Box<[u8]> {
        self.free
            .pop()
            .unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice())
    }

    pub(crate) fn put(&mut self, chunk: Box<[u8]>) {
        if self.free.len() < KEEP {
            self.free.push(chunk);
        }
    }

    /// Idle chunks.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.free.len()
    }

    /// Frees the idle chunks.
    pub(crate) fn trim(&mut self) {
        self.free = Vec::new();
    }
}
