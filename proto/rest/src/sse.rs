//! Server sent events in the dialect of Coder's clients.
//!
//! An event is a line `event: <type>` and, unless the type is `ping`, exactly
//! one line `data: <json>`, then an empty line. There are no comments, ids or
//! retry fields. The encoder writes only this form; the decoder also accepts
//! what the general standard allows (comments, `\r\n`, a missing space, several
//! data lines), because proxies rewrite streams.

/// Largest event the decoder keeps in memory, in bytes.
pub const MAX_EVENT: usize = 16 << 20;

/// Type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keep-alive without data.
    Ping,
    /// A JSON value.
    Data,
    /// A JSON error body; the stream stays open.
    Error,
}

impl Kind {
    /// Name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Data => "data",
            Self::Error => "error",
        }
    }
}

/// One decoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Type.
    pub kind: Kind,
    /// JSON text; empty for a ping.
    pub data: String,
}

/// The stream is not what this dialect allows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// More than [`MAX_EVENT`] bytes without an event's end.
    #[error("server sent event is larger than {MAX_EVENT} bytes")]
    TooLarge,
    /// The bytes are not UTF-8.
    #[error("server sent event is not UTF-8")]
    Utf8,
}

/// The bytes of one event. `data` must be one line of JSON.
#[must_use]
pub fn encode(kind: Kind, data: &str) -> String {
    match kind {
        Kind::Ping => "event: ping\n\n".to_owned(),
        Kind::Data | Kind::Error => format!("event: {}\ndata: {data}\n\n", kind.as_str()),
    }
}

/// Incremental decoder.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    event: Option<String>,
    data: String,
    has_data: bool,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds bytes; completed events are appended to `out`. Events of unknown
    /// type are dropped.
    ///
    /// # Errors
    /// [`Error`] when the stream cannot be continued.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<(), Error> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (head, tail) = rest.split_at(end);
            self.line.extend_from_slice(head);
            rest = tail.get(1..).unwrap_or_default();
            let line = std::mem::take(&mut self.line);
            self.line(&line, out)?;
        }
        self.line.extend_from_slice(rest);
        if self.line.len() + self.data.len() > MAX_EVENT {
            return Err(Error::TooLarge);
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<Event>) -> Result<(), Error> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| Error::Utf8)?;
        if line.is_empty() {
            self.finish(out);
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event = Some(value.to_owned()),
            "data" => {
                if self.data.len() + value.len() > MAX_EVENT {
                    return Err(Error::TooLarge);
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Event>) {
        let data = std::mem::take(&mut self.data);
        self.has_data = false;
        let kind = match self.event.take().as_deref() {
            Some("ping") => Kind::Ping,
            Some("data") => Kind::Data,
            Some("error") => Kind::Error,
            _ => return,
        };
        out.push(Event { kind, data });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_the_exact_bytes() {
        assert_eq!(encode(Kind::Ping, ""), "event: ping\n\n");
        assert_eq!(encode(Kind::Data, "{}"), "event: data\ndata: {}\n\n");
    }

    #[test]
    fn tolerates_comments_and_crlf() {
        let mut out = Vec::new();
        let mut decoder = Decoder::new();
        decoder
            .feed(b":keep-alive\r\n\r\nevent:data\r\ndata:1\r\n\r\n", &mut out)
            .unwrap();
        let expected = vec![Event {
            kind: Kind::Data,
            data: "1".into(),
        }];
        assert_eq!(out, expected);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            items in proptest::collection::vec(
                prop_oneof![Just((Kind::Ping, String::new())),
                    "[a-z{}\"]{0,40}".prop_map(|d| (Kind::Data, d)),
                    "[a-z]{0,9}".prop_map(|d| (Kind::Error, d))], 0..8),
            cut in 1usize..7,
        ) {
            let bytes: String = items.iter().map(|(k, d)| encode(*k, d)).collect();
            let mut out = Vec::new();
            let mut decoder = Decoder::new();
            for part in bytes.as_bytes().chunks(cut) {
                decoder.feed(part, &mut out).unwrap();
            }
            let got: Vec<_> = out.into_iter().map(|e| (e.kind, e.data)).collect();
            prop_assert_eq!(got, items);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Decoder::new().feed(&bytes, &mut Vec::new());
        }
    }
}
