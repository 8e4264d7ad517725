//! Waiting for a state, not for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for something that normally takes milliseconds. A
/// loaded machine may need much of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `look` until it returns `Ok`, at most for [`PATIENCE`].
///
/// # Panics
/// When the deadline passes: with `what` and the last error.
pub fn until<T, E: std::fmt::Display>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(value) => return value,
            Err(last) if Instant::now() >= deadline => {
                panic!("waited {PATIENCE:?} for {what}; last seen: {last}")
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
