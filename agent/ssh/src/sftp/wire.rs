//! Encoding of SFTP packets.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bytes::{BufMut, Bytes, BytesMut};

use super::attrs::{Attrs, Listed};
use super::lane::Job;
use super::{HANDLES, LONGEST_DATA, LONGEST_PACKET};

const VERSION: u32 = 3;

/// Extensions offered, with their versions.
const EXTENSIONS: [(&str, &str); 8] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

mod kind {
    pub(super) const INIT: u8 = 1;
    pub(super) const VERSION: u8 = 2;
    pub(super) const OPEN: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    pub(super) const READ: u8 = 5;
    pub(super) const WRITE: u8 = 6;
    pub(super) const LSTAT: u8 = 7;
    pub(super) const FSTAT: u8 = 8;
    pub(super) const SETSTAT: u8 = 9;
    pub(super) const FSETSTAT: u8 = 10;
    pub(super) const OPENDIR: u8 = 11;
    pub(super) const READDIR: u8 = 12;
    pub(super) const REMOVE: u8 = 13;
    pub(super) const MKDIR: u8 = 14;
    pub(super) const RMDIR: u8 = 15;
    pub(super) const REALPATH: u8 = 16;
    pub(super) const STAT: u8 = 17;
    pub(super) const RENAME: u8 = 18;
    pub(super) const READLINK: u8 = 19;
    pub(super) const SYMLINK: u8 = 20;
    pub(super) const STATUS: u8 = 101;
    pub(super) const HANDLE: u8 = 102;
    pub(super) const DATA: u8 = 103;
    pub(super) const NAME: u8 = 104;
    pub(super) const ATTRS: u8 = 105;
    pub(super) const EXTENDED: u8 = 200;
    pub(super) const EXTENDED_REPLY: u8 = 201;
}

/// Bytes of a DATA packet before its data: length, kind, id, data length.
const DATA_HEADER: usize = 4 + 1 + 4 + 4;

/// The name of an open file on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Handle([u8; 4]);

impl Handle {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl From<u32> for Handle {
    fn from(number: u32) -> Self {
        Self(number.to_be_bytes())
    }
}

/// A request.
#[derive(Debug)]
pub(super) enum Request {
    Open {
        path: PathBuf,
        flags: u32,
        attrs: Attrs,
    },
    OpenDir {
        path: PathBuf,
    },
    OnHandle {
        handle: Bytes,
        job: Job,
    },
    OnPath(PathRequest),
}

impl Request {
    /// Bytes it or its reply carries.
    pub(super) fn size(&self) -> u32 {
        match self {
            Self::OnHandle { job, .. } => match job {
                Job::Read { len, .. } => *len,
                Job::Write { data, .. } => u32::try_from(data.len()).unwrap_or(u32::MAX),
                _ => 0,
            },
            _ => 0,
        }
    }
}

/// A request that names paths.
#[derive(Debug)]
pub(super) enum PathRequest {
    Stat {
        path: PathBuf,
        follow: bool,
    },
    SetStat {
        path: PathBuf,
        attrs: Attrs,
        follow: bool,
    },
    Remove(PathBuf),
    MakeDir {
        path: PathBuf,
        attrs: Attrs,
    },
    RemoveDir(PathBuf),
    RealPath(PathBuf),
    ExpandPath(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    ReadLink(PathBuf),
    Symlink {
        target: PathBuf,
        link: PathBuf,
    },
    HardLink {
        from: PathBuf,
        to: PathBuf,
    },
    StatVfs(PathBuf),
    Limits,
}

/// Result codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// A result without data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: Code,
    text: String,
}

impl Status {
    pub(super) fn new(code: Code, text: &str) -> Self {
        Self {
            code,
            text: text.to_owned(),
        }
    }

    pub(super) fn ok() -> Self {
        Self::new(Code::Ok, "")
    }

    pub(super) fn eof() -> Self {
        Self::new(Code::Eof, "end of file")
    }

