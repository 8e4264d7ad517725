//! Which TCP ports something in the workspace listens on.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

/// A port somebody listens on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ListeningPort {
    /// Name of the listening process; empty if it cannot be read.
    pub process_name: String,
    /// Always `tcp`.
    pub network: &'static str,
    /// The port.
    pub port: u16,
}

/// Smallest port offered.
const LOWEST: u16 = 9;
/// State "listen" in the kernel's tables.
const LISTEN: &str = "0A";

/// Scans the kernel's tables. Ports in `ignored` are left out. Blocking.
///
/// # Errors
/// No table can be read.
pub fn scan(ignored: &[u16]) -> io::Result<Vec<ListeningPort>> {
    let proc = Path::new("/proc");
    let mut text = std::fs::read_to_string(proc.join("net/tcp"))?;
    // IPv6 sockets mostly take IPv4 too; a machine without IPv6 has no file.
    text.push_str(&std::fs::read_to_string(proc.join("net/tcp6")).unwrap_or_default());
    let mut ports = BTreeMap::new();
    for (port, inode) in listening(&text) {
        if port >= LOWEST && !ignored.contains(&port) {
            ports.entry(port).or_insert(inode);
        }
    }
    let wanted: Vec<u64> = ports.values().copied().collect();
    let names = process_names(proc, &wanted);
    Ok(ports
        .into_iter()
        .map(|(port, inode)| ListeningPort {
            process_name: names.get(&inode).cloned().unwrap_or_default(),
            network: "tcp",
            port,
        })
        .collect())
}

/// Port and socket inode of every listening line of a kernel table.
fn listening(table: &str) -> impl Iterator<Item = (u16, u64)> {
    table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.len() < 12 || fields[3] != LISTEN {
            return None;
        }
        let (_, port) = fields[1].rsplit_once(':')?;
        Some((u16::from_str_radix(port, 16).ok()?, fields[9].parse().ok()?))
    })
}

/// Finds the processes that hold the wanted socket inodes.
fn process_names(proc: &Path, wanted: &[u64]) -> HashMap<u64, String> {
    let mut names = HashMap::new();
    let Ok(processes) = std::fs::read_dir(proc) else {
        return names;
    };
    for process in processes.flatten() {
        if names.len() == wanted.len() {
            break;
        }
        let path = process.path();
        let is_process = process
            .file_name()
            .to_str()
            .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if !is_process {
            continue;
        }
        let Ok(fds) = std::fs::read_dir(path.join("fd")) else {
            continue;
        };
        for fd in fds.flatten() {
            let Some(inode) = socket_inode(&fd.path()) else {
                continue;
            };
            if wanted.contains(&inode) && !names.contains_key(&inode) {
                names.insert(inode, comm(&path));
            }
        }
    }
    names
}

fn socket_inode(fd: &Path) -> Option<u64> {
    let target = std::fs::read_link(fd).ok()?;
    let text = target.to_str()?;
    text.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

fn comm(process: &Path) -> String {
    let stat = std::fs::read(process.join("stat")).unwrap_or_default();
    let text = String::from_utf8_lossy(&stat);
    let begin = text.find('(').map_or(0, |at| at + 1);
    let end = text.rfind(')').unwrap_or(begin);
    text.get(begin..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0BB9 0100007F:1234 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0000000000000000 100 0 0 10 0
   2: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 99 1 0 100 0 0 10 0
";

    #[test]
    fn reads_listeners_of_both_tables() {
        let found: Vec<_> = listening(TABLE).collect();
        assert_eq!(found, [(3000, 4711), (8080, 99)]);
    }

    #[test]
    fn finds_an_own_listener() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let all = scan(&[]).expect("a scan");
        let own = all.iter().find(|p| p.port == port).expect("own port");
        assert!(!own.process_name.is_empty());
        assert!(
            scan(&[port])
                .expect("a scan")
                .iter()
                .all(|p| p.port != port)
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = listening(&text).count();
        }
    }
}
