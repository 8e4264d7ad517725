//! Two hosts on one machine: network namespaces with a cable between them.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{process::run, skip};

const LIMIT: Duration = Duration::from_secs(20);

/// Namespaces `near` and `far`, joined by a veth pair. They are deleted, with
/// all that runs in them, when this is dropped.
#[derive(Debug)]
pub struct Hosts {
    near: String,
    far: String,
    octet: u32,
}

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Where the client runs.
    Near,
    /// Where the control plane and the workspace run.
    Far,
}

impl Hosts {
    /// Makes both hosts; `None`, and SKIPPED, without root or `ip`.
    ///
    /// # Panics
    /// If the namespaces cannot be set up.
    #[must_use]
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !skip::need_root() || skip::need_tool("ip").is_none() {
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        let hosts = Self {
            near: format!("adit-near-{id}-{count}"),
            far: format!("adit-far-{id}-{count}"),
            octet: (id + count) % 250 + 1,
        };
        let (near, far) = (hosts.near.as_str(), hosts.far.as_str());
        let (near_if, far_if) = (format!("n{id}x{count}"), format!("f{id}x{count}"));
        ip(&["netns", "add", near]);
        ip(&["netns", "add", far]);
        ip(&[
            "link", "add", &near_if, "netns", near, "type", "veth", "peer", "name", &far_if,
            "netns", far,
        ]);
        for (host, link, address) in [
            (near, near_if.as_str(), hosts.address(Host::Near)),
            (far, far_if.as_str(), hosts.address(Host::Far)),
        ] {
            ip(&["-n", host, "link", "set", "lo", "up"]);
            ip(&[
                "-n",
                host,
                "addr",
                "add",
                &format!("{address}/24"),
                "dev",
                link,
            ]);
            ip(&["-n", host, "link", "set", link, "up"]);
        }
        Some(hosts)
    }

    /// Address of a host on the cable.
    #[must_use]
    pub fn address(&self, host: Host) -> String {
        let last = match host {
            Host::Near => 1,
            Host::Far => 2,
        };
        format!("10.77.{}.{last}", self.octet)
    }

    /// The file that stands for a host's network.
    #[must_use]
    pub fn path(&self, host: Host) -> PathBuf {
        let name = match host {
            Host::Near => &self.near,
            Host::Far => &self.far,
        };
        Path::new("/var/run/netns").join(name)
    }

    /// The words that run a command on a host.
    #[must_use]
    pub fn prefix(&self, host: Host) -> Vec<String> {
        let name = match host {
            Host::Near => &self.near,
            Host::Far => &self.far,
        };
        ["ip", "netns", "exec", name].map(str::to_owned).to_vec()
    }

    /// A command on a host.
    #[must_use]
    pub fn command(&self, host: Host, program: impl AsRef<OsStr>) -> Command {
        let prefix = self.prefix(host);
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program);
        command
    }

    /// Runs a command of the packet filter on a host.
    ///
    /// # Panics
    /// If it fails.
    pub fn nft(&self, host: Host, rules: &str) {
        let mut command = self.command(host, "nft");
        command.arg(rules);
        let output = run(&mut command, LIMIT);
        assert!(
            output.status.success(),
            "nft {rules}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// From now on, every UDP packet between the hosts is lost.
    pub fn block_udp(&self) {
        self.nft(Host::Far, "add table inet block");
        self.nft(
            Host::Far,
            "add chain inet block in { type filter hook input priority 0; }",
        );
        self.nft(
            Host::Far,
            "add chain inet block out { type filter hook output priority 0; }",
        );
        self.nft(Host::Far, "add rule inet block in meta l4proto udp drop");
        self.nft(Host::Far, "add rule inet block out meta l4proto udp drop");
    }

    /// Ends what [`Self::block_udp`] began.
    pub fn unblock_udp(&self) {
        self.nft(Host::Far, "delete table inet block");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            let _ = Command::new("/bin/sh")
                .arg("-c")
                .arg("ip netns pids \"$1\" | xargs -r kill -9 2>/dev/null; ip netns del \"$1\"")
                .args(["sh", name])
                .status();
        }
    }
}

fn ip(args: &[&str]) {
    let output = run(Command::new("ip").args(args), LIMIT);
    assert!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