    pub(super) fn failure(text: &str) -> Self {
        Self::new(Code::Failure, text)
    }
}

impl From<&io::Error> for Status {
    fn from(error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => Code::NoSuchFile,
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            io::ErrorKind::Unsupported => Code::Unsupported,
            _ => Code::Failure,
        };
        Self::new(code, &error.to_string())
    }
}

/// An answer.
#[derive(Debug)]
pub(super) enum Reply {
    Status(Status),
    Handle(Handle),
    /// A DATA packet, complete but for its header.
    Data(DataBuffer),
    Names(Vec<Listed>),
    Attrs(Attrs),
    /// Numbers of an extended reply.
    Numbers(Vec<u64>),
}

impl From<io::Result<()>> for Reply {
    fn from(result: io::Result<()>) -> Self {
        Self::Status(match result {
            Ok(()) => Status::ok(),
            Err(error) => Status::from(&error),
        })
    }
}

/// Room for read data, with space for the packet header in front.
#[derive(Debug)]
pub(super) struct DataBuffer(Vec<u8>);

impl DataBuffer {
    pub(super) fn new(len: usize) -> Self {
        Self(vec![0; DATA_HEADER + len])
    }

    pub(super) fn data_mut(&mut self) -> &mut [u8] {
        self.0.get_mut(DATA_HEADER..).unwrap_or_default()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(DATA_HEADER + len);
    }

    fn finish(mut self, id: u32) -> Bytes {
        let len = self.0.len();
        let mut header = BytesMut::with_capacity(DATA_HEADER);
        header.put_u32(length(len - 4));
        header.put_u8(kind::DATA);
        header.put_u32(id);
        header.put_u32(length(len - DATA_HEADER));
        if let Some(front) = self.0.get_mut(..DATA_HEADER) {
            front.copy_from_slice(&header);
        }
        self.0.into()
    }
}

impl Reply {
    /// The whole packet.
    pub(super) fn encode(self, id: u32) -> Bytes {
        if let Self::Data(buffer) = self {
            return buffer.finish(id);
        }
        let mut out = BytesMut::new();
        out.put_u32(0);
        match self {
            Self::Data(_) => {}
            Self::Status(status) => {
                out.put_u8(kind::STATUS);
                out.put_u32(id);
                out.put_u32(status.code as u32);
                put_string(&mut out, status.text.as_bytes());
                put_string(&mut out, b"");
            }
            Self::Handle(handle) => {
                out.put_u8(kind::HANDLE);
                out.put_u32(id);
                put_string(&mut out, &handle.0);
            }
            Self::Names(names) => {
                out.put_u8(kind::NAME);
                out.put_u32(id);
                out.put_u32(length(names.len()));
                for name in names {
                    put_string(&mut out, name.name.as_bytes());
                    put_string(&mut out, &name.long);
                    name.attrs.encode(&mut out);
                }
            }
            Self::Attrs(attrs) => {
                out.put_u8(kind::ATTRS);
                out.put_u32(id);
                attrs.encode(&mut out);
            }
            Self::Numbers(numbers) => {
                out.put_u8(kind::EXTENDED_REPLY);
                out.put_u32(id);
                for number in numbers {
                    out.put_u64(number);
                }
            }
        }
        finish(out)
    }
}

/// The answer to INIT.
pub(super) fn version() -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32(0);
    out.put_u8(kind::VERSION);
    out.put_u32(VERSION);
    for (name, version) in EXTENSIONS {
        put_string(&mut out, name.as_bytes());
        put_string(&mut out, version.as_bytes());
    }
    finish(out)
}

/// Numbers of the reply to `limits@openssh.com`: longest packet, read, write,
/// and open handles.
pub(super) fn limits() -> Vec<u64> {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    vec![
        number(LONGEST_PACKET),
        LONGEST_DATA.into(),
        LONGEST_DATA.into(),
        number(HANDLES),
    ]
}

pub(super) fn is_init(packet: &[u8]) -> bool {
    packet.first() == Some(&kind::INIT) && packet.len() >= 5
}

