//! The client's side of coordination: meeting an agent through the control
//! plane and keeping the tunnel to it informed.
//!
//! [`dial_agent`] does everything: connection details, node, coordination
//! session (with resume token, and dialled again whenever it ends), and the
//! wait until the agent answers. The session's loss never ends connections
//! that exist.

mod backoff;
mod control;
mod dial;
mod error;
mod map;
mod peers;
mod token;

pub use control::ControlState;
pub use dial::{
    AgentConn, DialOptions, DialStage, bare_node, dial_agent, dial_agent_port, start_agent_conn,
};
pub use error::{DialError, Unreachable};
pub use map::{map_from_json, region_names, rewrite_map};
pub use peers::{Action, PeerTable, Traffic};
