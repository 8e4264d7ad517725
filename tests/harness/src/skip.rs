//! Tests that need something a machine may not have.

use std::{env, path::PathBuf};

/// Whether missing tools are failures: CI installs all of them.
#[must_use]
pub fn strict() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

/// Reports a test as skipped.
///
/// # Panics
/// Under `CI=true`, where nothing may be skipped.
pub fn skip(why: &str) {
    assert!(!strict(), "would be SKIPPED: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Finds a program on the `PATH`, or reports the test as skipped.
#[must_use]
pub fn need_tool(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Finds a program on the `PATH` or among the system directories.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/openssh"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Whether this test may create network namespaces; reports it as skipped
/// otherwise.
#[must_use]
pub fn need_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root for network namespaces");
    }
    root
}

/// The real `coder` binary to test against, from `ADIT_CODER_BIN`.
///
/// Not having it is never a failure: it is no part of this project.
#[must_use]
pub fn real_coder() -> Option<PathBuf> {
    let path = env::var_os("ADIT_CODER_BIN").map(PathBuf::from);
    if path.is_none() {
        eprintln!("SKIPPED: ADIT_CODER_BIN does not name a real coder binary");
    }
    path
}
