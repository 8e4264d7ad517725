//! From bytes to lines.

/// Longest line kept while waiting for its end, in bytes. Longer ones could
/// not be sent anyway.
const LONGEST: usize = 1 << 20;

/// Splits a byte stream at line feeds. One carriage return before a line feed
/// is removed. Invalid UTF-8 and NUL are replaced, because neither may appear
/// in a log line.
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
    overlong: bool,
}

impl LineSplitter {
    /// Feeds bytes; every completed line goes to `line`.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], mut line: impl FnMut(String)) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.append(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.finish(&mut line);
        }
        self.append(bytes);
    }

    /// The stream ended: an unfinished line counts as one.
    pub fn handle_end(&mut self, mut line: impl FnMut(String)) {
        if !self.partial.is_empty() {
            self.finish(&mut line);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.partial.len() + bytes.len() > LONGEST {
            self.overlong = true;
        } else if !self.overlong {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn finish(&mut self, line: &mut impl FnMut(String)) {
        let text = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        if !self.overlong {
            line(sanitise(text));
        }
        self.overlong = false;
        self.partial.clear();
    }
}

/// Replaces each run of invalid UTF-8, and each NUL, by one cross mark.
pub(crate) fn sanitise(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut in_bad_run = false;
    for chunk in bytes.utf8_chunks() {
        if !chunk.valid().is_empty() {
            in_bad_run = false;
        }
        for c in chunk.valid().chars() {
            out.push(if c == '\0' { '❌' } else { c });
        }
        if !chunk.invalid().is_empty() && !in_bad_run {
            out.push('❌');
            in_bad_run = true;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(parts: &[&[u8]]) -> Vec<String> {
        let mut s = LineSplitter::default();
        let mut out = Vec::new();
        for p in parts {
            s.handle_bytes(p, |l| out.push(l));
        }
        s.handle_end(|l| out.push(l));
        out
    }

    #[test]
    fn splits_at_line_feeds_only() {
        assert_eq!(
            split(&[b"a\r\nb", b"c\n", b"\n", b"d\re\r\r\n", b"tail"]),
            ["a", "bc", "", "d\re\r", "tail"]
        );
        assert!(split(&[b""]).is_empty());
    }

    #[test]
    fn cleans_what_a_log_may_not_hold() {
        assert_eq!(split(&[b"a\xff\xfe\xffb\0\0c\n"]), ["a❌b❌❌c"]);
        assert_eq!(split(&["grün".as_bytes()]), ["grün"]);
    }

    #[test]
    fn a_line_beyond_the_limit_is_left_out() {
        let long = vec![b'x'; LONGEST];
        assert_eq!(split(&[&long, b"y\nnext\n"]), ["next"]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(text: Vec<u8>, cut in 0_usize..64) {
            let cut = cut.min(text.len());
            prop_assert_eq!(split(&[&text]), split(&[&text[..cut], &text[cut..]]));
        }

        #[test]
        fn never_leaves_a_nul(text: Vec<u8>) {
            prop_assert!(!sanitise(&text).contains('\0'));
        }
    }
}
