//! yamux: many streams over one reliable byte stream, protocol version 0,
//! interoperable with hashicorp/yamux.
//!
//! [`Session`] is the protocol without I/O or clock; [`Connection`] runs one
//! over a tokio transport.
//!
//! Differences from the Go library, all on the receiving side: data waiting
//! over all streams is bounded, as is the number of streams, and a peer that
//! provokes answers without reading them is no longer read from.

mod buffer;
mod config;
mod connection;
mod driver;
mod error;
pub mod frame;
mod input;
mod session;
mod stream;
mod stream_io;

pub use config::{Config, INITIAL_WINDOW};
pub use connection::{Connection, Incoming};
pub use error::{Error, GoAwayCode, Violation};
pub use session::{Event, Read, Role, Session, Write};
pub use stream_io::Stream;

#[cfg(test)]
mod tests;
