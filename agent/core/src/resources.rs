//! Memory and disk use of the workspace, sampled into a fixed window.

mod cpu;
mod measure;

use std::collections::VecDeque;
use std::time::SystemTime;

pub use cpu::{CpuUsage, cpu};
pub use measure::{Usage, disk, host_memory, memory, own_memory};

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datapoint {
    /// When it was taken.
    pub at: SystemTime,
    /// Memory, if monitored and readable.
    pub memory: Option<Usage>,
    /// Monitored volumes that could be read.
    pub volumes: Vec<(String, Usage)>,
}

/// The newest samples; sent whole with each new one once it is full.
#[derive(Debug)]
pub struct Window {
    size: usize,
    points: VecDeque<Datapoint>,
}

impl Window {
    /// A window of `size` samples, at least one.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            size: size.clamp(1, 1_000),
            points: VecDeque::new(),
        }
    }

    /// Adds a sample; the whole window is returned once it is full.
    pub fn handle_sample(&mut self, point: Datapoint) -> Option<Vec<Datapoint>> {
        if self.points.len() == self.size {
            self.points.pop_front();
        }
        self.points.push_back(point);
        (self.points.len() == self.size).then(|| self.points.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_the_whole_window_from_the_time_it_is_full() {
        let point = |n| Datapoint {
            at: SystemTime::UNIX_EPOCH,
            memory: Some(Usage { used: n, total: 9 }),
            volumes: Vec::new(),
        };
        let mut w = Window::new(2);
        assert_eq!(w.handle_sample(point(1)), None);
        assert_eq!(w.handle_sample(point(2)).map(|p| p.len()), Some(2));
        let third = w.handle_sample(point(3)).expect("full");
        assert_eq!(third[0].memory.map(|m| m.used), Some(2));
    }
}
