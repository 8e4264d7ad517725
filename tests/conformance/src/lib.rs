//! Recordings of real Coder programs, for tests that replay them.

pub mod left_out;
pub mod wire;
