//! What the sides ask of each other, as the application sees it.

use crate::algo::Side;
use crate::error::Error;
use crate::wire::{Reader, Write};

/// Our number of a channel. Not used again within a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub(crate) u32);

/// A channel the peer wants to open.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Open {
    /// A client's: RFC 4254 §6.1.
    Session,
    /// A client's: RFC 4254 §7.2.
    DirectTcpip {
        /// Host to connect to.
        host: String,
        /// Port to connect to; larger than 65535 if the client is wrong.
        port: u32,
        /// Where the connection to the client came from.
        originator: String,
        /// Port of the originator.
        originator_port: u32,
    },
    /// A client's: OpenSSH's PROTOCOL §2.4.
    DirectStreamlocal {
        /// Socket to connect to.
        path: Vec<u8>,
    },
    /// A server's: RFC 4254 §7.2.
    ForwardedTcpip {
        /// The address the server listens on.
        address: String,
        /// The port the server listens on.
        port: u32,
        /// Where the connection to the server came from.
        originator: String,
        /// Port of the originator.
        originator_port: u32,
    },
    /// A server's: OpenSSH's PROTOCOL §2.4.
    ForwardedStreamlocal {
        /// The socket the server listens on.
        path: Vec<u8>,
    },
    /// A server's: a connection to the client's SSH agent.
    Agent,
}

impl Open {
    /// `None` for a type that `side` does not serve.
    pub(crate) fn parse(
        side: Side,
        kind: &str,
        mut reader: Reader<'_>,
    ) -> Result<Option<Self>, Error> {
        if side == Side::Client {
            return Ok(Some(match kind {
                "forwarded-tcpip" => Self::ForwardedTcpip {
                    address: text(reader.string()?),
                    port: reader.u32()?,
                    originator: text(reader.string()?),
                    originator_port: reader.u32()?,
                },
                "forwarded-streamlocal@openssh.com" => Self::ForwardedStreamlocal {
                    path: reader.string()?.to_vec(),
                },
                "auth-agent@openssh.com" => Self::Agent,
                _ => return Ok(None),
            }));
        }
        Ok(Some(match kind {
            "session" => Self::Session,
            "direct-tcpip" => Self::DirectTcpip {
                host: text(reader.string()?),
                port: reader.u32()?,
                originator: text(reader.string()?),
                originator_port: reader.u32()?,
            },
            "direct-streamlocal@openssh.com" => Self::DirectStreamlocal {
                path: reader.string()?.to_vec(),
            },
            _ => return Ok(None),
        }))
    }
}

/// Why a channel is not opened (RFC 4254 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not allowed.
    Prohibited = 1,
    /// The destination could not be reached.
    ConnectFailed = 2,
    /// No such channel type.
    UnknownType = 3,
    /// Out of something.
    ResourceShortage = 4,
}

/// A channel to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenOut {
    /// For clients: RFC 4254 §6.1.
    Session,
    /// For clients: RFC 4254 §7.2.
    DirectTcpip {
        /// Host to connect to.
        host: String,
        /// Port to connect to.
        port: u16,
        /// Where the connection came from.
        originator: String,
        /// Port of the originator.
        originator_port: u16,
    },
    /// RFC 4254 §7.2.
    ForwardedTcpip {
        /// The address the client asked to listen on.
        address: String,
        /// The port the server listens on.
        port: u16,
        /// Where the connection came from.
        originator: String,
        /// Port of the originator.
        originator_port: u16,
    },
    /// OpenSSH's PROTOCOL §2.4.
    ForwardedStreamlocal {
        /// The socket the client asked to listen on.
        path: Vec<u8>,
    },
    /// RFC 4254 §6.3.2.
    X11 {
        /// Where the connection came from.
        originator: String,
        /// Port of the originator.
        originator_port: u16,
    },
    /// A connection to the client's SSH agent.
    Agent,
}

impl OpenOut {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::DirectTcpip { .. } => "direct-tcpip",
            Self::ForwardedTcpip { .. } => "forwarded-tcpip",
            Self::ForwardedStreamlocal { .. } => "forwarded-streamlocal@openssh.com",
            Self::X11 { .. } => "x11",
            Self::Agent => "auth-agent@openssh.com",
        }
    }

    /// What is particular to the kind.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::DirectTcpip {
                host: address,
                port,
                originator,
                originator_port,
            }
            | Self::ForwardedTcpip {
                address,
                port,
                originator,
                originator_port,
            } => {
                out.put_string(address);
                out.put_u32(u32::from(*port));
                out.put_string(originator);
                out.put_u32(u32::from(*originator_port));
            }
            Self::ForwardedStreamlocal { path } => {
                out.put_string(path);
                out.put_string("");
            }
            Self::X11 {
                originator,
                originator_port,
            } => {
                out.put_string(originator);
                out.put_u32(u32::from(*originator_port));
            }
            Self::Session | Self::Agent => {}
        }
    }
}

