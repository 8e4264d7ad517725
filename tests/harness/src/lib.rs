//! What black-box tests share: building and starting the real programs,
//! waiting for a state with a deadline, and saying SKIPPED out loud.
//!
//! Nothing here sleeps to synchronise. A wait polls a state until it holds or
//! its deadline passes, and then says what it last saw.

pub mod dev;
pub mod echo_template;
pub mod netns;
pub mod port;
pub mod process;
pub mod programs;
pub mod skip;
pub mod wait;

pub use dev::Dev;
pub use netns::{Host, Hosts};
pub use port::free_port;
pub use process::Process;
pub use programs::program;
pub use skip::need_tool;
pub use wait::{PATIENCE, until};
