//! The control plane: REST API, agent RPC, coordinator, relay, provisioning.
//!
//! The program is thin; everything is in this library so that tests can run a
//! server inside their own process:
//!
//! ```text
//!   http (front: middleware, routing)
//!     ├── api      REST and event streams for clients
//!     ├── rpc      agents' control sessions
//!     ├── coord    clients' tailnet sessions
//!     └── derp     relay
//!   provision, prebuilds, upkeep   background work
//!   App        what they share: store, pub/sub, configuration
//! ```

pub(crate) mod access;
mod api;
mod app;
pub mod auth;
pub mod config;
pub(crate) mod convert;
mod coord;
mod derp;
mod dev;
pub(crate) mod error;
pub(crate) mod extract;
pub(crate) mod git_key;
mod http;
pub(crate) mod pattern;
mod prebuilds;
mod provision;
pub mod pubsub;
mod reach;
mod rpc;
pub(crate) mod schedule;
pub(crate) mod search;
mod serve;
pub(crate) mod template;
#[cfg(test)]
mod tests;
pub(crate) mod upgrade;
mod upkeep;

pub use app::App;
pub use config::Config;
pub use dev::{DevArgs, run as run_dev};
pub use serve::Server;

/// Version of this program, with a leading `v`.
pub const VERSION: &str = adit_rest::WIRE_VERSION;
