//! What a client sends: once a length-prefixed JSON object that names the
//! terminal, then a stream of JSON objects without delimiters. What the
//! terminal prints goes back unframed.

use adit_agent_exec::WindowSize;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

/// Longest message, in bytes. Browsers send what was typed or pasted in
/// pieces far below this.
pub const LONGEST_MESSAGE: usize = 8 << 20;

/// Why input was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WireError {
    /// Not JSON, or a field of the wrong type.
    #[error("malformed message: {0}")]
    Json(#[from] serde_json::Error),
    /// Not a JSON object.
    #[error("message is not an object")]
    NotAnObject,
    /// Longer than [`LONGEST_MESSAGE`].
    #[error("message is too long")]
    TooLong,
    /// The terminal's name is not a UUID.
    #[error("terminal id: {0}")]
    Id(#[from] uuid::Error),
}

/// The first message: which terminal, and how to start it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Init {
    /// Identity of the terminal.
    pub id: Uuid,
    /// Size to start with.
    pub size: WindowSize,
    /// Command text; empty for a login shell.
    pub command: String,
    /// Target container; empty for none.
    pub container: String,
    /// User in the container.
    pub container_user: String,
    /// Wanted implementation: empty, `screen` or `buffered`.
    pub backend: String,
}

impl Init {
    /// Decodes the JSON of the first message. Keys are compared without
    /// regard to case; missing and unknown ones are tolerated.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(json: &[u8]) -> Result<Self, WireError> {
        let fields: Map<String, Value> = serde_json::from_slice(json)?;
        let mut init = Self::default();
        for (key, value) in fields {
            if value.is_null() {
                continue;
            }
            match key.to_ascii_lowercase().as_str() {
                "id" => init.id = Uuid::parse_str(&text(value)?)?,
                "height" => init.size.rows = u16::deserialize(value)?,
                "width" => init.size.cols = u16::deserialize(value)?,
                "command" => init.command = text(value)?,
                "container" => init.container = text(value)?,
                "containeruser" => init.container_user = text(value)?,
                "backendtype" => init.backend = text(value)?,
                _ => {}
            }
        }
        Ok(init)
    }
}

fn text(value: Value) -> Result<String, WireError> {
    Ok(String::deserialize(value)?)
}

/// A later message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Typed text.
    pub data: Option<String>,
    /// New number of rows, if both sizes are present and not zero.
    pub height: Option<u16>,
    /// New number of columns.
    pub width: Option<u16>,
}

impl Message {
    /// The new size, if there is one.
    #[must_use]
    pub fn size(&self) -> Option<WindowSize> {
        let size = WindowSize {
            cols: self.width.unwrap_or(0),
            rows: self.height.unwrap_or(0),
        };
        (size.cols != 0 && size.rows != 0).then_some(size)
    }
}

/// Cuts a stream of bytes into [`Message`]s. Looks at every byte once.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that have been looked at.
    seen: usize,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Decoder {
    /// Adds what arrived.
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next message, if it is complete.
    ///
    /// # Errors
    /// [`WireError`]; the stream is useless from there on.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: None means not yet"
    )]
    pub fn next(&mut self) -> Result<Option<Message>, WireError> {
        while let Some(byte) = self.buffer.get(self.seen).copied() {
            self.seen += 1;
            if self.depth == 0 {
                match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => {}
                    b'{' => self.depth = 1,
                    _ => return Err(WireError::NotAnObject),
                }
            } else if self.ends_message(byte) {
                return self.finish().map(Some);
            }
        }
        if self.buffer.len() > LONGEST_MESSAGE {
            return Err(WireError::TooLong);
        }
        Ok(None)
    }

    fn ends_message(&mut self, byte: u8) -> bool {
        if self.escaped {
            self.escaped = false;
        } else if self.in_string {
            match byte {
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
        }
        self.depth == 0
    }

    /// Text that is not UTF-8 is repaired, as Go's decoder does.
    fn finish(&mut self) -> Result<Message, WireError> {
        let rest = self.buffer.split_off(self.seen);
        let message = std::mem::replace(&mut self.buffer, rest);
        self.seen = 0;
        Ok(serde_json::from_str(&String::from_utf8_lossy(&message))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inits_decode_in_any_case_and_incomplete() {
        let json = br#"{"ID":"0f0e0d0c-0b0a-4908-8706-050403020100","height":24,"WIDTH":80,
            "Command":"bash","Container":"","BackendType":"buffered","New":[1]}"#;
        let init = Init::decode(json).unwrap();
        assert_eq!(init.size, WindowSize { cols: 80, rows: 24 });
        assert_eq!(
            (init.command.as_str(), init.backend.as_str()),
            ("bash", "buffered")
        );
        assert_eq!(Init::decode(b"{}").unwrap(), Init::default());
        for bad in [
            "",
            "nope",
            "[]",
            r#"{"ID":"x"}"#,
            r#"{"Height":-1}"#,
            r#"{"Command":1}"#,
        ] {
            assert!(Init::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_need_no_delimiter() {
        let stream = br#"{"data":"a}\"{"} {"height":40,"width":120}{"data":"b","unknown":{"x":[1]}}
            {"height":1,"width":0}"#;
        for split in 0..stream.len() {
            let mut decoder = Decoder::default();
            let mut messages = Vec::new();
            for part in [&stream[..split], &stream[split..]] {
                decoder.push(part);
                while let Some(message) = decoder.next().unwrap() {
                    messages.push(message);
                }
            }
            let data: Vec<_> = messages.iter().map(|m| m.data.as_deref()).collect();
            assert_eq!(data, [Some("a}\"{"), None, Some("b"), None]);
            let sizes: Vec<_> = messages.iter().map(Message::size).collect();
            assert_eq!(
                sizes,
                [
                    None,
                    Some(WindowSize {
                        cols: 120,
                        rows: 40
                    }),
                    None,
                    None
                ]
            );
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for stream in ["x", "[]", "1", r#"{"data":1}"#, "{,}", "{]"] {
            let mut decoder = Decoder::default();
            decoder.push(stream.as_bytes());
            assert!(decoder.next().is_err(), "{stream}");
        }
        let mut decoder = Decoder::default();
        decoder.push(b"{\"data\":\"\xff\"}");
        assert_eq!(decoder.next().unwrap().unwrap().data.unwrap(), "\u{fffd}");
        let mut decoder = Decoder::default();
        decoder.push(&vec![b'{'; LONGEST_MESSAGE + 1]);
        assert!(matches!(decoder.next(), Err(WireError::TooLong)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
            let _ = Init::decode(&bytes);
        }
    }
}
