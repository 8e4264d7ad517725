//! Recordings of TCP connections: `tests/vectors/wire/*.jsonl`.
//!
//! Each line is one record, in the order of arrival at a recording proxy.
//! `ws` records are the raw truth; `drpc` and `derp` records are an annotated
//! decode of the same bytes. Complete yamux streams of frequent methods were
//! left out, the rest is contiguous per stream.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Dir {
    /// From the agent or the CLI to the server.
    #[serde(rename = "c2s")]
    ToServer,
    /// From the server.
    #[serde(rename = "s2c")]
    ToClient,
}

/// One line of a recording.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Record {
    /// What the file shows.
    Header {
        /// One line.
        title: String,
    },
    /// What the operator did at that moment.
    Mark {
        /// One line.
        text: String,
    },
    /// The state of a TCP connection changed.
    Tcp(Tcp),
    /// Head and body of a request or an answer.
    Http(Http),
    /// One WebSocket frame.
    Ws(Ws),
    /// One DRPC packet.
    Drpc(Drpc),
    /// One DERP frame.
    Derp(Derp),
    /// Streams were left out.
    Trimmed {},
    /// Of no use to these tests.
    #[serde(other)]
    Other,
}

/// A change of a TCP connection.
#[derive(Debug, Clone, Deserialize)]
pub struct Tcp {
    /// Number of the connection.
    pub conn: u32,
    /// Milliseconds since the recording began, where that was kept.
    #[serde(default)]
    pub t_ms: f64,
    /// Who ended it, for the events of one side.
    pub dir: Option<Dir>,
    /// `open`, `fin`, `rst`, `refused` or `writeerr`.
    pub event: String,
}

/// One HTTP message.
#[derive(Debug, Clone, Deserialize)]
pub struct Http {
    /// Number of the connection.
    pub conn: u32,
    /// Request or answer.
    pub dir: Dir,
    /// Milliseconds since the recording began, where that was kept.
    #[serde(default)]
    pub t_ms: f64,
    /// Request or status line and headers, verbatim. Absent for the rest of a
    /// body.
    #[serde(default)]
    pub head: String,
    /// Body as text, with chunk framing where it was chunked.
    #[serde(default)]
    pub body: String,
}

/// One WebSocket frame, unmasked.
#[derive(Debug, Clone, Deserialize)]
pub struct Ws {
    /// Number of the connection.
    pub conn: u32,
    /// Which way it went.
    pub dir: Dir,
    /// Milliseconds since the recording began, where that was kept.
    #[serde(default)]
    pub t_ms: f64,
    /// `binary`, `text`, `ping`, `pong`, `close` or `continuation`.
    pub op: String,
    /// Payload.
    #[serde(default, deserialize_with = "hex_bytes", rename = "hex")]
    pub payload: Bytes,
    /// Code of a close frame.
    pub close_code: Option<u16>,
    /// Reason of a close frame.
    pub close_reason: Option<String>,
}

impl Ws {
    /// Whether the payload is a piece of the byte stream.
    #[must_use]
    pub fn is_data(&self) -> bool {
        matches!(self.op.as_str(), "binary" | "continuation")
    }
}

/// One DRPC packet.
#[derive(Debug, Clone, Deserialize)]
pub struct Drpc {
    /// Number of the connection.
    pub conn: u32,
    /// Which way it went.
    pub dir: Dir,
    /// Milliseconds since the recording began, where that was kept.
    #[serde(default)]
    pub t_ms: f64,
    /// yamux stream.
    pub stream: u32,
    /// DRPC stream id.
    pub sid: u64,
    /// DRPC message id.
    pub mid: u64,
    /// Name of the packet kind; empty for unknown ones.
    pub kind: String,
    /// Control bit.
    #[serde(default)]
    pub control: bool,
    /// Path of the call the packet belongs to.
    #[serde(default)]
    pub method: String,
    /// The message as JSON: field names of the `.proto` file, populated fields
    /// only, bytes as `hex:…`, enums by name.
    pub msg: Option<Value>,
    /// Code of an Error packet.
    pub code: Option<u64>,
    /// Text of an Error packet.
    pub error: Option<String>,
}

