//! For tests of what a peer may do: one that says anything, also after the
//! keys are exchanged, and keys without the time of an exchange.

use super::{Event, Session};
use crate::error::Error;
use crate::wire::Write;

impl Session {
    /// Gives a client and a server, both just begun, keys that everybody
    /// knows. The client's way into the connection waits in its output.
    ///
    /// # Errors
    /// [`Error::Unexpected`] if one of them has begun already,
    /// [`Error::NoCommonAlgorithm`].
    pub fn assume_keys(client: &mut Self, server: &mut Self) -> Result<(), Error> {
        let offer = |side: &Self| side.transport.offer().unwrap_or_default().to_vec();
        let line = |side: &Self| side.config.identification.clone().into_bytes();
        let offers = [offer(client), offer(server)];
        let lines = [line(client), line(server)];
        let [of_client, of_server] = offers;
        client.transport.assume_keys(&lines[1], of_server)?;
        server.transport.assume_keys(&lines[0], of_client)
    }

    /// Sends a message whatever it is: the number and all that follows.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn say(&mut self, message: &[u8]) -> Result<(), Error> {
        self.transport.emit(|out| out.put(message))
    }

    /// Bytes that are held for the peer or because of it, about.
    #[must_use]
    pub fn memory_used(&self) -> usize {
        let channels = self.channels.values().map(|c| c.memory_used());
        let globals = self.globals.len() * size_of::<super::connection::PendingGlobal>();
        let events = self.events.len() * size_of::<Event>();
        self.transport.memory_used() + channels.sum::<usize>() + globals + events
    }
}
