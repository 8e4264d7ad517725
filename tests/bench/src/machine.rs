//! The machine a run was made on.

use std::{fmt, fs, thread};

use serde_json::{Value, json};

use crate::proc;

/// What one has to know to judge figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    kernel: String,
    processor: String,
    processors: usize,
    features: String,
    load: f64,
    congestion_control: String,
    receive_buffer_limit: String,
}

/// Processor features that decide the speed of ciphers.
const FEATURES: [&str; 6] = ["aes", "vaes", "avx2", "avx512f", "sha_ni", "pclmulqdq"];

impl Machine {
    /// This one, now.
    pub(crate) fn look() -> Self {
        let read = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let info = read("/proc/cpuinfo");
        let field = |name: &str| {
            info.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(candidate, _)| candidate.trim() == name)
                .map_or("", |(_, value)| value.trim())
        };
        let flags: Vec<&str> = field("flags").split(' ').collect();
        let features: Vec<&str> = FEATURES
            .into_iter()
            .filter(|feature| flags.contains(feature))
            .collect();
        Self {
            kernel: read("/proc/sys/kernel/osrelease"),
            processor: field("model name").to_owned(),
            processors: thread::available_parallelism().map_or(0, usize::from),
            features: features.join(" "),
            load: proc::load(),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
            receive_buffer_limit: read("/proc/sys/net/core/rmem_max"),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "processor": self.processor,
            "processors": self.processors,
            "features": self.features,
            "load_before": self.load,
            "kernel_congestion_control": self.congestion_control,
            "rmem_max": self.receive_buffer_limit,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Linux {}, {} × {} ({}), load {:.1} before, rmem_max {}",
            self.kernel,
            self.processors,
            self.processor,
            self.features,
            self.load,
            self.receive_buffer_limit
        )
    }
}
