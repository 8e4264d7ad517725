//! The agent and tailnet services of Coder's API 2.10, both sides.
//!
//! One yamux session carries any number of calls, each on a stream of its
//! own. [`AgentClient`] and [`TailnetClient`] make calls, [`serve`] answers
//! them with implementations of [`AgentService`] and [`TailnetService`].

mod client;
mod server;
mod service;
mod version;

pub use adit_drpc::{
    Error, Status,
    client::{Receiver, Sender},
};
pub use client::{AgentClient, TailnetClient};
pub use server::{serve, serve_tailnet};
pub use service::{AgentService, NoAgent, Requests, Responses, TailnetService};
pub use version::{Version, VersionError};

#[cfg(test)]
mod tests;