/// The id and the request of a packet; `None` if there is not even an id.
pub(super) fn decode(packet: Bytes) -> Option<(u32, Result<Request, Status>)> {
    let mut input = Cursor(packet);
    let kind = input.byte()?;
    let id = input.u32()?;
    let request = match decode_body(kind, &mut input) {
        Some(request) => request,
        None => Err(Status::new(Code::BadMessage, "malformed request")),
    };
    Some((id, request))
}

fn decode_body(kind: u8, input: &mut Cursor) -> Option<Result<Request, Status>> {
    use PathRequest as P;
    let on_path = match kind {
        kind::OPEN => {
            return Some(Ok(Request::Open {
                path: input.path()?,
                flags: input.u32()?,
                attrs: input.attrs()?,
            }));
        }
        kind::OPENDIR => {
            return Some(Ok(Request::OpenDir {
                path: input.path()?,
            }));
        }
        kind::CLOSE | kind::READ | kind::WRITE | kind::FSTAT | kind::FSETSTAT | kind::READDIR => {
            let handle = input.string()?;
            let job = decode_job(kind, input)?;
            return Some(Ok(Request::OnHandle { handle, job }));
        }
        kind::EXTENDED => return decode_extended(input),
        kind::LSTAT | kind::STAT => P::Stat {
            path: input.path()?,
            follow: kind == kind::STAT,
        },
        kind::SETSTAT => P::SetStat {
            path: input.path()?,
            attrs: input.attrs()?,
            follow: true,
        },
        kind::REMOVE => P::Remove(input.path()?),
        kind::MKDIR => P::MakeDir {
            path: input.path()?,
            attrs: input.attrs()?,
        },
        kind::RMDIR => P::RemoveDir(input.path()?),
        kind::REALPATH => P::RealPath(input.path()?),
        kind::RENAME => P::Rename {
            from: input.path()?,
            to: input.path()?,
        },
        kind::READLINK => P::ReadLink(input.path()?),
        // The draft says link first; everybody sends the target first.
        kind::SYMLINK => P::Symlink {
            target: input.path()?,
            link: input.path()?,
        },
        _ => return Some(Err(Status::new(Code::Unsupported, "unknown request"))),
    };
    Some(Ok(Request::OnPath(on_path)))
}

fn decode_job(kind: u8, input: &mut Cursor) -> Option<Job> {
    Some(match kind {
        kind::CLOSE => Job::Close,
        kind::READ => Job::Read {
            offset: input.u64()?,
            len: input.u32()?.min(LONGEST_DATA),
        },
        kind::WRITE => Job::Write {
            offset: input.u64()?,
            data: input.string()?,
        },
        kind::FSTAT => Job::Stat,
        kind::FSETSTAT => Job::SetStat(input.attrs()?),
        kind::READDIR => Job::ReadDir,
        _ => return None,
    })
}

fn decode_extended(input: &mut Cursor) -> Option<Result<Request, Status>> {
    use PathRequest as P;
    let name = input.string()?;
    let on_path = match &name[..] {
        b"posix-rename@openssh.com" => P::Rename {
            from: input.path()?,
            to: input.path()?,
        },
        b"hardlink@openssh.com" => P::HardLink {
            from: input.path()?,
            to: input.path()?,
        },
        b"statvfs@openssh.com" => P::StatVfs(input.path()?),
        b"lsetstat@openssh.com" => P::SetStat {
            path: input.path()?,
            attrs: input.attrs()?,
            follow: false,
        },
        b"expand-path@openssh.com" => P::ExpandPath(input.path()?),
        b"limits@openssh.com" => P::Limits,
        b"fsync@openssh.com" | b"fstatvfs@openssh.com" => {
            let handle = input.string()?;
            let job = if name.starts_with(b"fsync") {
                Job::Sync
            } else {
                Job::StatVfs
            };
            return Some(Ok(Request::OnHandle { handle, job }));
        }
        _ => return Some(Err(Status::new(Code::Unsupported, "unknown extension"))),
    };
    Some(Ok(Request::OnPath(on_path)))
}

/// Reads a packet from its front.
struct Cursor(Bytes);

