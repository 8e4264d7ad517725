//! Terminals that outlive the connections attached to them.
//!
//! The dashboard's terminal connects through the control plane to one port of
//! the agent. A connection names a terminal by a UUID; if it exists, the
//! connection is attached to it and first receives what was printed last, else
//! a shell is started. Several connections may be attached to one terminal:
//! all see the same, all can type, and the last size wins.
//!
//! ```text
//! Service::serve ──init──▶ registry: UUID ─▶ Terminal (one task: PTY, ring,
//!   │  ▲                                       attachments, timer)
//!   │  └────────────── output ◀────────────────┘   ▲
//!   └───────── {"data":…}, {"height":…} ───────────┘
//! ```
//!
//! | Module | Job |
//! |---|---|
//! | [`wire`] | what a client sends |
//! | `ring` | what was printed last |
//! | `terminal` | one terminal |
//! | [`Service`] | all terminals and their connections |

mod ring;
mod service;
mod terminal;
pub mod wire;

pub use service::Service;
