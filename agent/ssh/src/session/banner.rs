//! What a login shell on a terminal shows first.

use std::path::Path;

use adit_ssh::Gone;
use bytes::{BufMut, Bytes, BytesMut};

use crate::channel::ChannelIo;
use crate::config::Greeting;

/// Longest line; a longer one ends the message.
const LONGEST_LINE: usize = 64 << 10;
/// Largest message-of-the-day file that is read.
const LARGEST_FILE: u64 = 1 << 20;

/// Writes announcement banners and the message of the day.
pub(crate) async fn write(
    io: &ChannelIo,
    greeting: &dyn Greeting,
    home: &Path,
) -> Result<(), Gone> {
    for banner in greeting.banners() {
        let banner = banner.trim();
        if !banner.is_empty() {
            io.send(terminal_lines(format!("{banner}\n\n").as_bytes()))
                .await?;
        }
    }
    if tokio::fs::try_exists(home.join(".hushlogin"))
        .await
        .unwrap_or(false)
    {
        return Ok(());
    }
    let Some(path) = greeting.motd_file() else {
        return Ok(());
    };
    match tokio::fs::metadata(&path).await {
        Ok(meta) if meta.is_file() && meta.len() <= LARGEST_FILE => {}
        _ => return Ok(()),
    }
    match tokio::fs::read(&path).await {
        Ok(text) if !text.is_empty() => io.send(terminal_lines(&text)).await,
        _ => Ok(()),
    }
}

/// The text with every line ended by CR LF.
fn terminal_lines(text: &[u8]) -> Bytes {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut out = BytesMut::with_capacity(text.len() + 16);
    for line in text.split(|b| *b == b'\n') {
        if line.len() > LONGEST_LINE {
            break;
        }
        out.put_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.put_slice(b"\r\n");
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_cr_lf() {
        assert_eq!(terminal_lines(b"a\nb\r\n\nc"), &b"a\r\nb\r\n\r\nc\r\n"[..]);
        assert_eq!(terminal_lines(b"x\n\n"), &b"x\r\n\r\n"[..]);
        let long = [b"ok\n".to_vec(), vec![b'x'; LONGEST_LINE + 1]].concat();
        assert_eq!(terminal_lines(&long), &b"ok\r\n"[..]);
    }
}
