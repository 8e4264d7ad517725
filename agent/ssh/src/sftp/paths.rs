//! Requests that name a path.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::statvfs::statvfs;
use nix::sys::time::TimeSpec;

use super::Base;
use super::attrs::{Attrs, Listed, statvfs_numbers};
use super::wire::{self, PathRequest, Reply, Status};

/// Mode of directories the client does not give one.
const DEFAULT_DIR_MODE: u32 = 0o777;

/// Does the request. Blocks.
pub(super) fn perform(base: &Base, request: PathRequest) -> Reply {
    try_perform(base, request).unwrap_or_else(|error| Reply::Status(Status::from(&error)))
}

fn try_perform(base: &Base, request: PathRequest) -> io::Result<Reply> {
    use PathRequest as P;
    let at = |path: &Path| base.resolve(path);
    match request {
        P::Stat { path, follow } => {
            let meta = if follow {
                fs::metadata(at(&path))?
            } else {
                fs::symlink_metadata(at(&path))?
            };
            return Ok(Reply::Attrs(Attrs::from(&meta)));
        }
        P::RealPath(path) => return Ok(name(clean(&at(&path)))),
        P::ExpandPath(path) => return Ok(name(clean(&base.expand(&path)?))),
        P::ReadLink(path) => return Ok(name(fs::read_link(at(&path))?)),
        P::StatVfs(path) => {
            let stat = statvfs(&at(&path))?;
            return Ok(Reply::Numbers(statvfs_numbers(&stat)));
        }
        P::Limits => return Ok(Reply::Numbers(wire::limits())),
        P::SetStat {
            path,
            attrs,
            follow,
        } => set_attrs(&at(&path), &attrs, follow)?,
        P::Remove(path) => remove(&at(&path))?,
        P::MakeDir { path, attrs } => fs::DirBuilder::new()
            .mode(attrs.mode.map_or(DEFAULT_DIR_MODE, |mode| mode & 0o7777))
            .create(at(&path))?,
        P::RemoveDir(path) => fs::remove_dir(at(&path))?,
        P::Rename { from, to } => fs::rename(at(&from), at(&to))?,
        // The target is text, meaningful from where the link lies.
        P::Symlink { target, link } => symlink(target, at(&link))?,
        P::HardLink { from, to } => fs::hard_link(at(&from), at(&to))?,
    }
    Ok(Reply::Status(Status::ok()))
}

fn name(path: PathBuf) -> Reply {
    Reply::Names(vec![Listed::bare(path.into_os_string())])
}

/// As Coder's agent, REMOVE also removes an empty directory.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => fs::remove_dir(path),
        result => result,
    }
}

fn set_attrs(path: &Path, attrs: &Attrs, follow: bool) -> io::Result<()> {
    if let Some(size) = attrs.size {
        if !follow {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let size = i64::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        nix::unistd::truncate(path, size)?;
    }
    if let Some((uid, gid)) = attrs.owner {
        if follow {
            chown(path, Some(uid), Some(gid))?;
        } else {
            lchown(path, Some(uid), Some(gid))?;
        }
    }
    if let Some(mode) = attrs.mode
        && (follow || !fs::symlink_metadata(path)?.is_symlink())
    {
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))?;
    }
    if let Some((accessed, modified)) = attrs.times {
        let flags = if follow {
            UtimensatFlags::FollowSymlink
        } else {
            UtimensatFlags::NoFollowSymlink
        };
        let time = |seconds: u32| TimeSpec::new(seconds.into(), 0);
        utimensat(AT_FDCWD, path, &time(accessed), &time(modified), flags)?;
    }
    Ok(())
}

/// Removes `.`, `..` and double slashes by looking at the text alone, as
/// Coder's agent does: the result need not exist.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

impl Base {
    /// Replaces a leading `~` or `~user`.
    fn expand(&self, path: &Path) -> io::Result<PathBuf> {
        let bytes = path.as_os_str().as_bytes();
        let Some(rest) = bytes.strip_prefix(b"~") else {
            return Ok(self.resolve(path));
        };
        let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        let (user, tail) = rest.split_at(end);
        let mut home = if user.is_empty() {
            self.home.clone().into_os_string()
        } else {
            home_of(user).ok_or(io::ErrorKind::NotFound)?
        };
        home.push(std::ffi::OsStr::from_bytes(tail));
        Ok(PathBuf::from(home))
    }
}

fn home_of(user: &[u8]) -> Option<OsString> {
    let passwd = fs::read("/etc/passwd").ok()?;
    let mut lines = passwd.split(|b| *b == b'\n');
    lines.find_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let home = (fields.next() == Some(user))
            .then(|| fields.nth(4))
            .flatten()?;
        Some(std::ffi::OsStr::from_bytes(home).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_text() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/./b/../c//", "/a/c"),
            ("/../..", "/"),
            ("/does/not/exist", "/does/not/exist"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(expected));
        }
    }

    #[test]
    fn homes_expand() {
        let base = Base {
            dir: "/work".into(),
            home: "/home/dev".into(),
        };
        for (path, expected) in [
            ("~", Some("/home/dev")),
            ("~/x", Some("/home/dev/x")),
            ("x", Some("/work/x")),
            ("/x", Some("/x")),
            ("~root/y", Some("/root/y")),
            ("~no-such-user/y", None),
        ] {
            let expanded = base.expand(Path::new(path)).ok();
            assert_eq!(expanded.as_deref(), expected.map(Path::new), "{path}");
        }
    }
}
