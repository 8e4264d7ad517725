//! A server's services and authentication (RFC 4253 §10, RFC 4252).
//!
//! The stream comes from an authenticated tunnel: the method `none` succeeds
//! for every user, and no other method exists.

use super::{Event, Phase, Session};
use crate::error::Error;
use crate::msg;
use crate::wire::{Reader, Write};

pub(super) const USERAUTH: &[u8] = b"ssh-userauth";
pub(super) const CONNECTION: &[u8] = b"ssh-connection";
pub(super) const NONE: &[u8] = b"none";
/// Refused attempts before the connection ends (RFC 4252 §4).
const ATTEMPTS: u32 = 20;

impl Session {
    pub(super) fn handle_login(&mut self, number: u8, seq: u32, body: &[u8]) -> Result<(), Error> {
        match (number, &self.phase) {
            (msg::SERVICE_REQUEST, Phase::Service) => {
                self.phase = Phase::Login(0);
                self.accept_service(body)
            }
            (msg::SERVICE_REQUEST, Phase::Login(_)) => self.accept_service(body),
            (msg::USERAUTH_REQUEST, Phase::Login(refused)) => {
                let refused = *refused;
                self.log_in(body, refused)
            }
            (number, _) if number < msg::USERAUTH_REQUEST => self.unimplemented(seq),
            _ => Err(Error::Unexpected(number)),
        }
    }

    fn accept_service(&mut self, body: &[u8]) -> Result<(), Error> {
        if Reader::new(body, "SERVICE_REQUEST").string()? != USERAUTH {
            return Err(Error::UnknownService);
        }
        self.transport.send(|out| {
            out.put_u8(msg::SERVICE_ACCEPT);
            out.put_string(USERAUTH);
        })
    }

    fn log_in(&mut self, body: &[u8], refused: u32) -> Result<(), Error> {
        let mut reader = Reader::new(body, "USERAUTH_REQUEST");
        let user = reader.string()?.to_vec();
        if reader.string()? != CONNECTION {
            return Err(Error::UnknownService);
        }
        if reader.string()? == NONE {
            self.phase = Phase::Connection;
            self.transport.authenticated = true;
            self.events.push_back(Event::Authenticated { user });
            return self.transport.send(|out| out.put_u8(msg::USERAUTH_SUCCESS));
        }
        if refused >= ATTEMPTS {
            return Err(Error::Authentication);
        }
        self.phase = Phase::Login(refused + 1);
        self.refuse_login()
    }

    /// No method can continue: `none` must not be listed (RFC 4252 §5.2).
    pub(super) fn refuse_login(&mut self) -> Result<(), Error> {
        self.transport.send(|out| {
            out.put_u8(msg::USERAUTH_FAILURE);
            out.put_string("");
            out.put_bool(false);
        })
    }
}
