//! DRPC, the wire format of storj.io/drpc: calls with protobuf messages over
//! any reliable byte stream.
//!
//! [`client`] makes one call per transport, [`server`] answers any number of
//! them in a row. [`codec`] is the format without I/O.

mod call;
pub mod client;
pub mod codec;
mod error;
mod exchange;
pub mod metadata;
pub mod server;
mod transport;

pub use call::{Requests, Responses};
pub use error::{CODE_UNIMPLEMENTED, Error, ProtocolError, Status};

#[cfg(test)]
mod tests;
