//! Reading memory and disk use from the kernel.

use std::path::{Path, PathBuf};

/// Bytes used of bytes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Used, in bytes.
    pub used: u64,
    /// Available in total, in bytes.
    pub total: u64,
}

/// The value cgroup v1 uses for "no limit".
const V1_UNLIMITED: u64 = 9_223_372_036_854_771_712;
/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// How many parents are asked for a limit.
const DEPTH: usize = 10;

/// Memory of the container this process is in, or of the host. Blocking.
#[must_use]
pub fn memory() -> Option<Usage> {
    let host = host_memory()?;
    let (used, limit) = own_memory()?;
    Some(Usage {
        used,
        total: limit.unwrap_or(host.total),
    })
}

/// The same with the limit only where there is one. Blocking.
#[must_use]
pub fn own_memory() -> Option<(u64, Option<u64>)> {
    if in_container() {
        return cgroup_v2_memory().or_else(cgroup_v1_memory);
    }
    host_memory().map(|m| (m.used, Some(m.total)))
}

/// Memory of the host. Blocking.
#[must_use]
pub fn host_memory() -> Option<Usage> {
    meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// Space of the file system `path` is on. Blocking.
#[must_use]
pub fn disk(path: &str) -> Option<Usage> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    // The block size the counts are given in.
    let unit = stat.fragment_size() as u64;
    let (blocks, free) = (stat.blocks() as u64, stat.blocks_free() as u64);
    Some(Usage {
        used: blocks.saturating_sub(free).saturating_mul(unit),
        total: blocks.saturating_mul(unit),
    })
}

fn meminfo(text: &str) -> Option<Usage> {
    let value = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name))?;
        let kib: u64 = line[name.len()..].split_whitespace().next()?.parse().ok()?;
        Some(kib * 1_024)
    };
    let total = value("MemTotal:")?;
    Some(Usage {
        used: total.saturating_sub(value("MemAvailable:")?),
        total,
    })
}

pub(super) fn in_container() -> bool {
    let Ok(cgroup) = std::fs::read_to_string("/proc/1/cgroup") else {
        return false;
    };
    ["docker", ".slice", "lxc", "kubepods"]
        .iter()
        .any(|mark| cgroup.contains(mark))
        || Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
        || std::fs::read_to_string("/proc/mounts").is_ok_and(|m| m.contains("sysboxfs"))
        || Path::new("/sys/fs/cgroup/cgroup.type").exists()
}

fn cgroup_v2_memory() -> Option<(u64, Option<u64>)> {
    let dir = group_with("memory.current")?;
    let root = Path::new(ROOT);
    let current = number(&dir.join("memory.current"))?;
    let inactive = stat_line(&dir.join("memory.stat"), "inactive_file");
    let limit = limit_upwards(&dir, root);
    Some((current.saturating_sub(inactive.unwrap_or(0)), limit))
}

/// The own cgroup v2, or the root of those that can be seen, that has `file`.
pub(super) fn group_with(file: &str) -> Option<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|l| l.strip_prefix("0::"))?;
    let root = PathBuf::from(ROOT);
    [root.join(path.trim_start_matches('/')), root]
        .into_iter()
        .find(|d| d.join(file).exists())
}

/// The limit of the nearest group that has one.
fn limit_upwards(dir: &Path, root: &Path) -> Option<u64> {
    let mut at: PathBuf = dir.to_owned();
    for _ in 0..DEPTH {
        if let Some(limit) = number(&at.join("memory.max")) {
            return Some(limit);
        }
        if at == root || !at.pop() {
            return None;
        }
    }
    None
}

fn cgroup_v1_memory() -> Option<(u64, Option<u64>)> {
    let dir = Path::new("/sys/fs/cgroup/memory");
    let used = number(&dir.join("memory.usage_in_bytes"))?;
    let inactive = stat_line(&dir.join("memory.stat"), "total_inactive_file");
    let limit = number(&dir.join("memory.limit_in_bytes")).filter(|l| *l != V1_UNLIMITED);
    Some((used.saturating_sub(inactive.unwrap_or(0)), limit))
}

pub(super) fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

pub(super) fn stat_line(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|l| {
        let (key, value) = l.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_host_memory() {
        let text = "MemTotal:       16000 kB\nMemFree: 1 kB\nMemAvailable:    6000 kB\n";
        assert_eq!(
            meminfo(text),
            Some(Usage {
                used: 10_000 * 1_024,
                total: 16_000 * 1_024
            })
        );
        assert_eq!(meminfo("nothing"), None);
    }

    #[test]
    fn this_machine_can_be_measured() {
        let m = memory().expect("memory");
        assert!(m.used > 0 && m.total > 0);
        let d = disk("/").expect("disk");
        assert!(d.used <= d.total && d.total > 0);
        assert_eq!(disk("/no/such/place"), None);
    }
}