/// A request to make on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestOut {
    /// RFC 4254 §6.2, with no modes.
    Pty {
        /// Value of `TERM`.
        term: String,
        /// Width in characters.
        cols: u32,
        /// Height in characters.
        rows: u32,
    },
    /// RFC 4254 §6.7.
    WindowChange {
        /// Width in characters.
        cols: u32,
        /// Height in characters.
        rows: u32,
    },
    /// RFC 4254 §6.4.
    Env {
        /// Name of the variable.
        name: String,
        /// Its value.
        value: String,
    },
    /// `auth-agent-req@openssh.com`.
    Agent,
    /// RFC 4254 §6.5.
    Shell,
    /// RFC 4254 §6.5.
    Exec(String),
    /// RFC 4254 §6.9: name without `SIG`.
    Signal(String),
    /// A server's: how the program ended (RFC 4254 §6.10).
    ExitStatus(u32),
}

impl RequestOut {
    /// Its name, and what is particular to it.
    pub(crate) fn encode(&self) -> (&'static str, Vec<u8>) {
        let mut out = Vec::new();
        let kind = match self {
            Self::Pty { term, cols, rows } => {
                out.put_string(term);
                for size in [*cols, *rows, 0, 0] {
                    out.put_u32(size);
                }
                // No modes; their list still has an end.
                out.put_string([0]);
                "pty-req"
            }
            Self::WindowChange { cols, rows } => {
                for size in [*cols, *rows, 0, 0] {
                    out.put_u32(size);
                }
                "window-change"
            }
            Self::Env { name, value } => {
                out.put_string(name);
                out.put_string(value);
                "env"
            }
            Self::Agent => "auth-agent-req@openssh.com",
            Self::Shell => "shell",
            Self::Exec(command) => {
                out.put_string(command);
                "exec"
            }
            Self::Signal(name) => {
                out.put_string(name);
                "signal"
            }
            Self::ExitStatus(status) => {
                out.put_u32(*status);
                "exit-status"
            }
        };
        (kind, out)
    }
}

/// A request of the peer on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// RFC 4254 §6.2.
    Pty {
        /// Value of `TERM`.
        term: String,
        /// Width in characters.
        cols: u32,
        /// Height in characters.
        rows: u32,
        /// Terminal modes: opcode and argument (RFC 4254 §8).
        modes: Vec<(u8, u32)>,
    },
    /// RFC 4254 §6.7.
    WindowChange {
        /// Width in characters.
        cols: u32,
        /// Height in characters.
        rows: u32,
    },
    /// RFC 4254 §6.4.
    Env {
        /// Name of the variable.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// RFC 4254 §6.3.1.
    X11 {
        /// One connection only.
        single: bool,
        /// Authentication protocol.
        protocol: String,
        /// Cookie in hexadecimal digits.
        cookie: String,
        /// Screen number.
        screen: u32,
    },
    /// `auth-agent-req@openssh.com`.
    Agent,
    /// RFC 4254 §6.5.
    Shell,
    /// RFC 4254 §6.5.
    Exec(Vec<u8>),
    /// RFC 4254 §6.5.
    Subsystem(Vec<u8>),
    /// RFC 4254 §6.9: name without `SIG`.
    Signal(Vec<u8>),
    /// `keepalive@openssh.com`.
    Keepalive,
    /// A server's: how the program ended (RFC 4254 §6.10).
    ExitStatus(u32),
    /// A server's: the signal that ended the program, without `SIG` (RFC 4254
    /// §6.10).
    ExitSignal(String),
    /// Anything else, `break` among it.
    Other(String),
}