/// One DERP frame.
#[derive(Debug, Clone, Deserialize)]
pub struct Derp {
    /// Number of the connection.
    pub conn: u32,
    /// Which way it went.
    pub dir: Dir,
    /// Milliseconds since the recording began, where that was kept.
    #[serde(default)]
    pub t_ms: f64,
    /// The frame with its header; empty where `ws` records hold it.
    #[serde(default, deserialize_with = "hex_bytes", rename = "hex")]
    pub frame: Bytes,
    /// What else was noted.
    #[serde(flatten)]
    pub notes: serde_json::Map<String, Value>,
}

/// One recording.
#[derive(Debug, Clone)]
pub struct Recording {
    /// File name without extension.
    pub name: String,
    /// In the order of arrival.
    pub records: Vec<Record>,
}

impl Recording {
    /// Loads `tests/vectors/wire/<name>.jsonl`.
    ///
    /// # Errors
    /// When the file is missing or a line is not a record.
    pub fn load(name: &str) -> io::Result<Self> {
        let path = directory().join(name).with_extension("jsonl");
        let text = fs::read_to_string(path)?;
        let records = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.to_owned(),
            records,
        })
    }

    /// Names of all recordings with DRPC packets.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names_with_drpc() -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory())? {
            let path = entry?.path();
            let is_recording = path
                .extension()
                .is_some_and(|extension| extension == "jsonl");
            if !is_recording || !fs::read_to_string(&path)?.contains(r#""type":"drpc""#) {
                continue;
            }
            names.extend(
                path.file_stem()
                    .and_then(|stem| stem.to_str())
                    .map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    /// Connections and directions with DRPC packets.
    #[must_use]
    pub fn drpc_flows(&self) -> BTreeSet<(u32, Dir)> {
        self.drpc()
            .map(|packet| (packet.conn, packet.dir))
            .collect()
    }

    /// All DRPC packets.
    pub fn drpc(&self) -> impl Iterator<Item = &Drpc> {
        self.records.iter().filter_map(|record| match record {
            Record::Drpc(packet) => Some(packet),
            _ => None,
        })
    }

    /// DRPC packets of one direction of a connection.
    pub fn drpc_of(&self, conn: u32, dir: Dir) -> impl Iterator<Item = &Drpc> {
        self.drpc()
            .filter(move |packet| packet.conn == conn && packet.dir == dir)
    }

    /// WebSocket frames of one direction of a connection.
    pub fn ws_of(&self, conn: u32, dir: Dir) -> impl Iterator<Item = &Ws> {
        self.records.iter().filter_map(move |record| match record {
            Record::Ws(frame) if frame.conn == conn && frame.dir == dir => Some(frame),
            _ => None,
        })
    }

    /// HTTP messages of a connection, both directions.
    pub fn http_of(&self, conn: u32) -> impl Iterator<Item = &Http> {
        self.records.iter().filter_map(move |record| match record {
            Record::Http(message) if message.conn == conn => Some(message),
            _ => None,
        })
    }

    /// DERP frames of one direction of a connection.
    pub fn derp_of(&self, conn: u32, dir: Dir) -> impl Iterator<Item = &Derp> {
        self.records.iter().filter_map(move |record| match record {
            Record::Derp(frame) if frame.conn == conn && frame.dir == dir => Some(frame),
            _ => None,
        })
    }

    /// The byte stream of one direction of a WebSocket connection.
    #[must_use]
    pub fn ws_stream(&self, conn: u32, dir: Dir) -> Vec<u8> {
        self.ws_of(conn, dir)
            .filter(|frame| frame.is_data())
            .flat_map(|frame| frame.payload.iter().copied())
            .collect()
    }
}

/// Where the recordings are.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/wire")
}

fn hex_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    hex::decode(text)
        .map(Bytes::from)
        .map_err(serde::de::Error::custom)
}
