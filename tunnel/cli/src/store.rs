//! Where a login is kept: the same two files, `url` and `session`, that the
//! `coder` CLI keeps, so that both programs can share one directory.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use url::Url;

use crate::private;

/// A directory with a login in it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens `dir`, or the default directory when none is given. Nothing is
    /// created until something is written.
    pub(crate) fn open(
        dir: Option<&Path>,
        home: Option<&Path>,
        config_home: Option<&Path>,
    ) -> Self {
        let dir = match dir {
            Some(dir) => dir.to_owned(),
            None => config_dir(home, config_home).join("adit"),
        };
        Self { dir }
    }

    /// The directory where the `coder` CLI keeps its login by default.
    pub(crate) fn of_coder(home: Option<&Path>, config_home: Option<&Path>) -> Self {
        Self {
            dir: config_dir(home, config_home).join("coderv2"),
        }
    }

    /// The directory itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The stored URL, if there is one.
    pub(crate) fn url(&self) -> Result<Option<Url>> {
        let Some(text) = self.read("url")? else {
            return Ok(None);
        };
        let url = Url::parse(&text)
            .with_context(|| format!("{} does not hold a URL", self.dir.join("url").display()))?;
        Ok(Some(url))
    }

    /// The stored session token, if there is one.
    pub(crate) fn session(&self) -> Result<Option<String>> {
        self.read("session")
    }

    /// Keeps a login for later commands.
    pub(crate) fn save(&self, url: &Url, session: &str) -> Result<()> {
        private::create_dir(&self.dir, 0o750)
            .with_context(|| format!("create configuration directory {}", self.dir.display()))?;
        self.write("url", url.as_str().trim_end_matches('/'))?;
        self.write("session", session)
    }

    /// Forgets the login.
    pub(crate) fn clear(&self) -> Result<()> {
        for name in ["url", "session"] {
            let path = self.dir.join(name);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
            }
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Replaces a file in one step: a reader sees the old or the new content.
    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.dir.join(name);
        let temporary = self.dir.join(format!(".{name}.{}", std::process::id()));
        let written = private::create_file(&temporary)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            // Nothing of it is of use; the error below is what matters.
            let _ = fs::remove_file(&temporary);
        }
        written.with_context(|| format!("write {}", path.display()))
    }
}

fn config_dir(home: Option<&Path>, config_home: Option<&Path>) -> PathBuf {
    if let Some(dir) = config_home.filter(|dir| dir.is_absolute()) {
        return dir.to_owned();
    }
    let home = home.map_or_else(|| PathBuf::from("."), Path::to_owned);
    if cfg!(target_os = "macos") {
        home.join("Library/Application Support")
    } else {
        home.join(".config")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_kept_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(&dir.path().join("new")), None, None);
        assert_eq!(store.url().unwrap(), None);
        assert_eq!(store.session().unwrap(), None);
        store
            .save(&Url::parse("http://127.0.0.1:3000/").unwrap(), "id-secret")
            .unwrap();
        assert_eq!(
            fs::read_to_string(store.dir().join("url")).unwrap(),
            "http://127.0.0.1:3000"
        );
        assert_eq!(store.session().unwrap().as_deref(), Some("id-secret"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(store.dir().join("session"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        store.clear().unwrap();
        store.clear().unwrap();
        assert_eq!(store.session().unwrap(), None);
    }

    #[test]
    fn a_damaged_url_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("url"), "not a url").unwrap();
        let store = Store::open(Some(dir.path()), None, None);
        let error = format!("{:#}", store.url().unwrap_err());
        assert!(error.contains("does not hold a URL"), "{error}");
    }
}
