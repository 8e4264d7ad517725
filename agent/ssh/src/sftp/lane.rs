//! One open file or directory.
//!
//! Its requests are done in the order they came (the draft demands that for
//! requests on one file), as many as wait in one visit to the blocking pool.

use std::collections::VecDeque;
use std::fs::{File, FileTimes, OpenOptions, Permissions, ReadDir};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::fcntl::OFlag;
use nix::sys::statvfs::fstatvfs;
use tokio::sync::mpsc;

use super::attrs::{Attrs, Listed, at, statvfs_numbers};
use super::wire::{Code, DataBuffer, Reply, Status};
use super::{Outgoing, Ticket};

/// Requests done in one visit, and the bytes of replies that end it.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 512 << 10;
/// Entries of one READDIR reply, and the bytes of their names that end it.
const LIST_ENTRIES: usize = 256;
const LIST_BYTES: usize = 64 << 10;
/// Mode of files the client does not give one.
const DEFAULT_MODE: u32 = 0o666;

/// A request on an open file or directory.
#[derive(Debug)]
pub(super) enum Job {
    Close,
    Read { offset: u64, len: u32 },
    Write { offset: u64, data: Bytes },
    Stat,
    SetStat(Attrs),
    ReadDir,
    Sync,
    StatVfs,
}

/// What is open.
pub(super) enum Node {
    File(File),
    Dir { path: PathBuf, entries: ReadDir },
}

impl Node {
    /// Opens a file as `flags` of SSH_FXP_OPEN say. Never waits for the other
    /// end of a pipe.
    pub(super) fn open_file(path: &Path, flags: u32, attrs: &Attrs) -> io::Result<Self> {
        const READ: u32 = 1;
        const WRITE: u32 = 2;
        const APPEND: u32 = 4;
        const CREATE: u32 = 8;
        const TRUNCATE: u32 = 0x10;
        const EXCLUSIVE: u32 = 0x20;
        let has = |flag: u32| flags & flag != 0;
        let writes = has(WRITE) || has(APPEND);
        let file = OpenOptions::new()
            .read(has(READ) || !writes)
            .write(writes)
            .append(has(APPEND))
            .create(has(CREATE) && writes)
            .create_new(has(CREATE) && has(EXCLUSIVE) && writes)
            .truncate(has(TRUNCATE) && writes && !has(APPEND))
            .mode(attrs.mode.map_or(DEFAULT_MODE, |mode| mode & 0o7777))
            .custom_flags(OFlag::O_NONBLOCK.bits() | OFlag::O_NOCTTY.bits())
            .open(path)?;
        if has(TRUNCATE) && has(APPEND) {
            file.set_len(0)?;
        }
        Ok(Self::File(file))
    }

    pub(super) fn open_dir(path: &Path) -> io::Result<Self> {
        Ok(Self::Dir {
            entries: std::fs::read_dir(path)?,
            path: path.to_owned(),
        })
    }

    fn perform(&mut self, job: Job) -> Reply {
        let result = match (self, job) {
            (_, Job::Close) => Ok(Reply::Status(Status::ok())),
            (Self::File(file), Job::Read { offset, len }) => read(file, offset, len),
            (Self::File(file), Job::Write { offset, data }) => file
                .write_all_at(&data, offset)
                .map(|()| Reply::Status(Status::ok())),
            (Self::File(file), Job::Stat) => {
                file.metadata().map(|meta| Reply::Attrs(Attrs::from(&meta)))
            }
            (Self::Dir { path, .. }, Job::Stat) => {
                std::fs::metadata(path).map(|meta| Reply::Attrs(Attrs::from(&meta)))
            }
            (Self::File(file), Job::SetStat(attrs)) => Ok(set_attrs(file, &attrs).into()),
            (Self::File(file), Job::Sync) => Ok(file.sync_all().into()),
            (Self::File(file), Job::StatVfs) => fstatvfs(&*file)
                .map(|s| Reply::Numbers(statvfs_numbers(&s)))
                .map_err(io::Error::from),
            (Self::Dir { entries, path }, Job::ReadDir) => Ok(list(path, entries)),
            _ => Ok(Reply::Status(Status::failure(
                "not possible on this handle",
            ))),
        };
        result.unwrap_or_else(|error| Reply::Status(Status::from(&error)))
    }
}

fn read(file: &File, offset: u64, len: u32) -> io::Result<Reply> {
    let mut buffer = DataBuffer::new(len as usize);
    let mut done = 0;
    while let Some(rest) = buffer.data_mut().get_mut(done..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    if done == 0 && len > 0 {
        return Ok(Reply::Status(Status::eof()));
    }
    buffer.truncate(done);
    Ok(Reply::Data(buffer))
}

fn set_attrs(file: &File, attrs: &Attrs) -> io::Result<()> {
    if let Some(size) = attrs.size {
        file.set_len(size)?;
    }
    if let Some((uid, gid)) = attrs.owner {
        fchown(file, Some(uid), Some(gid))?;
    }
    if let Some(mode) = attrs.mode {
        file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
    }
    if let Some((accessed, modified)) = attrs.times {
        let times = FileTimes::new()
            .set_accessed(at(accessed))
            .set_modified(at(modified));
        file.set_times(times)?;
    }
    Ok(())
}

/// The next entries. Those that vanish meanwhile are left out.
fn list(path: &Path, entries: &mut ReadDir) -> Reply {
    let mut names = Vec::new();
    let mut bytes = 0;
    while names.len() < LIST_ENTRIES && bytes < LIST_BYTES {
        let entry = match entries.next() {
            Some(Ok(entry)) => entry,
            Some(Err(error)) if names.is_empty() => return Reply::Status(Status::from(&error)),
            Some(Err(_)) | None => break,
        };
        let name = entry.file_name();
        let Ok(meta) = std::fs::symlink_metadata(path.join(&name)) else {
            continue;
        };
        let listed = Listed::new(name, &meta);
        bytes += listed.name.len() + listed.long.len();
        names.push(listed);
    }
    if names.is_empty() {
        return Reply::Status(Status::new(Code::Eof, "end of directory"));
    }
    Reply::Names(names)
}

/// The task of one handle.
pub(super) struct Lane {
    node: Node,
    replies: mpsc::Sender<Outgoing>,
}

impl Lane {
    pub(super) fn new(node: Node, replies: mpsc::Sender<Outgoing>) -> Self {
        Self { node, replies }
    }

    /// Works until the handle is closed or the session ends.
    pub(super) async fn run(self, mut jobs: mpsc::Receiver<(Ticket, Job)>) {
        let Self { mut node, replies } = self;
        let mut waiting = VecDeque::new();
        let mut batch = Vec::new();
        loop {
            if waiting.is_empty() {
                if jobs.recv_many(&mut batch, BATCH).await == 0 {
                    return;
                }
                waiting.extend(batch.drain(..));
            }
            let visit = tokio::task::spawn_blocking(move || {
                let done = visit(&mut node, &mut waiting);
                (node, waiting, done)
            });
            let Ok((same, left, done)) = visit.await else {
                return;
            };
            (node, waiting) = (same, left);
            for reply in done {
                if replies.send(reply).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Does requests until their replies are long enough to be sent.
fn visit(node: &mut Node, waiting: &mut VecDeque<(Ticket, Job)>) -> Vec<Outgoing> {
    let mut done = Vec::new();
    let mut bytes = 0;
    while bytes < BATCH_BYTES
        && let Some((ticket, job)) = waiting.pop_front()
    {
        let reply = ticket.reply(node.perform(job));
        bytes += reply.bytes.len();
        done.push(reply);
    }
    done
}
