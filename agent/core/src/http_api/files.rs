//! Reading and writing files, for tools that work in the workspace.
//!
//! Paths are absolute. Everything here blocks and is called on threads for
//! that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde_json::json;

use super::Reply;
use super::reply::{api_error, json as json_reply, text};

/// Most links followed to find the file that is written.
const LINKS: usize = 40;
/// Mode of parents that are created.
const PARENTS: u32 = 0o755;
/// Most bytes of one answer.
const LARGEST: u64 = 64 << 20;

/// Parameters of [`read_lines`].
pub(super) const LINE_PARAMETERS: &[&str] = &[
    "path",
    "offset",
    "limit",
    "max_file_size",
    "max_line_bytes",
    "max_response_lines",
    "max_response_bytes",
];

/// What goes wrong, as the client hears it.
pub(super) struct Refusal(StatusCode, String);

impl Refusal {
    fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    fn of(path: &Path, error: &io::Error) -> Self {
        let status = match error.kind() {
            io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
            io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, format!("{}: {error}", path.display()))
    }
}

impl From<Refusal> for Reply {
    fn from(Refusal(status, message): Refusal) -> Self {
        api_error(status, &message, None)
    }
}

/// The parameters of a request; unknown ones are refused.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: &str, known: &[&str]) -> Result<Self, Refusal> {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        match pairs.iter().find(|(name, _)| !known.contains(&&**name)) {
            Some((name, _)) => Err(Refusal::bad(format!("unknown query parameter {name:?}"))),
            None => Ok(Self(pairs)),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(n, v)| n == name && !v.is_empty());
        pair.map(|(_, value)| &**value)
    }

    fn path(&self) -> Result<PathBuf, Refusal> {
        let path = self
            .get("path")
            .ok_or_else(|| Refusal::bad("the query parameter \"path\" is required"))?;
        absolute(path)
    }

    fn number(&self, name: &str, default: u64) -> Result<u64, Refusal> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        text.parse()
            .map_err(|_| Refusal::bad(format!("{name} must be a number that is not negative")))
    }
}

fn absolute(path: &str) -> Result<PathBuf, Refusal> {
    if path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err(Refusal::bad(format!(
            "file path must be absolute: {path:?}"
        )))
    }
}

fn open(path: &Path) -> Result<(File, u64), Refusal> {
    let failed = |error: io::Error| Refusal::of(path, &error);
    // Must not wait for the other end of a pipe.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_file() {
        Ok((file, meta.len()))
    } else {
        Err(Refusal::bad(format!("not a file: {}", path.display())))
    }
}

/// A part of a file as it is.
pub(super) fn read(query: &Query) -> Result<Reply, Refusal> {
    let path = query.path()?;
    let offset = query.number("offset", 0)?;
    let limit = match query.number("limit", 0)? {
        0 => LARGEST,
        limit => limit.min(LARGEST),
    };
    let (mut file, _) = open(&path)?;
    let mut content = Vec::new();
    let read = (|| {
        file.seek(SeekFrom::Start(offset))?;
        file.take(limit).read_to_end(&mut content)
    })();
    read.map_err(|error| Refusal::of(&path, &error))?;
    let kind = HeaderValue::from_static(kind_of(&path));
    let mut reply = text(StatusCode::OK, "", content);
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(reply)
}

fn kind_of(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("txt" | "log") => "text/plain; charset=utf-8",
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "text/xml; charset=utf-8",
        Some("pdf") => "application/pdf",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("svg") => "image/svg+xml",
        Some("webp") => "image/webp",
        _ => "application/octet-stream",
    }
}

