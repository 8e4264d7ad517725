//! What a handshake message must show before it is worth a curve
//! multiplication (sections 5.3 and 5.4.7).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngCore;

use crate::crypto::{Secret, mac, seal_cookie, verify};
use crate::identity::Identity;
use crate::limits::COOKIE_LIFE;
use crate::message::{COOKIE_LEN, Kind, MAC, cookie, initiation, macs};
use crate::random::Random;

/// Handshake messages a second before cookies are asked for: about two percent
/// of a core.
const LOAD: u32 = 100;

/// Load lasts this long after the last sign of it.
const LOAD_LASTS: Duration = Duration::from_secs(1);

/// Under load a host gets one message through in this time…
const INTERVAL: Duration = Duration::from_millis(50);

/// …and this many at once.
const BURST: u32 = 5;

/// Hosts kept account of; beyond, unknown ones are refused.
const HOSTS: usize = 4096;

/// Where a handshake message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A socket address.
    Udp(SocketAddr),
    /// The holder of this key, as a relay says.
    Relay([u8; 32]),
}

impl Origin {
    /// What a cookie is bound to.
    fn full(&self) -> ([u8; 33], usize) {
        let mut bytes = [0; 33];
        match self {
            Self::Udp(addr) => {
                bytes[0] = 1;
                bytes[1..17].copy_from_slice(&sixteen(addr.ip()));
                bytes[17..19].copy_from_slice(&addr.port().to_be_bytes());
                (bytes, 19)
            }
            Self::Relay(key) => {
                bytes[0] = 2;
                bytes[1..].copy_from_slice(key);
                (bytes, 33)
            }
        }
    }

    /// Whose account it goes to: an IPv6 network counts as one host.
    fn host(&self) -> [u8; 33] {
        let mut bytes = [0; 33];
        match self {
            Self::Udp(addr) => {
                let ip = sixteen(addr.ip());
                let kept = if addr.is_ipv4() { 16 } else { 8 };
                bytes[0] = 1;
                bytes[1..=kept].copy_from_slice(&ip[..kept]);
            }
            Self::Relay(key) => {
                bytes[0] = 2;
                bytes[1..].copy_from_slice(key);
            }
        }
        bytes
    }
}

fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// What to do with a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Look at it.
    Accept,
    /// Send this cookie reply back where it came from.
    Cookie([u8; COOKIE_LEN]),
    /// Forget it.
    Drop,
}

/// The node's side of denial-of-service mitigation.
pub struct Guard {
    identity: Arc<Identity>,
    /// Turns origins into cookies; drawn anew every two minutes.
    secret: Option<(Secret, Instant)>,
    /// Messages in the running second.
    count: u32,
    since: Option<Instant>,
    load_until: Option<Instant>,
    /// When each host's account is even again.
    hosts: HashMap<[u8; 33], Instant>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("count", &self.count)
            .field("load_until", &self.load_until)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// Guards a node.
    #[must_use]
    pub fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            secret: None,
            count: 0,
            since: None,
            load_until: None,
            hosts: HashMap::new(),
        }
    }

    /// Judges an initiation or a response.
    pub fn admit(
        &mut self,
        now: Instant,
        origin: Origin,
        message: &[u8],
        random: &mut Random,
    ) -> Admission {
        let Some((covered, first, second)) = macs(message) else {
            return Admission::Drop;
        };
        if !verify(&self.identity.mac_key, covered, first) {
            return Admission::Drop;
        }
        if !self.under_load(now) {
            return Admission::Accept;
        }
        let (full, len) = origin.full();
        let cookie = mac(self.secret(now, random), &full[..len]);
        let rest = &message[..message.len() - MAC];
        if verify(&cookie, rest, second) {
            if self.pays(now, origin.host()) {
                Admission::Accept
            } else {
                Admission::Drop
            }
        } else {
            self.reply(message, &cookie, first, random)
                .map_or(Admission::Drop, Admission::Cookie)
        }
    }

    /// Counts a message; whether there are too many.
    fn under_load(&mut self, now: Instant) -> bool {
        if self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1))
        {
            (self.count, self.since) = (0, Some(now));
        }
        self.count = self.count.saturating_add(1);
        if self.count > LOAD {
            self.load_until = Some(now + LOAD_LASTS);
        }
        let loaded = self.load_until.is_some_and(|until| now < until);
        if !loaded {
            self.hosts.clear();
        }
        loaded
    }

    fn secret(&mut self, now: Instant, random: &mut Random) -> &[u8; 32] {
        let (secret, _) = match self.secret.take() {
            Some((secret, at)) if now.saturating_duration_since(at) < COOKIE_LIFE => {
                self.secret.insert((secret, at))
            }
            _ => self.secret.insert((random.secret(), now)),
        };
        secret
    }

    /// Takes one message from a host's account, if it holds one.
    fn pays(&mut self, now: Instant, host: [u8; 33]) -> bool {
        if self.hosts.len() >= HOSTS && !self.hosts.contains_key(&host) {
            self.hosts.retain(|_, even| *even > now);
            if self.hosts.len() >= HOSTS {
                return false;
            }
        }
        let even = self.hosts.entry(host).or_insert(now);
        let next = (*even).max(now) + INTERVAL;
        if next > now + INTERVAL * BURST {
            return false;
        }
        *even = next;
        true
    }

    fn reply(
        &self,
        message: &[u8],
        cookie: &[u8; MAC],
        first: &[u8; MAC],
        random: &mut Random,
    ) -> Option<[u8; COOKIE_LEN]> {
        let mut nonce = [0; 24];
        random.fill_bytes(&mut nonce);
        let sealed = seal_cookie(&self.identity.cookie_key, &nonce, cookie, first)?;
        let mut reply = [0; COOKIE_LEN];
        reply[..4].copy_from_slice(&Kind::Cookie.head());
        // Both kinds have their sender in the same place.
        reply[cookie::RECEIVER].copy_from_slice(message.get(initiation::SENDER)?);
        reply[cookie::NONCE].copy_from_slice(&nonce);
        reply[cookie::COOKIE].copy_from_slice(&sealed);
        Some(reply)
    }
}
