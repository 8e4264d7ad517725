//! `gitssh`: `ssh` with the git key of the workspace's owner.
//!
//! The key lives in a private file for as long as `ssh` runs. Keys of the
//! user's own configuration are offered first.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use anyhow::Context;
use serde::Deserialize;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::{block_on, client, told};
use crate::cli::AgentArgs;

const PATH: &str = "/api/v2/workspaceagents/me/gitsshkey";
/// What `ssh` offers by itself.
const CLASSIC: [&str; 5] = [
    "id_rsa",
    "id_ecdsa",
    "id_ecdsa_sk",
    "id_ed25519",
    "id_ed25519_sk",
];

#[derive(Deserialize)]
struct Key {
    public_key: String,
    private_key: String,
}

/// A private file that goes away with its owner.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(text: &str) -> anyhow::Result<Self> {
        let name = format!("coder-gitsshkey-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let file = Self(path);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file.0)
            .and_then(|mut f| f.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write the key to {}", file.0.display()))?;
        Ok(file)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs `ssh` with `ssh_args`.
pub(crate) fn run(args: &AgentArgs, ssh_args: &[OsString]) -> anyhow::Result<ExitCode> {
    block_on(async {
        let identities = identities(ssh_args).await;
        let key: Key = client(args).await?.get(PATH).await.map_err(|e| told(&e))?;
        let file = KeyFile::new(&key.private_key)?;
        let mut command = Command::new("ssh");
        for identity in identities.iter().chain([&file.0]) {
            command.arg("-i").arg(identity);
        }
        command.args(ssh_args).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start ssh")?;
        let mut stops = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        let [one, two, three] = &mut stops;
        let status = tokio::select! {
            status = child.wait() => status.context("cannot wait for ssh")?,
            _ = one.recv() => return Ok(ExitCode::FAILURE),
            _ = two.recv() => return Ok(ExitCode::FAILURE),
            _ = three.recv() => return Ok(ExitCode::FAILURE),
        };
        Ok(code(status, &key.public_key))
    })
}

fn code(status: ExitStatus, public_key: &str) -> ExitCode {
    if status.success() {
        return ExitCode::SUCCESS;
    }
    if status.code() == Some(255) {
        eprintln!(
            "\nssh could not sign in. If the host does not know your key yet, add this public key to your account there:\n\n{}\n",
            public_key.trim()
        );
    }
    ExitCode::FAILURE
}

/// Identity files `ssh` would use that exist.
async fn identities(ssh_args: &[OsString]) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let asked = Command::new("ssh").arg("-G").args(ssh_args).output().await;
    let found = match asked {
        Ok(out) if out.status.success() => parse(&String::from_utf8_lossy(&out.stdout), &home),
        _ => CLASSIC.iter().map(|n| home.join(".ssh").join(n)).collect(),
    };
    found.into_iter().filter(|p| p.exists()).collect()
}

fn parse(config: &str, home: &Path) -> Vec<PathBuf> {
    config
        .lines()
        .filter_map(|l| l.strip_prefix("identityfile "))
        .map(|p| match p.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => PathBuf::from(p),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn identity_files_are_read_from_the_configuration() {
        let text = "user git\nidentityfile ~/.ssh/id_x\nidentityfile /etc/key\nport 22\n";
        assert_eq!(
            parse(text, Path::new("/home/u")),
            [
                PathBuf::from("/home/u/.ssh/id_x"),
                PathBuf::from("/etc/key")
            ]
        );
    }

    #[test]
    fn the_key_file_is_private_and_goes_away() {
        let file = KeyFile::new("key").expect("a file");
        let path = file.0.clone();
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(file);
        assert!(!path.exists());
    }
}