impl Cursor {
    fn take(&mut self, len: usize) -> Option<Bytes> {
        (self.0.len() >= len).then(|| self.0.split_to(len))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_be_bytes(*bytes.first_chunk()?))
    }

    fn u64(&mut self) -> Option<u64> {
        let bytes = self.take(8)?;
        Some(u64::from_be_bytes(*bytes.first_chunk()?))
    }

    fn string(&mut self) -> Option<Bytes> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }

    fn path(&mut self) -> Option<PathBuf> {
        let bytes = self.string()?;
        (!bytes.contains(&0)).then(|| PathBuf::from(OsStr::from_bytes(&bytes)))
    }

    fn attrs(&mut self) -> Option<Attrs> {
        let flags = self.u32()?;
        let mut attrs = Attrs::default();
        if flags & Attrs::SIZE != 0 {
            attrs.size = Some(self.u64()?);
        }
        if flags & Attrs::OWNER != 0 {
            attrs.owner = Some((self.u32()?, self.u32()?));
        }
        if flags & Attrs::MODE != 0 {
            attrs.mode = Some(self.u32()?);
        }
        if flags & Attrs::TIMES != 0 {
            attrs.times = Some((self.u32()?, self.u32()?));
        }
        if flags & Attrs::EXTENDED != 0 {
            for _ in 0..self.u32()? {
                self.string()?;
                self.string()?;
            }
        }
        Some(attrs)
    }
}

fn finish(mut out: BytesMut) -> Bytes {
    let len = length(out.len() - 4).to_be_bytes();
    if let Some(front) = out.first_chunk_mut() {
        *front = len;
    }
    out.freeze()
}

fn put_string(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(length(bytes.len()));
    out.put_slice(bytes);
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: u8, id: u32, parts: &[&[u8]]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(kind);
        out.put_u32(id);
        for part in parts {
            out.put_slice(part);
        }
        out.freeze()
    }

    #[test]
    fn paths_are_bytes() {
        let bytes = packet(kind::STAT, 7, &[b"\0\0\0\x03a\xff/"]);
        let (id, request) = decode(bytes).unwrap();
        let Request::OnPath(PathRequest::Stat { path, follow }) = request.unwrap() else {
            panic!("not a stat");
        };
        assert_eq!((id, follow), (7, true));
        assert_eq!(path.as_os_str().as_bytes(), b"a\xff/");
    }

    #[test]
    fn malformed_requests_keep_their_id() {
        for parts in [&b"\0\0\0\x09short"[..], b"", b"\0\0\0\x03a\0b"] {
            let (id, request) = decode(packet(kind::STAT, 9, &[parts])).unwrap();
            assert_eq!(id, 9);
            assert_eq!(request.unwrap_err().code, Code::BadMessage);
        }
        let (_, request) = decode(packet(99, 1, &[])).unwrap();
        assert_eq!(request.unwrap_err().code, Code::Unsupported);
        assert!(decode(Bytes::from_static(b"\x11\0\0\0")).is_none());
    }

    #[test]
    fn replies_carry_their_length() {
        let mut data = DataBuffer::new(8);
        data.data_mut()[..3].copy_from_slice(b"abc");
        data.truncate(3);
        assert_eq!(
            Reply::Data(data).encode(5),
            &b"\0\0\0\x0c\x67\0\0\0\x05\0\0\0\x03abc"[..]
        );
        assert_eq!(
            Reply::Handle(Handle::from(1)).encode(2),
            &b"\0\0\0\x0d\x66\0\0\0\x02\0\0\0\x04\0\0\0\x01"[..]
        );
        let hello = version();
        assert_eq!(&hello[4..9], b"\x02\0\0\0\x03");
        assert_eq!(
            hello.len() - 4,
            u32::from_be_bytes(*hello.first_chunk().unwrap()) as usize
        );
    }

    proptest::proptest! {
        #[test]
        fn any_packet_decodes_or_fails(bytes: Vec<u8>, kind in 0u8..=255) {
            let _ = decode(packet(kind, 1, &[&bytes]));
            let _ = decode(Bytes::from(bytes));
        }
    }
}
