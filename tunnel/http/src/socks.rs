//! The client's side of SOCKS 5 (RFC 1928) with user names and passwords
//! (RFC 1929), as a state machine without input or output.
//!
//! The name of the destination is resolved by the proxy, for `socks5` as for
//! `socks5h`.

use std::net::IpAddr;

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// User name and password, at most 255 bytes each.
pub(crate) type Credentials = (Vec<u8>, Vec<u8>);

/// One negotiation: write [`output`](Self::output), read exactly
/// [`wants`](Self::wants) bytes, give them to [`handle`](Self::handle), until
/// it wants nothing more. What follows belongs to the tunnelled connection.
pub(crate) struct Negotiation {
    state: State,
    login: Option<Vec<u8>>,
    request: Vec<u8>,
    output: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Method,
    Login,
    Reply,
    NameLength,
    Bound(usize),
    Done,
}

impl Negotiation {
    /// For a destination with a name or address and a port.
    pub(crate) fn new(
        host: &str,
        port: u16,
        credentials: Option<&Credentials>,
    ) -> Result<Self, String> {
        let mut request = vec![VERSION, CONNECT, 0];
        match host.parse() {
            Ok(IpAddr::V4(ip)) => {
                request.push(IPV4);
                request.extend(ip.octets());
            }
            Ok(IpAddr::V6(ip)) => {
                request.push(IPV6);
                request.extend(ip.octets());
            }
            Err(_) => {
                request.push(NAME);
                counted(&mut request, host.as_bytes(), "the host name")?;
            }
        }
        request.extend(port.to_be_bytes());
        let login = match credentials {
            None => None,
            Some((user, password)) => {
                let mut login = vec![LOGIN_VERSION];
                counted(&mut login, user, "the proxy's user name")?;
                counted(&mut login, password, "the proxy's password")?;
                Some(login)
            }
        };
        let methods: &[u8] = if login.is_some() {
            &[VERSION, 2, NO_LOGIN, LOGIN]
        } else {
            &[VERSION, 1, NO_LOGIN]
        };
        Ok(Self {
            state: State::Method,
            output: methods.to_vec(),
            login,
            request,
        })
    }

    /// What to write before reading on; empty if nothing.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// How many bytes come next; 0 once the tunnel stands.
    pub(crate) fn wants(&self) -> usize {
        match self.state {
            State::Method | State::Login => 2,
            State::Reply => 4,
            State::NameLength => 1,
            State::Bound(length) => length,
            State::Done => 0,
        }
    }

    /// Takes as many bytes as were wanted.
    pub(crate) fn handle(&mut self, input: &[u8]) -> Result<(), String> {
        self.state = match (self.state, input) {
            (State::Method, [VERSION, method]) => match (*method, self.login.take()) {
                (NO_LOGIN, _) => self.ask(),
                (LOGIN, Some(login)) => {
                    self.output = login;
                    State::Login
                }
                _ => return Err("asks for a user name and password".into()),
            },
            (State::Login, [_, 0]) => self.ask(),
            (State::Login, [_, _]) => {
                return Err("does not accept the user name and password".into());
            }
            (State::Reply, [VERSION, 0, _, kind]) => match *kind {
                IPV4 => State::Bound(4 + 2),
                IPV6 => State::Bound(16 + 2),
                NAME => State::NameLength,
                other => return Err(format!("answered with an address of kind {other}")),
            },
            (State::Reply, [VERSION, code, ..]) => {
                return Err(format!("refused: {}", meaning(*code)));
            }
            (State::NameLength, [length]) => State::Bound(usize::from(*length) + 2),
            (State::Bound(_), _) => State::Done,
            _ => return Err("does not speak SOCKS 5".into()),
        };
        Ok(())
    }

    fn ask(&mut self) -> State {
        self.output = std::mem::take(&mut self.request);
        State::Reply
    }
}

/// Appends a length byte and the bytes.
fn counted(out: &mut Vec<u8>, bytes: &[u8], what: &str) -> Result<(), String> {
    let length = u8::try_from(bytes.len())
        .ok()
        .filter(|length| *length > 0)
        .ok_or_else(|| format!("{what} must have 1 to 255 bytes"))?;
    out.push(length);
    out.extend(bytes);
    Ok(())
}

/// RFC 1928 section 6.
fn meaning(code: u8) -> &'static str {
    match code {
        2 => "not allowed by its rules",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "the connection took too long",
        7 => "it does not connect for clients",
        8 => "it does not know this kind of address",
        _ => "it failed",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_without_login() {
        let mut n = Negotiation::new("h.example", 443, None).unwrap();
        assert_eq!(n.output(), [5, 1, 0]);
        n.handle(&[5, 0]).unwrap();
        assert_eq!(n.output(), b"\x05\x01\x00\x03\x09h.example\x01\xbb");
        assert_eq!(n.wants(), 4);
        n.handle(&[5, 0, 0, 3]).unwrap();
        n.handle(&[7]).unwrap();
        assert_eq!(n.wants(), 9);
        n.handle(&[0; 9]).unwrap();
        assert_eq!(n.wants(), 0);
    }

    #[test]
    fn an_address_with_login() {
        let login = (b"u".to_vec(), b"pw".to_vec());
        let mut n = Negotiation::new("2001:db8::1", 80, Some(&login)).unwrap();
        assert_eq!(n.output(), [5, 2, 0, 2]);
        n.handle(&[5, 2]).unwrap();
        assert_eq!(n.output(), b"\x01\x01u\x02pw");
        n.handle(&[1, 0]).unwrap();
        let request = n.output();
        assert_eq!((request[3], request.len()), (IPV6, 4 + 16 + 2));
        n.handle(&[5, 0, 0, 1]).unwrap();
        assert_eq!(n.wants(), 6);
    }

    #[test]
    fn refusals_are_told() {
        let refused = |answers: &[&[u8]]| {
            let login = (b"u".to_vec(), b"p".to_vec());
            let mut n = Negotiation::new("h", 1, Some(&login)).unwrap();
            answers
                .iter()
                .find_map(|a| n.handle(a).err())
                .expect("refused")
        };
        assert!(refused(&[&[4, 0]]).contains("SOCKS 5"));
        assert!(refused(&[&[5, 255]]).contains("user name"));
        assert!(refused(&[&[5, 2], &[1, 1]]).contains("not accept"));
        assert!(refused(&[&[5, 0], &[5, 5, 0, 1]]).contains("refused"));
        assert!(Negotiation::new(&"x".repeat(256), 1, None).is_err());
    }

    proptest! {
        #[test]
        fn hostile_answers_end(answers in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut n = Negotiation::new("h", 1, None).unwrap();
            let mut rest = &answers[..];
            for _ in 0..10 {
                let wants = n.wants();
                if wants == 0 || wants > rest.len() {
                    break;
                }
                let (now, later) = rest.split_at(wants);
                rest = later;
                if n.handle(now).is_err() {
                    break;
                }
            }
            prop_assert!(n.wants() <= 257);
        }
    }
}
