//! Escapes at the start of a line, as OpenSSH has them: `~.` ends the
//! session, `~?` lists them, `~~` is a plain tilde.

/// What to do with typed bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    /// To send on.
    pub(crate) send: Vec<u8>,
    /// Whether the user asked to end the session.
    pub(crate) end: bool,
    /// Whether the user asked for the list of escapes.
    pub(crate) help: bool,
}

/// Follows what is typed.
#[derive(Debug)]
pub(crate) struct Escapes {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    Tilde,
    Middle,
}

impl Default for Escapes {
    fn default() -> Self {
        Self {
            state: State::LineStart,
        }
    }
}

impl Escapes {
    /// Takes the next bytes from the terminal.
    pub(crate) fn typed(&mut self, bytes: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::LineStart, b'~') => State::Tilde,
                (State::Tilde, b'.') => {
                    typed.end = true;
                    return typed;
                }
                (State::Tilde, b'?') => {
                    typed.help = true;
                    State::LineStart
                }
                (State::Tilde, b'~') => {
                    typed.send.push(b'~');
                    State::Middle
                }
                (before, byte) => {
                    if before == State::Tilde {
                        typed.send.push(b'~');
                    }
                    typed.send.push(byte);
                    if matches!(byte, b'\r' | b'\n') {
                        State::LineStart
                    } else {
                        State::Middle
                    }
                }
            };
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(chunks: &[&str]) -> (String, bool) {
        let mut escapes = Escapes::default();
        let mut sent = Vec::new();
        let mut end = false;
        for chunk in chunks {
            let typed = escapes.typed(chunk.as_bytes());
            sent.extend(typed.send);
            end |= typed.end;
        }
        (String::from_utf8(sent).unwrap(), end)
    }

    #[test]
    fn only_at_the_start_of_a_line() {
        assert_eq!(typed(&["~."]), (String::new(), true));
        assert_eq!(typed(&["ls\r", "~", "."]), ("ls\r".into(), true));
        assert_eq!(typed(&["a~."]), ("a~.".into(), false));
        assert_eq!(typed(&["~~."]), ("~.".into(), false));
        assert_eq!(typed(&["~x\r~."]), ("~x\r".into(), true));
        assert_eq!(typed(&["cd ~/a\r"]), ("cd ~/a\r".into(), false));
    }
}
