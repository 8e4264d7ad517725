//! Cleans up after a run that ended in whatever way, a kill included: a second
//! process waits for the first to be gone and then removes its namespaces,
//! with all that runs in them, and its files.

use std::{
    fs,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::net;

/// The watching process. It starts to clean up once this is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
    /// Open as long as this process lives.
    alive: Option<ChildStdin>,
}

impl Guard {
    /// Starts it. `dir` is removed with everything in it.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("find this program")?)
            .arg("guard")
            .arg("--of")
            .arg(std::process::id().to_string())
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::piped())
            // A Ctrl-C is not meant for it.
            .process_group(0)
            .spawn()
            .context("start the clean-up process")?;
        let alive = child.stdin.take();
        Ok(Self { child, alive })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = self.child.wait();
    }
}

/// The watching process itself.
pub(crate) fn watch(of: u32, dir: &PathBuf) {
    let mut nothing = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut nothing);
    for name in net::with_prefix(&net::prefix(of)) {
        net::remove(&name);
    }
    let _ = fs::remove_dir_all(dir);
}
