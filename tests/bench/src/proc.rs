//! What `/proc` tells about processes.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Clock ticks per second in `/proc/<pid>/stat`: 100 on every architecture
/// that Linux still has.
const TICKS: u64 = 100;

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    /// Shared pages divided among those who share them.
    pub(crate) pss: u64,
    /// Not backed by a file: what the process itself needs.
    pub(crate) anonymous: u64,
}

/// Memory of a process.
pub(crate) fn memory(pid: i32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(parse_memory(&text))
}

fn parse_memory(text: &str) -> Memory {
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(candidate, _)| *candidate == name)
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    Memory {
        rss: value("Rss"),
        pss: value("Pss"),
        anonymous: value("Anonymous"),
    }
}

/// A line of `/proc/<pid>/stat`, as far as it is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) group: i32,
    /// Processor time of all its threads, without its children.
    pub(crate) cpu: Duration,
}

/// Looks at a process; `None` if there is none. Also works for one that ended
/// and was not waited for.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name, in parentheses, may hold spaces and parentheses.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = ticks(11)? + ticks(12)?;
    Some(Stat {
        group: fields.get(2)?.parse().ok()?,
        cpu: Duration::from_millis(ticks * 1000 / TICKS),
    })
}

/// Processor time of a process so far; zero if it is gone.
pub(crate) fn cpu(pid: i32) -> Duration {
    stat(pid).map_or(Duration::ZERO, |stat| stat.cpu)
}

/// All processes.
pub(crate) fn pids() -> Vec<i32> {
    fs::read_dir("/proc").map_or_else(
        |_| Vec::new(),
        |entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect()
        },
    )
}

/// Times that the threads of a process went to sleep, and so were woken up.
pub(crate) fn switches(pid: i32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .map(|status| parse_switches(&status))
        .sum()
}

fn parse_switches(status: &str) -> u64 {
    status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| *name == "voluntary_ctxt_switches")
        .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
        .sum()
}

/// Number of threads of a process.
pub(crate) fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// The one-minute load average.
pub(crate) fn load() -> f64 {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_with_a_wild_name() {
        let line = "12 (a) b ( c) S 1 34 34 0 -1 4194304 10 20 0 0 250 51 7 8 20 0 4 0 999 1 2";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                group: 34,
                cpu: Duration::from_millis(3010)
            })
        );
        assert_eq!(parse_stat("12 (a"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let text = "00400000-7ffe [rollup]\nRss:      100 kB\nPss:  50 kB\nPss_Anon: 7 kB\nAnonymous:   20 kB\n";
        assert_eq!(
            parse_memory(text),
            Memory {
                rss: 102_400,
                pss: 51_200,
                anonymous: 20_480
            }
        );
    }

    #[test]
    fn only_sleeping_counts() {
        let text = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t30\n";
        assert_eq!(parse_switches(text), 12);
    }

    #[test]
    fn this_process_is_there() {
        let pid = std::process::id().cast_signed();
        assert!(memory(pid).unwrap().rss > 0);
        assert!(stat(pid).is_some());
        assert!(threads(pid) > 0);
        assert!(pids().contains(&pid));
    }
}
