//! Questions on the terminal.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context as _, Result, bail};

/// Asks for one line of text.
pub(crate) fn line(question: &str) -> Result<String> {
    print!("> {question} ");
    io::stdout().flush().context("write to the terminal")?;
    let mut text = String::new();
    let read = io::stdin()
        .lock()
        .read_line(&mut text)
        .context("read the answer")?;
    if read == 0 {
        println!();
        bail!("no answer: standard input has ended");
    }
    Ok(text.trim().to_owned())
}

/// Asks for a yes; anything else is an error.
pub(crate) fn confirm(question: &str) -> Result<()> {
    let answer = line(&format!("{question} (yes/no)"))?;
    match answer.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("canceled"),
    }
}

/// Asks for text that is not shown while it is typed.
pub(crate) fn secret(question: &str) -> Result<String> {
    let hidden = Hidden::begin();
    let answer = line(question);
    if hidden.is_some() {
        println!();
    }
    answer
}

#[cfg(unix)]
struct Hidden(nix::sys::termios::Termios);

#[cfg(unix)]
impl Hidden {
    fn begin() -> Option<Self> {
        use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
        let before = tcgetattr(io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent).ok()?;
        Some(Self(before))
    }
}

#[cfg(unix)]
impl Drop for Hidden {
    fn drop(&mut self) {
        use nix::sys::termios::{SetArg, tcsetattr};
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

#[cfg(not(unix))]
struct Hidden;

#[cfg(not(unix))]
impl Hidden {
    fn begin() -> Option<Self> {
        None
    }
}
