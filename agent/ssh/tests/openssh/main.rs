//! The server against real OpenSSH clients over loopback.
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

mod exec;
mod files;
mod forward;
mod harness;
mod lifetime;
mod terminal;
