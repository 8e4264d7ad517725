//! The file in which X clients find the cookie of a display.
//!
//! A sequence of records: a big-endian `u16` family, then four strings
//! (address, display number, protocol name, data), each with a big-endian
//! `u16` length.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

/// Family of entries that name a host.
const FAMILY_LOCAL: u16 = 256;
/// Pause between attempts to lock the file.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// A larger file is not an authority file.
const LARGEST_FILE: u64 = 16 << 20;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    family: u16,
    address: Vec<u8>,
    display: Vec<u8>,
    protocol: Vec<u8>,
    data: Vec<u8>,
}

impl Entry {
    /// The record of a display on this host.
    pub(super) fn local(display: u16, protocol: &[u8], cookie: &[u8]) -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default();
        Self {
            family: FAMILY_LOCAL,
            address: host.into_encoded_bytes(),
            display: display.to_string().into_bytes(),
            protocol: protocol.to_vec(),
            data: cookie.to_vec(),
        }
    }

    fn same_display(&self, other: &Self) -> bool {
        (self.family, &self.address, &self.display)
            == (other.family, &other.address, &other.display)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.family.to_be_bytes());
        for field in [&self.address, &self.display, &self.protocol, &self.data] {
            let len = u16::try_from(field.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(field.get(..usize::from(len)).unwrap_or_default());
        }
    }

    fn decode(input: &mut &[u8]) -> Option<Self> {
        let family = take_u16(input)?;
        let mut field = || {
            let len = usize::from(take_u16(input)?);
            let (field, rest) = input.split_at_checked(len)?;
            *input = rest;
            Some(field.to_vec())
        };
        Some(Self {
            family,
            address: field()?,
            display: field()?,
            protocol: field()?,
            data: field()?,
        })
    }
}

fn take_u16(input: &mut &[u8]) -> Option<u16> {
    let (number, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(u16::from_be_bytes(*number))
}

/// Puts `entry` into the file at `path`, which is made if it is missing.
/// Waits as long as another program holds the file's lock.
pub(super) async fn add(path: &Path, entry: Entry) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let mut file = Some(file);
    loop {
        let Some(unlocked) = file.take() else {
            return Err(io::ErrorKind::Other.into());
        };
        match Flock::lock(unlocked, FlockArg::LockExclusiveNonblock) {
            Ok(mut locked) => return rewrite(&mut locked, &entry),
            Err((unlocked, nix::errno::Errno::EWOULDBLOCK)) => file = Some(unlocked),
            Err((_, error)) => return Err(error.into()),
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

fn rewrite(file: &mut File, entry: &Entry) -> io::Result<()> {
    let mut content = Vec::new();
    Read::by_ref(file)
        .take(LARGEST_FILE)
        .read_to_end(&mut content)?;
    let merged = merge(&content, entry);
    file.rewind()?;
    file.write_all(&merged)?;
    let len = u64::try_from(merged.len()).unwrap_or(u64::MAX);
    file.set_len(len)
}

/// The new content: a record of the same display with the same protocol and
/// length of data is overwritten in its place, other records of that display
/// go away; without one the entry is added at the end. Bytes that are no
/// record are kept out.
fn merge(content: &[u8], entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 128);
    let mut rest = content;
    let mut written = false;
    while let Some(found) = Entry::decode(&mut rest) {
        if !found.same_display(entry) {
            found.encode(&mut out);
            continue;
        }
        let fits = found.protocol == entry.protocol && found.data.len() == entry.data.len();
        if fits && !written {
            entry.encode(&mut out);
            written = true;
        }
    }
    if !written {
        entry.encode(&mut out);
    }
    out
}

/// Decodes hexadecimal digits.
pub(super) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    digits
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(display: &str, protocol: &str, data: &[u8]) -> Entry {
        Entry {
            family: FAMILY_LOCAL,
            address: b"host".to_vec(),
            display: display.into(),
            protocol: protocol.into(),
            data: data.to_vec(),
        }
    }

    fn decode_all(mut content: &[u8]) -> Vec<Entry> {
        std::iter::from_fn(|| Entry::decode(&mut content)).collect()
    }

    #[test]
    fn records_have_the_documented_form() {
        let mut out = Vec::new();
        entry("10", "P", &[0xab]).encode(&mut out);
        assert_eq!(out, b"\x01\x00\x00\x04host\x00\x0210\x00\x01P\x00\x01\xab");
    }

    #[test]
    fn entries_replace_their_likes() {
        let others = [entry("9", "P", b"1"), entry("11", "P", b"2")];
        let mut content = Vec::new();
        others[0].encode(&mut content);
        entry("10", "OLD", b"abc").encode(&mut content);
        entry("10", "P", b"xyz").encode(&mut content);
        others[1].encode(&mut content);
        let new = entry("10", "P", b"new");
        let merged = decode_all(&merge(&content, &new));
        assert_eq!(merged, [others[0].clone(), new.clone(), others[1].clone()]);
        let longer = entry("10", "P", b"longer");
        let merged = decode_all(&merge(&content, &longer));
        assert_eq!(merged, [others[0].clone(), others[1].clone(), longer]);
        assert_eq!(decode_all(&merge(b"", &new)), [new]);
    }

    #[test]
    fn hex_is_strict() {
        assert_eq!(decode_hex("00fF"), Some(vec![0, 255]));
        assert_eq!(decode_hex("0"), None);
        assert_eq!(decode_hex("0g"), None);
        assert_eq!(decode_hex("+1"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_content_merges(content: Vec<u8>) {
            let new = entry("10", "P", b"new");
            let merged = decode_all(&merge(&content, &new));
            proptest::prop_assert!(merged.contains(&new));
        }
    }

    #[tokio::test]
    async fn the_file_is_private_and_updated() -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("authority");
        add(&path, entry("10", "P", b"long cookie")).await?;
        add(&path, entry("10", "P", b"short")).await?;
        let content = std::fs::read(&path)?;
        assert_eq!(decode_all(&content), [entry("10", "P", b"short")]);
        assert_eq!(
            std::fs::metadata(&path)?.permissions().mode() & 0o777,
            0o600
        );
        Ok(())
    }
}
