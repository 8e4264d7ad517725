//! The SSH server of a workspace.
//!
//! It listens nowhere: [`Server::serve`] takes any byte stream, in practice a
//! TCP connection inside the WireGuard tunnel. The tunnel has authenticated
//! the peer, so the SSH method `none` is accepted for every user name and all
//! sessions run as the agent's own account.
//!
//! ```text
//! Server ──serve(io)──▶ Connection (adit-ssh, one task)
//!   │                      ├─ session channel ─▶ Session: shell, exec, sftp
//!   │ counts, close        ├─ direct-tcpip, direct-streamlocal ─▶ dial, copy
//!   ▼                      └─ tcpip-forward, streamlocal-forward, x11, agent
//! agent                                        ─▶ listen, open channels back
//! ```
//!
//! A connection owns all its tasks; when it ends (also when the peer only
//! closes its sending side) they end, terminals are hung up, and listeners
//! and sockets are closed. Programs that run without a terminal keep running,
//! as they do under OpenSSH; [`Server::close`] ends them with SIGHUP.

mod agent_forward;
mod channel;
mod config;
mod connection;
mod forward;
mod handler;
pub mod hostkey;
mod jetbrains;
mod server;
mod session;
mod settings;
mod sftp;
mod tally;
mod tasks;
mod x11;

pub use config::{Config, Greeting, NoGreeting};
pub use hostkey::{HostKey, HostKeyError};
pub use server::{Counts, Server};
