//! Processor use, from two looks a moment apart.

use std::path::Path;
use std::time::{Duration, Instant};

use super::measure::{group_with, in_container, number, stat_line};

/// Cores in use of cores there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuUsage {
    /// In use.
    pub used: f64,
    /// Available; `None` without a limit.
    pub total: Option<f64>,
}

/// The processor use of the container this process is in, or of the host.
/// Blocks for `sample`.
#[must_use]
pub fn cpu(of_host: bool, sample: Duration) -> Option<CpuUsage> {
    if of_host || !in_container() {
        return host(sample);
    }
    container(sample)
}

fn host(sample: Duration) -> Option<CpuUsage> {
    let (busy, all) = proc_stat()?;
    std::thread::sleep(sample);
    let (busy_later, all_later) = proc_stat()?;
    let cores = cores();
    let all = all_later.saturating_sub(all).max(1);
    Some(CpuUsage {
        used: ratio(busy_later.saturating_sub(busy), all) * cores,
        total: Some(cores),
    })
}

/// Busy and all ticks since start.
fn proc_stat() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> = text
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|n| n.parse().ok())
        .collect();
    let all: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all - idle, all))
}

fn cores() -> f64 {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let count = text.lines().filter(|l| l.starts_with("processor")).count();
    f64::from(u32::try_from(count.max(1)).unwrap_or(1))
}

fn container(sample: Duration) -> Option<CpuUsage> {
    let (used, total) = match group_with("cpu.stat") {
        Some(dir) => {
            let read = || stat_line(&dir.join("cpu.stat"), "usage_usec");
            (rate(read, sample)?, v2_limit(&dir))
        }
        None => {
            let dir = ["cpu,cpuacct", "cpuacct", "cpu"]
                .map(|n| Path::new("/sys/fs/cgroup").join(n))
                .into_iter()
                .find(|d| d.join("cpuacct.usage").exists())?;
            let read = || number(&dir.join("cpuacct.usage")).map(|ns| ns / 1_000);
            let quota = number(&dir.join("cpu.cfs_quota_us"));
            let period = number(&dir.join("cpu.cfs_period_us"));
            let total = quota.zip(period).map(|(q, p)| ratio(q, p.max(1)));
            (rate(read, sample)?, total)
        }
    };
    Some(CpuUsage { used, total })
}

/// Microseconds of processor time per microsecond.
fn rate(read: impl Fn() -> Option<u64>, sample: Duration) -> Option<f64> {
    let (before, began) = (read()?, Instant::now());
    std::thread::sleep(sample);
    let spent = read()?.saturating_sub(before);
    let elapsed = u64::try_from(began.elapsed().as_micros()).ok()?;
    Some(ratio(spent, elapsed.max(1)))
}

/// The limit of the nearest group that has one.
fn v2_limit(dir: &Path) -> Option<f64> {
    for dir in dir.ancestors().take(10) {
        let text = std::fs::read_to_string(dir.join("cpu.max")).ok()?;
        let mut fields = text.split_whitespace();
        let quota = fields.next().and_then(|q| q.parse().ok());
        let period = fields.next().and_then(|p| p.parse::<u64>().ok());
        if let (Some(quota), Some(period)) = (quota, period) {
            return Some(ratio(quota, period.max(1)));
        }
    }
    None
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}