#[derive(Serialize, Default)]
struct Lines {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_lines: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines_read: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A part of a text with its lines numbered. What is wrong with the file is
/// said in the answer.
pub(super) fn read_lines(query: &Query) -> Result<Reply, Refusal> {
    let limits = Limits {
        offset: query.number("offset", 1)?.max(1),
        lines: query.number("limit", 0)?,
        file: query.number("max_file_size", 1 << 20)?,
        line: query.number("max_line_bytes", 1024)?,
        response_lines: query.number("max_response_lines", 2000)?,
        response: query.number("max_response_bytes", 32 << 10)?,
    };
    let read = query.path().and_then(|path| limits.read(&path));
    let lines = read.unwrap_or_else(|Refusal(_, message)| Lines {
        error: Some(message),
        ..Lines::default()
    });
    Ok(json_reply(StatusCode::OK, &lines))
}

struct Limits {
    offset: u64,
    lines: u64,
    file: u64,
    line: u64,
    response_lines: u64,
    response: u64,
}

impl Limits {
    fn read(&self, path: &Path) -> Result<Lines, Refusal> {
        let (file, size) = open(path)?;
        if size > self.file {
            return Err(Refusal::bad(format!(
                "the file has {size} bytes, more than {}",
                self.file
            )));
        }
        let mut reader = BufReader::new(file.take(self.file));
        let (mut total, mut count) = (0, 0);
        let mut content = String::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            let n = reader.read_until(b'\n', &mut line);
            if n.map_err(|error| Refusal::of(path, &error))? == 0 {
                break;
            }
            total += 1;
            if total < self.offset || (self.lines > 0 && count >= self.lines) {
                continue;
            }
            count += 1;
            if count > self.response_lines {
                return Err(Refusal::bad(format!(
                    "more than {} lines: ask for fewer with offset and limit",
                    self.response_lines
                )));
            }
            if count > 1 {
                content.push('\n');
            }
            content.push_str(&format!("{total}\t"));
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let most = usize::try_from(self.line).unwrap_or(usize::MAX);
            content.push_str(&String::from_utf8_lossy(&text[..text.len().min(most)]));
            if text.len() > most {
                content.push_str("... [truncated]");
            }
            if content.len() as u64 > self.response {
                return Err(Refusal::bad(format!(
                    "more than {} bytes: ask for fewer lines with offset and limit",
                    self.response
                )));
            }
        }
        if total > 0 && self.offset > total {
            return Err(Refusal::bad(format!(
                "the file has {total} lines, fewer than {}",
                self.offset
            )));
        }
        Ok(Lines {
            success: true,
            file_size: Some(size),
            total_lines: Some(total),
            lines_read: Some(count),
            content: Some(content),
            error: None,
        })
    }
}

/// Replaces a file at once: others see the old content or the new one.
pub(super) fn write(query: &Query, content: &Bytes) -> Result<Reply, Refusal> {
    let path = query.path()?;
    replace(&path, content)?;
    let message = format!("Successfully wrote to {:?}", path.display().to_string());
    Ok(json_reply(StatusCode::OK, &json!({ "message": message })))
}

/// Writes the file that `path` leads to. It keeps its mode if it exists.
fn replace(path: &Path, content: &[u8]) -> Result<(), Refusal> {
    let path = &follow(path)?;
    let failed = |error: io::Error| Refusal::of(path, &error);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Refusal::bad(format!("not a file: {}", path.display())));
    };
    let old = match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            return Err(Refusal::bad(format!("not a file: {}", path.display())));
        }
        Ok(meta) => Some(meta.permissions().mode() & 0o7777),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PARENTS)
        .create(dir)
        .map_err(failed)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".tmp.{:08x}", rand::random::<u32>()));
    let temporary = dir.join(temporary);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&temporary)?;
        file.write_all(content)?;
        if let Some(mode) = old {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        fs::rename(&temporary, path)
    })();
    written.map_err(|error| {
        // It may not exist.
        let _ = fs::remove_file(&temporary);
        failed(error)
    })
}

/// The file at the end of a chain of links; it need not exist.
fn follow(path: &Path) -> Result<PathBuf, Refusal> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(target) => {
                let dir = path.parent().unwrap_or(Path::new("/"));
                path = dir.join(target);
            }
            Err(_) => return Ok(path),
        }
    }
    Err(Refusal::bad(format!(
        "too many links at {}",
        path.display()
    )))
}

/// Where a path leads once its links are followed. What does not exist at its
/// end is kept.
pub(super) fn resolve(query: &Query) -> Result<Reply, Refusal> {
    let path = query.path()?;
    let mut known = path.clone();
    let mut missing = Vec::new();
    let resolved = loop {
        match fs::canonicalize(&known) {
            Ok(found) => break found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match known.components().next_back() {
                    Some(Component::Normal(name)) => missing.push(name.to_owned()),
                    _ => return Err(Refusal::of(&path, &error)),
                }
                known.pop();
            }
            Err(error) => return Err(Refusal::of(&path, &error)),
        }
    };
    let resolved = missing
        .into_iter()
        .rev()
        .fold(resolved, |path, name| path.join(name));
    let answer = json!({ "resolved_path": resolved.to_string_lossy() });
    Ok(json_reply(StatusCode::OK, &answer))
}
