//! Byte buffers of the sockets, and the memory budget they share.

pub(crate) mod pool;
pub(crate) mod ranges;
pub(crate) mod recv;
pub(crate) mod send;
