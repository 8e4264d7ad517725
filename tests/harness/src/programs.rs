//! The programs under test, built once for each test run.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map_or_else(PathBuf::new, Path::to_owned)
}

/// Path of `adit`, `adit-agent` or `adit-server`.
///
/// They are taken from `ADIT_BIN_DIR` if that is set, so that release builds
/// can be tested; otherwise they are built here with the test's profile.
///
/// # Panics
/// If they do not build.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| match env::var_os("ADIT_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => build(),
    });
    let path = dir.join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}

fn build() -> PathBuf {
    let test = env::current_exe().expect("path of the running test");
    // target/<profile>/deps/<test>
    let dir = test
        .ancestors()
        .nth(2)
        .expect("a test lies two levels below its target directory");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The same choice of targets as `cargo test --workspace` has: another one
    // would enable other features, and build every dependency again.
    cargo
        .current_dir(repository())
        .args(["build", "--quiet", "--workspace", "--bins", "--tests"]);
    if dir.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("start cargo");
    assert!(status.success(), "cargo build failed: {status}");
    dir.to_owned()
}
