//! A link made in userspace, for kernels without traffic shaping: packets are
//! read from a TUN device in one namespace, delayed, dropped and doubled as
//! the settings say, and written to a TUN device in another.

mod driver;
mod model;

pub(crate) use driver::Link;
pub(crate) use model::{Counters, Settings};
