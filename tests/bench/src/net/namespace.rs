//! Network namespaces that never outlive the run.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Where named namespaces are mounted.
const MOUNTED: &str = "/run/netns";

/// A named network namespace. Dropping it kills every process in it and
/// removes it.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes an empty namespace with its loopback device up.
    pub(crate) fn create(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let this = Self {
            name: name.to_owned(),
        };
        this.ip(&["link", "set", "lo", "up"])?;
        Ok(this)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, args: &[&str]) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(args);
        ip(&all)
    }

    /// Runs `work` on a thread that is in this namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = Path::new(MOUNTED).join(&self.name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
                Ok(work())
            });
            match worker.join() {
                Ok(result) => result,
                Err(_) => bail!("work in the namespace {} panicked", self.name),
            }
        })
    }

    /// Starts a program in it.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.enter(|| command.spawn())?
            .with_context(|| format!("start {}", command.get_program().display()))
    }

    /// Reads a file of `/proc/net` in it.
    pub(crate) fn proc_net(&self, name: &str) -> Result<String> {
        let path = PathBuf::from("/proc/thread-self/net").join(name);
        self.enter(|| fs::read_to_string(&path))?
            .with_context(|| format!("read {}", path.display()))
    }

    /// Sets a `net.` kernel setting in it, such as `net.ipv4.ip_forward`.
    pub(crate) fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("write {value} to {}", path.display()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Runs `ip`.
pub(crate) fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("start ip")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Kills what runs in the namespace and removes it.
pub(crate) fn remove(name: &str) {
    // Whatever a dying process had started a moment before is met in the next
    // round.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = pids(name);
        if left.is_empty() || Instant::now() > deadline {
            break;
        }
        kill_all(name);
        thread::sleep(Duration::from_millis(20));
    }
    let _ = ip(&["netns", "del", name]);
}

/// Kills what runs in the namespace now.
pub(crate) fn kill_all(name: &str) {
    for pid in pids(name) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Names of the namespaces that begin with `prefix`.
pub(crate) fn with_prefix(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(MOUNTED) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// Processes in the namespace that still run.
fn pids(name: &str) -> Vec<i32> {
    let Ok(output) = Command::new("ip")
        .args(["netns", "pids", name])
        .stderr(Stdio::null())
        .output()
    else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter(|pid| *pid != std::process::id().cast_signed() && !is_zombie(*pid))
        .collect()
}

fn is_zombie(pid: i32) -> bool {
    let stat: io::Result<String> = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|text| {
        text.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}
