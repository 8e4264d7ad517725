//! A client's way into a connection (RFC 4253 §10, RFC 4252).
//!
//! The service, the login by the method `none` and what comes after it are
//! asked for at once. The server handles them in order, so that what follows
//! a successful login is in its place; after a refused one the connection
//! ends in any case.

use super::{Event, Phase, Session};
use crate::algo::Side;
use crate::error::Error;
use crate::msg;
use crate::session::login::{CONNECTION, NONE, USERAUTH};
use crate::wire::Write;

/// Servers, by their identification, that give their channels the numbers 0,
/// 1 and so on: requests on the first may follow its opening at once. Should
/// the number be another one, such a server refuses the requests, and they are
/// sent again.
const COUNTING: &[&[u8]] = &[b"SSH-2.0-Go"];

impl Session {
    /// Queues all that leads into the connection.
    pub(super) fn ask_to_join(&mut self) -> Result<(), Error> {
        self.transport.send(|out| {
            out.put_u8(msg::SERVICE_REQUEST);
            out.put_string(USERAUTH);
        })?;
        self.transport.send(|out| {
            out.put_u8(msg::USERAUTH_REQUEST);
            out.put_string("");
            out.put_string(CONNECTION);
            out.put_string(NONE);
        })
    }

    pub(super) fn handle_joining(
        &mut self,
        number: u8,
        seq: u32,
        body: &[u8],
    ) -> Result<(), Error> {
        match number {
            msg::SERVICE_ACCEPT | msg::USERAUTH_BANNER => Ok(()),
            msg::USERAUTH_SUCCESS if body.is_empty() => {
                self.phase = Phase::Connection;
                self.transport.authenticated = true;
                self.events
                    .push_back(Event::Authenticated { user: Vec::new() });
                Ok(())
            }
            msg::USERAUTH_FAILURE => Err(Error::Refused),
            number if number < msg::USERAUTH_REQUEST => self.unimplemented(seq),
            number => Err(Error::Unexpected(number)),
        }
    }

    /// Once the first key exchange is over, a client lets the requests of its
    /// first channel go ahead if the number of that channel is foreseeable.
    pub(super) fn get_under_way(&mut self) {
        if self.under_way || !self.transport.may_send() {
            return;
        }
        self.under_way = true;
        let counting = self
            .transport
            .peer_line()
            .is_some_and(|line| COUNTING.contains(&line));
        if self.config.side() == Side::Client
            && counting
            && let Some(channel) = self.channels.get_mut(&0)
        {
            channel.presume(0);
            self.settle(0);
        }
    }
}
