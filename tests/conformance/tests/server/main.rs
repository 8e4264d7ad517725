//! `adit-server` against the recorded requests of real agents and clients.
//!
//! A recording is sent again as it was, except for what differs from server to
//! server: identifiers are replaced by those this server gave out. Each piece
//! is sent once this server has said everything the recorded one had said by
//! then, and what it says is compared.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod claim;
mod compare;
mod deployment;
mod http;
mod live;
mod puppet;
mod relay;
mod replay;
mod wire;

#[path = "../proto_json/mod.rs"]
mod proto_json;

/// The token of the recorded agent of the workspace `dev`.
pub(crate) const DEV_TOKEN: &str = "00000000-0000-4000-8000-00000a6e0001";
/// The token of the recorded agent of the workspace `box`.
pub(crate) const BOX_TOKEN: &str = "00000000-0000-4000-8000-00000a6e0002";
