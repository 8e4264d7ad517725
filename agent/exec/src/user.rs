//! The account the agent runs as.
//!
//! Only files and environment variables are consulted, never the name service
//! switch: the program must give the same answers when it is linked
//! statically or runs in an image without glibc.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The account database.
const PASSWD: &str = "/etc/passwd";

/// The account commands run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: OsString,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell as the account database spells it; empty if that field is
    /// empty (commands then fail, as they do for `login`).
    pub shell: OsString,
}

/// Why the account of this process is not known.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserError {
    /// The uid is in no account database and `$USER` is unset.
    #[error("uid {0} has no entry in /etc/passwd and $USER is not set")]
    NoName(u32),
    /// No home directory is known.
    #[error("no home directory: $HOME is not set and uid {0} has no entry in /etc/passwd")]
    NoHome(u32),
    /// No shell is known.
    #[error("no shell for user {0}: no entry in /etc/passwd and $SHELL is not set")]
    NoShell(String),
}

impl User {
    /// Looks up the account of this process: the entry of the real uid in
    /// `/etc/passwd`; without one `$USER`, `$HOME` and `$SHELL`. `$HOME`, if
    /// set, always decides the home directory.
    ///
    /// # Errors
    /// [`UserError`] names the piece that is missing.
    pub fn current() -> Result<Self, UserError> {
        let passwd = std::fs::read(PASSWD).unwrap_or_default();
        Self::lookup(nix::unistd::getuid().as_raw(), &passwd, |name| {
            std::env::var_os(name).filter(|v| !v.is_empty())
        })
    }

    /// [`User::current`] with its inputs given.
    ///
    /// # Errors
    /// As [`User::current`].
    pub fn lookup(
        uid: u32,
        passwd: &[u8],
        var: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, UserError> {
        let by_uid = entries(passwd).find(|e| e.uid == Some(uid));
        let name = match &by_uid {
            Some(e) => e.name.to_owned(),
            None => var("USER").ok_or(UserError::NoName(uid))?,
        };
        let home = var("HOME")
            .or_else(|| by_uid.as_ref().map(|e| e.home.to_owned()))
            .ok_or(UserError::NoHome(uid))?;
        let by_name = entries(passwd).find(|e| e.name == name);
        let shell = match by_name {
            Some(e) => e.shell.to_owned(),
            None => var("SHELL")
                .ok_or_else(|| UserError::NoShell(name.to_string_lossy().into_owned()))?,
        };
        Ok(Self {
            name,
            home: PathBuf::from(home),
            shell,
        })
    }
}

/// One line of the account database.
struct Entry<'a> {
    name: &'a OsStr,
    uid: Option<u32>,
    home: &'a OsStr,
    shell: &'a OsStr,
}

fn entries(passwd: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    passwd.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.split(|b| *b == b':').map(OsStr::from_bytes);
        let name = fields.next()?;
        let _password = fields.next()?;
        let uid = fields.next()?.to_str()?.parse().ok();
        let _gid = fields.next()?;
        let _gecos = fields.next()?;
        let home = fields.next()?;
        let shell = fields.next()?;
        (!name.is_empty()).then_some(Entry {
            name,
            uid,
            home,
            shell,
        })
    })
}

/// Resolves a configured directory: a leading `~` is the home directory, then
/// `$NAME` and `${NAME}` are replaced, then a relative path is placed under
/// home. An empty text stays empty (`None`).
#[must_use]
pub fn expand_directory(
    text: &str,
    home: &Path,
    var: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    if text.is_empty() {
        return None;
    }
    let mut raw = OsString::new();
    match text.strip_prefix('~') {
        Some(rest) => {
            raw.push(home);
            raw.push(rest);
        }
        None => raw.push(text),
    }
    let path = PathBuf::from(expand_variables(&raw, var));
    Some(if path.is_absolute() {
        path
    } else {
        home.join(path)
    })
}

/// Replaces `$NAME` and `${NAME}`; an unknown name becomes empty, a `$` that
/// starts no name stays.
#[must_use]
pub fn expand_variables(text: &OsStr, var: impl Fn(&str) -> Option<OsString>) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'$') {
        let (before, tail) = rest.split_at(at);
        out.extend_from_slice(before);
        let after = tail.get(1..).unwrap_or_default();
        let Some((name, used)) = variable_name(after) else {
            out.push(b'$');
            rest = after;
            continue;
        };
        if let Some(value) = std::str::from_utf8(name).ok().and_then(&var) {
            out.extend_from_slice(value.as_bytes());
        }
        rest = after.get(used..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    OsString::from_vec(out)
}

/// The variable name at the start of `after` (the bytes behind `$`) and how
/// many bytes it takes.
fn variable_name(after: &[u8]) -> Option<(&[u8], usize)> {
    if let Some(braced) = after.strip_prefix(b"{") {
        let end = braced.iter().position(|b| *b == b'}')?;
        return Some((braced.get(..end)?, end + 2));
    }
    let end = after
        .iter()
        .position(|b| !b.is_ascii_alphanumeric() && *b != b'_')
        .unwrap_or(after.len());
    (end > 0).then(|| (after.get(..end).unwrap_or_default(), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] =
        b"root:x:0:0:root:/root:/bin/bash\n\ndev:x:1000:1000:Dev,,,:/home/dev:/bin/zsh\nbare:x:7:7::/:\n";

    fn none(_: &str) -> Option<OsString> {
        None
    }

    #[test]
    fn account_comes_from_the_passwd_line() {
        let user = User::lookup(1000, FILE, none).unwrap();
        assert_eq!(user.name, "dev");
        assert_eq!(user.home, Path::new("/home/dev"));
        assert_eq!(user.shell, "/bin/zsh");
        assert_eq!(User::lookup(7, FILE, none).unwrap().shell, "");
    }

    #[test]
    fn unknown_uid_needs_the_environment() {
        assert_eq!(User::lookup(42, FILE, none), Err(UserError::NoName(42)));
        let var = |name: &str| match name {
            "USER" => Some("somebody".into()),
            "HOME" => Some("/data".into()),
            "SHELL" => Some("/bin/sh".into()),
            _ => None,
        };
        let user = User::lookup(42, FILE, var).unwrap();
        assert_eq!(
            (user.name.to_str(), user.shell.to_str()),
            (Some("somebody"), Some("/bin/sh"))
        );
        let var = |name: &str| (name == "USER").then(|| "dev".into());
        assert_eq!(User::lookup(42, FILE, var), Err(UserError::NoHome(42)));
    }

    #[test]
    fn directories_expand() {
        let var = |name: &str| (name == "X").then(|| "x y".into());
        let home = Path::new("/h");
        assert_eq!(expand_directory("", home, var), None);
        for (text, path) in [
            ("~", "/h"),
            ("~/a", "/h/a"),
            ("~b", "/hb"),
            ("a/${X}/$X", "/h/a/x y/x y"),
            ("/$NONE/z", "//z"),
            ("/cost$", "/cost$"),
        ] {
            assert_eq!(
                expand_directory(text, home, var),
                Some(PathBuf::from(path)),
                "{text}"
            );
        }
    }
}
