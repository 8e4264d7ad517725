//! Recognising JetBrains back ends among forwarded ports (Linux).
//!
//! A JetBrains client opens hundreds of short sessions, so sessions say
//! nothing; the forward to its back end lives as long as the user works.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// What the command line of a back end contains, in lower case.
const MARKS: [&str; 3] = [
    "idea.vendor.name=jetbrains",
    "com.jetbrains.toolbox",
    "remote-dev-server",
];
/// The state `LISTEN` in the kernel's socket tables.
const LISTEN: &str = "0A";

/// True if a process that listens on `port` is a JetBrains back end. Reads
/// `/proc`; whatever cannot be read counts as no.
pub(crate) fn listens_on(port: u16) -> bool {
    let mut inodes = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if let Ok(text) = fs::read_to_string(table) {
            inodes.extend(listening_inodes(&text, port));
        }
    }
    if inodes.is_empty() {
        return false;
    }
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path())
        // The command line is one small file, the descriptors are many links.
        .any(|process| is_backend(&process) && holds(&process, &inodes))
}

fn listening_inodes(table: &str, port: u16) -> impl Iterator<Item = u64> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next()?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        let (_, hex_port) = local.rsplit_once(':')?;
        let matches = state == LISTEN && u16::from_str_radix(hex_port, 16) == Ok(port);
        matches.then(|| inode.parse().ok()).flatten()
    })
}

fn is_backend(process: &Path) -> bool {
    let Ok(command_line) = fs::read(process.join("cmdline")) else {
        return false;
    };
    let text = String::from_utf8_lossy(&command_line).to_ascii_lowercase();
    MARKS.iter().any(|mark| text.contains(mark))
}

fn holds(process: &Path, inodes: &HashSet<u64>) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        let Ok(target) = fs::read_link(descriptor.path()) else {
            return false;
        };
        let name = target.to_string_lossy();
        let inode = name
            .strip_prefix("socket:[")
            .and_then(|s| s.strip_suffix(']'));
        inode
            .and_then(|s| s.parse().ok())
            .is_some_and(|i| inodes.contains(&i))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:8001 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0000000000000000 100 0 0 10 0
   2: broken";

    #[test]
    fn listeners_are_found_in_the_table() {
        assert_eq!(listening_inodes(TABLE, 8080).collect::<Vec<_>>(), [4711]);
        assert_eq!(listening_inodes(TABLE, 8081).count(), 0);
    }

    #[test]
    fn an_ordinary_listener_is_no_backend() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0");
        let port = listener
            .as_ref()
            .ok()
            .and_then(|l| l.local_addr().ok())
            .map_or(0, |a| a.port());
        assert!(!listens_on(port));
    }
}
