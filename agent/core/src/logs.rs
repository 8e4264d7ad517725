//! Script output on its way to the control plane.
//!
//! [`LineSplitter`] turns bytes into clean lines, [`LogQueue`] holds the lines
//! of all sources and decides what is sent when. Both are plain structs; the
//! sender task around them is in the session.

mod lines;
mod queue;

pub use lines::LineSplitter;
pub(crate) use lines::sanitise;
pub use queue::{Batch, Level, Line, LogQueue};
