//! Ports for programs that have to be told one.

use std::net::TcpListener;

/// A TCP port of loopback that nobody listens on. Another program may take it
/// before it is used; that is rare enough for tests.
///
/// # Panics
/// When there is no free port.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    address.expect("a free port").port()
}
