//! Listing a directory, for file pickers.

use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Reply;
use super::reply::{api_error, json};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Question {
    path: Vec<String>,
    relativity: String,
}

#[derive(Serialize)]
struct Listing {
    absolute_path: Vec<String>,
    absolute_path_string: String,
    contents: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    absolute_path_string: String,
    is_dir: bool,
}

pub(super) async fn answer(query: &str, body: &Bytes) -> Reply {
    let question: Question = match serde_json::from_slice(body) {
        Ok(question) => question,
        Err(error) => {
            return api_error(
                StatusCode::BAD_REQUEST,
                "Request body must be valid JSON.",
                Some(&error.to_string()),
            );
        }
    };
    let asked = url::form_urlencoded::parse(query.as_bytes())
        .find(|(k, v)| k == "path" && !v.is_empty())
        .map(|(_, v)| v.into_owned());
    let listed = tokio::task::spawn_blocking(move || {
        let dir = resolve(asked.as_deref(), &question)?;
        list(&dir)
    });
    match listed.await {
        Ok(Ok(listing)) => json(StatusCode::OK, &listing),
        Ok(Err((status, message))) => api_error(status, &message, None),
        Err(error) => api_error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string(), None),
    }
}

type Refusal = (StatusCode, String);

fn resolve(asked: Option<&str>, question: &Question) -> Result<PathBuf, Refusal> {
    let internal = |text: String| (StatusCode::INTERNAL_SERVER_ERROR, text);
    if let Some(path) = asked {
        if !path.starts_with('/') {
            return Err(internal(format!("path must be absolute: {path:?}")));
        }
        return Ok(normal(Path::new(path)));
    }
    let base = match question.relativity.as_str() {
        "root" => PathBuf::from("/"),
        "home" => std::env::var_os("HOME").map(PathBuf::from).ok_or_else(|| {
            internal("failed to get home directory: $HOME is not defined".to_owned())
        })?,
        other => return Err(internal(format!("unsupported relativity type {other:?}"))),
    };
    Ok(normal(
        &base.join(question.path.join("/").trim_start_matches('/')),
    ))
}

/// Resolves `.` and `..` by text alone.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}

fn list(dir: &Path) -> Result<Listing, Refusal> {
    let shown = dir.display();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => (
            StatusCode::NOT_FOUND,
            format!(
                "failed to open directory \"{shown}\": open {shown}: no such file or directory"
            ),
        ),
        io::ErrorKind::PermissionDenied => (
            StatusCode::FORBIDDEN,
            format!("failed to open directory \"{shown}\": open {shown}: permission denied"),
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("failed to open directory \"{shown}\": {error}"),
        ),
    };
    if !std::fs::metadata(dir).map_err(failed)?.is_dir() {
        return Err((
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("path is not a directory: \"{shown}\""),
        ));
    }
    let mut contents: Vec<Entry> = std::fs::read_dir(dir)
        .map_err(failed)?
        .flatten()
        .map(|entry| Entry {
            name: entry.file_name().to_string_lossy().into_owned(),
            absolute_path_string: entry.path().to_string_lossy().into_owned(),
            // Links are shown as what they are, not as what they lead to.
            is_dir: entry.file_type().is_ok_and(|t| t.is_dir()),
        })
        .collect();
    contents.sort_by(|a, b| b.is_dir.cmp(&a.is_dir).then_with(|| a.name.cmp(&b.name)));
    Ok(Listing {
        absolute_path: dir
            .components()
            .filter_map(|c| match c {
                Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
                _ => None,
            })
            .collect(),
        absolute_path_string: shown.to_string(),
        contents,
    })
}
