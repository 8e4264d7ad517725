//! File attributes and directory listings.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use nix::sys::statvfs::{FsFlags, Statvfs};

/// Attributes that are present.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attrs {
    pub(super) size: Option<u64>,
    /// User and group.
    pub(super) owner: Option<(u32, u32)>,
    /// Type and permissions.
    pub(super) mode: Option<u32>,
    /// Access and modification, in seconds since 1970.
    pub(super) times: Option<(u32, u32)>,
}

impl Attrs {
    pub(super) const SIZE: u32 = 1;
    pub(super) const OWNER: u32 = 2;
    pub(super) const MODE: u32 = 4;
    pub(super) const TIMES: u32 = 8;
    pub(super) const EXTENDED: u32 = 0x8000_0000;

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let flag = |present: bool, flag: u32| if present { flag } else { 0 };
        out.put_u32(
            flag(self.size.is_some(), Self::SIZE)
                | flag(self.owner.is_some(), Self::OWNER)
                | flag(self.mode.is_some(), Self::MODE)
                | flag(self.times.is_some(), Self::TIMES),
        );
        if let Some(size) = self.size {
            out.put_u64(size);
        }
        if let Some((uid, gid)) = self.owner {
            out.put_u32(uid);
            out.put_u32(gid);
        }
        if let Some(mode) = self.mode {
            out.put_u32(mode);
        }
        if let Some((accessed, modified)) = self.times {
            out.put_u32(accessed);
            out.put_u32(modified);
        }
    }
}

impl From<&Metadata> for Attrs {
    fn from(meta: &Metadata) -> Self {
        // The protocol's clock ends in 2106.
        let seconds = |s: i64| u32::try_from(s.max(0)).unwrap_or(u32::MAX);
        Self {
            size: Some(meta.size()),
            owner: Some((meta.uid(), meta.gid())),
            mode: Some(meta.mode()),
            times: Some((seconds(meta.atime()), seconds(meta.mtime()))),
        }
    }
}

/// A time of the protocol.
pub(super) fn at(seconds: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.into())
}

/// One entry of a listing.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: OsString,
    /// The line `ls -l` would print.
    pub(super) long: Vec<u8>,
    pub(super) attrs: Attrs,
}

impl Listed {
    pub(super) fn new(name: OsString, meta: &Metadata) -> Self {
        let mut long = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            long,
            "{} {:>4} {:<8} {:<8} {:>8} {} ",
            mode_text(meta.mode()),
            meta.nlink(),
            meta.uid(),
            meta.gid(),
            meta.size(),
            date_text(meta.mtime(), SystemTime::now()),
        );
        let mut long = long.into_bytes();
        long.extend_from_slice(name.as_bytes());
        Self {
            attrs: Attrs::from(meta),
            name,
            long,
        }
    }

    /// A name without attributes, as REALPATH and READLINK answer.
    pub(super) fn bare(name: OsString) -> Self {
        Self {
            long: name.as_bytes().to_vec(),
            name,
            attrs: Attrs::default(),
        }
    }
}

fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Month, day, and time of day (UTC), or the year for a time more than half a
/// year away.
fn date_text(seconds: i64, now: SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    const HALF_YEAR: u64 = 183 * 24 * 3600;
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let name = MONTHS.get(month).copied().unwrap_or("???");
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    if now.abs_diff(seconds.max(0).cast_unsigned()) > HALF_YEAR {
        return format!("{name} {day:>2}  {year:>4}");
    }
    let minute = seconds.rem_euclid(86_400) / 60;
    format!("{name} {day:>2} {:02}:{:02}", minute / 60, minute % 60)
}

/// Year, month from 0, and day of a number of days since 1970-01-01, counted
/// in years that begin in March so that leap days come last.
fn civil(days: i64) -> (i64, usize, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    (year, usize::try_from(month).unwrap_or(0), day)
}

/// Numbers of the reply to `statvfs@openssh.com`.
pub(super) fn statvfs_numbers(stat: &Statvfs) -> Vec<u64> {
    const READ_ONLY: u64 = 1;
    const NO_SUID: u64 = 2;
    let mut flags = 0;
    if stat.flags().contains(FsFlags::ST_RDONLY) {
        flags |= READ_ONLY;
    }
    if stat.flags().contains(FsFlags::ST_NOSUID) {
        flags |= NO_SUID;
    }
    vec![
        stat.block_size(),
        stat.fragment_size(),
        stat.blocks(),
        stat.blocks_free(),
        stat.blocks_available(),
        stat.files(),
        stat.files_free(),
        stat.files_available(),
        stat.filesystem_id(),
        flags,
        stat.name_max(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_ls_prints_them() {
        for (mode, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_711, "-rws--x--x"),
            (0o102_640, "-rw-r-S---"),
            (0o041_777, "drwxrwxrwt"),
        ] {
            assert_eq!(mode_text(mode), text);
        }
    }

    #[test]
    fn dates_are_right() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(date_text(1_700_000_000, now), "Nov 14 22:13");
        assert_eq!(date_text(951_782_400, now), "Feb 29  2000");
        assert_eq!(date_text(0, now), "Jan  1  1970");
        assert_eq!(civil(-1), (1969, 11, 31));
    }
}
