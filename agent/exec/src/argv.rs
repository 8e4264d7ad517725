//! From command text to an argument vector.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What the shell is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invocation<'a> {
    /// An interactive login shell.
    Login,
    /// A command text, run by a non-login shell; the empty text is a login
    /// shell.
    Script(&'a [u8]),
}

/// The argument vector of `invocation` under `shell`.
///
/// A text whose first non-blank bytes are `#!` is handed whole to the
/// interpreter of that line, as `-c` argument.
#[must_use]
pub fn shell_argv(shell: &OsStr, invocation: &Invocation<'_>) -> Vec<OsString> {
    let script = match invocation {
        Invocation::Login => &[][..],
        Invocation::Script(text) => text,
    };
    if script.is_empty() {
        return vec![shell.to_owned(), "-l".into()];
    }
    let mut argv = interpreter(script).unwrap_or_else(|| vec![shell.to_owned()]);
    argv.push("-c".into());
    argv.push(OsStr::from_bytes(script).to_owned());
    argv
}

/// The words of a `#!` line, if the text starts with one.
fn interpreter(script: &[u8]) -> Option<Vec<OsString>> {
    let line = script.trim_ascii_start().strip_prefix(b"#!")?;
    let end = line.iter().position(|b| *b == b'\n').unwrap_or(line.len());
    let words = split_words(line.get(..end)?.trim_ascii())?;
    (!words.is_empty()).then_some(words)
}

/// Splits a line into words as a POSIX shell quotes them (no expansion);
/// `None` for an unfinished quote.
#[must_use]
pub fn split_words(line: &[u8]) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                if let Some(done) = word.take() {
                    words.push(OsString::from_vec(done));
                }
            }
            b'\'' => single_quoted(&mut bytes, word.get_or_insert_default())?,
            b'"' => double_quoted(&mut bytes, word.get_or_insert_default())?,
            b'\\' => {
                let next = bytes.next()?;
                if next != b'\n' {
                    word.get_or_insert_default().push(next);
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    if let Some(done) = word {
        words.push(OsString::from_vec(done));
    }
    Some(words)
}

fn single_quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Option<()> {
    loop {
        match bytes.next()? {
            b'\'' => return Some(()),
            other => word.push(other),
        }
    }
}

fn double_quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Option<()> {
    loop {
        match bytes.next()? {
            b'"' => return Some(()),
            b'\\' => match bytes.next()? {
                b'\n' => {}
                plain @ (b'"' | b'\\' | b'$' | b'`') => word.push(plain),
                other => word.extend([b'\\', other]),
            },
            other => word.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(text: &str) -> Vec<String> {
        shell_argv(OsStr::new("/bin/sh"), &Invocation::Script(text.as_bytes()))
            .into_iter()
            .map(|w| w.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn shells_and_interpreters() {
        assert_eq!(
            shell_argv(OsStr::new("/bin/zsh"), &Invocation::Login),
            ["/bin/zsh", "-l"]
        );
        assert_eq!(argv(""), ["/bin/sh", "-l"]);
        assert_eq!(argv("echo 1"), ["/bin/sh", "-c", "echo 1"]);
        let text = "\n #!/usr/bin/env 'python3'\nprint(1)";
        assert_eq!(argv(text), ["/usr/bin/env", "python3", "-c", text]);
        assert_eq!(argv("#!"), ["/bin/sh", "-c", "#!"]);
        assert_eq!(argv("#!'"), ["/bin/sh", "-c", "#!'"]);
    }

    #[test]
    fn words_split_as_in_a_shell() {
        let words = |line: &str| {
            split_words(line.as_bytes()).map(|w| {
                w.iter()
                    .map(|s| s.to_string_lossy().into_owned())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(
            words("a  b\tc"),
            Some(vec!["a".into(), "b".into(), "c".into()])
        );
        assert_eq!(
            words(r#"a' b'"c\"d" \ e"#),
            Some(vec!["a bc\"d".into(), " e".into()])
        );
        assert_eq!(words("''"), Some(vec![String::new()]));
        assert_eq!(words("\"x"), None);
        assert_eq!(words("x\\"), None);
    }

    proptest::proptest! {
        #[test]
        fn splitting_never_panics(line: Vec<u8>) {
            let _ = split_words(&line);
            let _ = shell_argv(OsStr::new("sh"), &Invocation::Script(&line));
        }
    }
}