/// Terminal modes end here: 0, or the first opcode without a number as its
/// argument (RFC 4254 §8).
fn modes(mut encoded: &[u8]) -> Vec<(u8, u32)> {
    const LAST: u8 = 159;
    let mut modes = Vec::new();
    while let Some(([op, a, b, c, d], rest)) = encoded.split_first_chunk() {
        if *op == 0 || *op > LAST {
            break;
        }
        modes.push((*op, u32::from_be_bytes([*a, *b, *c, *d])));
        encoded = rest;
    }
    modes
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Request {
    pub(crate) fn parse(kind: &str, mut reader: Reader<'_>) -> Result<Self, Error> {
        Ok(match kind {
            "pty-req" => {
                let term = text(reader.string()?);
                let (cols, rows) = (reader.u32()?, reader.u32()?);
                let _pixels = (reader.u32()?, reader.u32()?);
                Self::Pty {
                    term,
                    cols,
                    rows,
                    modes: modes(reader.string()?),
                }
            }
            "window-change" => Self::WindowChange {
                cols: reader.u32()?,
                rows: reader.u32()?,
            },
            "env" => Self::Env {
                name: reader.string()?.to_vec(),
                value: reader.string()?.to_vec(),
            },
            "x11-req" => Self::X11 {
                single: reader.bool()?,
                protocol: text(reader.string()?),
                cookie: text(reader.string()?),
                screen: reader.u32()?,
            },
            "auth-agent-req@openssh.com" => Self::Agent,
            "shell" => Self::Shell,
            "exec" => Self::Exec(reader.string()?.to_vec()),
            "subsystem" => Self::Subsystem(reader.string()?.to_vec()),
            "signal" => Self::Signal(reader.string()?.to_vec()),
            "keepalive@openssh.com" => Self::Keepalive,
            "exit-status" => Self::ExitStatus(reader.u32()?),
            "exit-signal" => Self::ExitSignal(text(reader.string()?)),
            other => Self::Other(other.to_owned()),
        })
    }
}

/// A request of a client about the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Global {
    /// RFC 4254 §7.1.
    TcpipForward {
        /// Address to listen on.
        address: String,
        /// Port to listen on; 0 for any.
        port: u32,
    },
    /// RFC 4254 §7.1.
    CancelTcpipForward {
        /// As requested.
        address: String,
        /// The bound port.
        port: u32,
    },
    /// OpenSSH's PROTOCOL §2.4.
    StreamlocalForward {
        /// Socket to listen on.
        path: Vec<u8>,
    },
    /// OpenSSH's PROTOCOL §2.4.
    CancelStreamlocalForward {
        /// As requested.
        path: Vec<u8>,
    },
}

impl Global {
    /// `None` for a request that is not served; clients serve none.
    pub(crate) fn parse(
        side: Side,
        kind: &str,
        mut reader: Reader<'_>,
    ) -> Result<Option<Self>, Error> {
        if side == Side::Client {
            return Ok(None);
        }
        Ok(Some(match kind {
            "tcpip-forward" => Self::TcpipForward {
                address: text(reader.string()?),
                port: reader.u32()?,
            },
            "cancel-tcpip-forward" => Self::CancelTcpipForward {
                address: text(reader.string()?),
                port: reader.u32()?,
            },
            "streamlocal-forward@openssh.com" => Self::StreamlocalForward {
                path: reader.string()?.to_vec(),
            },
            "cancel-streamlocal-forward@openssh.com" => Self::CancelStreamlocalForward {
                path: reader.string()?.to_vec(),
            },
            _ => return Ok(None),
        }))
    }
}

impl Global {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::TcpipForward { .. } => "tcpip-forward",
            Self::CancelTcpipForward { .. } => "cancel-tcpip-forward",
            Self::StreamlocalForward { .. } => "streamlocal-forward@openssh.com",
            Self::CancelStreamlocalForward { .. } => "cancel-streamlocal-forward@openssh.com",
        }
    }

    /// What is particular to the kind.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::TcpipForward { address, port } | Self::CancelTcpipForward { address, port } => {
                out.put_string(address);
                out.put_u32(*port);
            }
            Self::StreamlocalForward { path } | Self::CancelStreamlocalForward { path } => {
                out.put_string(path);
            }
        }
    }
}

/// The answer to a [`Global`] request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobalAnswer {
    /// Done.
    Success,
    /// Listening on this port.
    Port(u16),
    /// Not done.
    Failure,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_end_where_they_should() {
        let encoded = [1, 0, 0, 0, 3, 53, 0, 0, 0, 1, 0, 9, 9, 9, 9, 9];
        assert_eq!(modes(&encoded), [(1, 3), (53, 1)]);
        assert_eq!(modes(&[1, 0, 0, 0, 3, 160, 0, 0, 0, 1]), [(1, 3)]);
        assert_eq!(modes(&[1, 0, 0]), []);
    }
}
