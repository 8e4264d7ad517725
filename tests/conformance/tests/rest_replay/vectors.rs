//! The recorded flows in compact form: see `tests/vectors/rest/README.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub struct Exchange {
    pub seq: u64,
    /// Method and path.
    pub req: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: Option<String>,
    pub status: u16,
    #[serde(default)]
    pub reply_headers: BTreeMap<String, Value>,
    #[serde(default)]
    pub json: Option<Value>,
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub sse: Option<Vec<Event>>,
    #[serde(default)]
    pub ws: Option<Vec<Frame>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    pub kind: String,
    #[serde(default)]
    pub data: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Frame {
    pub kind: String,
    pub dir: String,
    #[serde(default)]
    pub code: Option<u16>,
    #[serde(default)]
    pub data: Option<Value>,
    #[serde(default)]
    pub text: Option<String>,
}

pub fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors/rest")
}

/// Names of all recorded flows.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".jsonl").map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

pub fn flow(name: &str) -> Vec<Exchange> {
    let path = dir().join(format!("{name}.jsonl"));
    std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{name}: {e}: {line}")))
        .collect()
}
