//! A log file that starts over when it has grown.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Size at which a new file is begun, in bytes.
const LIMIT: u64 = 5 << 20;
/// Old files kept.
const BACKUPS: usize = 19;

/// Appends to `name.log`; a full one becomes `name-<UTC time>.log`.
#[derive(Debug)]
pub(crate) struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl RotatingFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            limit: LIMIT,
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let stamp = now.strftime("%Y-%m-%dT%H-%M-%S.%3f");
        std::fs::rename(
            &self.path,
            self.path.with_file_name(format!("{stem}-{stamp}.log")),
        )?;
        self.file = open(&self.path)?;
        self.size = 0;
        self.remove_oldest(&format!("{stem}-2"))
    }

    fn remove_oldest(&self, prefix: &str) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let mut old: Vec<PathBuf> = std::fs::read_dir(dir)?
            .flatten()
            .filter(|e| {
                let name = e.file_name();
                let name = name.to_string_lossy();
                name.starts_with(prefix) && name.ends_with(".log")
            })
            .map(|e| e.path())
            .collect();
        old.sort();
        for path in old.iter().rev().skip(BACKUPS) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            // If the old file cannot be moved, go on in it.
            let _ = self.rotate();
        }
        let n = self.file.write(bytes)?;
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn rotates_and_keeps_a_fixed_number() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("coder-agent.log");
        let mut file = RotatingFile::open(&path).expect("a file");
        file.limit = 10;
        for n in 0..BACKUPS + 5 {
            writeln!(file, "line {n:04}").expect("written");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let count = std::fs::read_dir(dir.path()).expect("listed").count();
        assert_eq!(count, BACKUPS + 1);
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
