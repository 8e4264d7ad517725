//! Files the agent writes on behalf of the control plane.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::manifest::Secret;
use crate::scripts::make_private_dir;

/// Writes the secrets that have a file. Failures are only logged, without the
/// value. Blocking.
pub(crate) fn write_secrets(secrets: &[Secret], home: &Path) {
    for secret in secrets.iter().filter(|s| !s.file_path.is_empty()) {
        let path = match secret.file_path.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => PathBuf::from(&secret.file_path),
        };
        if let Err(error) = write_private(&path, &secret.value) {
            tracing::warn!(path = %path.display(), %error, "cannot write a secret's file");
        }
    }
}

fn write_private(path: &Path, value: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        make_private_dir(parent)?;
    }
    // The mode counts for new files only; an existing one keeps its own.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(value)
}

/// Tells the editors of this account to use the agent's git credentials,
/// unless they were told otherwise. Blocking.
pub(crate) fn prepare_editors(home: &Path, data_home: Option<&Path>) {
    let share = data_home.map_or_else(|| home.join(".local/share"), Path::to_owned);
    let mut places = vec![share.join("code-server/Machine/settings.json")];
    for editor in [
        ".vscode-server",
        ".vscode-insiders-server",
        ".cursor-server",
        ".windsurf-server",
        ".vscodium-server",
    ] {
        places.push(home.join(editor).join("data/Machine/settings.json"));
    }
    for place in places {
        if let Err(error) = add_settings(&place) {
            tracing::warn!(path = %place.display(), %error, "cannot prepare editor settings");
            return;
        }
    }
}

fn add_settings(path: &Path) -> io::Result<()> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => "{}".to_owned(),
        Err(e) => return Err(e),
    };
    let mut settings: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)?;
    let mut changed = false;
    for key in ["git.useIntegratedAskPass", "github.gitAuthentication"] {
        if !settings.contains_key(key) {
            settings.insert(key.to_owned(), false.into());
            changed = true;
        }
    }
    if !changed {
        return Ok(());
    }
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut out, format);
    serde::Serialize::serialize(&settings, &mut writer)?;
    write_private(path, &out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_are_private_and_later_ones_win() {
        let home = tempfile::tempdir().expect("a directory");
        let secret = |value: &'static str| Secret {
            env_name: String::new(),
            file_path: "~/deep/key".to_owned(),
            value: bytes::Bytes::from_static(value.as_bytes()),
        };
        write_secrets(&[secret("longer first"), secret("second")], home.path());
        let path = home.path().join("deep/key");
        assert_eq!(
            std::fs::read_to_string(&path).ok().as_deref(),
            Some("second")
        );
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn editor_settings_are_added_not_replaced() {
        let home = tempfile::tempdir().expect("a directory");
        let mine = home
            .path()
            .join(".vscode-server/data/Machine/settings.json");
        std::fs::create_dir_all(mine.parent().expect("a parent")).expect("made");
        std::fs::write(&mine, r#"{"git.useIntegratedAskPass": true, "x": 1}"#).expect("written");
        prepare_editors(home.path(), None);
        let read: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&mine).expect("read")).expect("json");
        assert_eq!(read["git.useIntegratedAskPass"], true);
        assert_eq!(read["github.gitAuthentication"], false);
        assert_eq!(read["x"], 1);
        assert!(
            home.path()
                .join(".local/share/code-server/Machine/settings.json")
                .exists()
        );
    }
}
