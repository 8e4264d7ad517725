//! Own UDP addresses: what the interfaces have and what STUN servers saw.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A reflected address stays announced this long after it was last seen.
const KEEP: Duration = Duration::from_secs(310);
/// Most endpoints announced.
const MAX_ENDPOINTS: usize = 32;

/// Collects own endpoints in the order they are announced.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    reflected: Vec<(SocketAddr, Instant)>,
    local: Vec<SocketAddr>,
}

impl Endpoints {
    /// A STUN server saw packets of ours come from `addr`.
    pub(crate) fn reflected(&mut self, now: Instant, addr: SocketAddr) {
        match self.reflected.iter_mut().find(|(a, _)| *a == addr) {
            Some(entry) => entry.1 = now,
            None => self.reflected.push((addr, now)),
        }
    }

    /// Looks at the interfaces; whether they changed. `ports` are those of the
    /// two sockets.
    pub(crate) fn scan(&mut self, ports: (Option<u16>, Option<u16>)) -> bool {
        let local = local_endpoints(&interface_addresses(), ports);
        std::mem::replace(&mut self.local, local) != self.local
    }

    /// The network changed: reflections of before mean nothing.
    pub(crate) fn forget_reflected(&mut self) {
        self.reflected.clear();
    }

    /// What to announce: IPv4 reflections, IPv6 reflections, interfaces.
    pub(crate) fn list(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.reflected
            .retain(|(_, seen)| now.duration_since(*seen) < KEEP);
        let mut out: Vec<SocketAddr> = Vec::new();
        let v4 = self
            .reflected
            .iter()
            .map(|(a, _)| *a)
            .filter(SocketAddr::is_ipv4);
        let v6 = self
            .reflected
            .iter()
            .map(|(a, _)| *a)
            .filter(SocketAddr::is_ipv6);
        for addr in v4.chain(v6).chain(self.local.iter().copied()) {
            if !out.contains(&addr) && out.len() < MAX_ENDPOINTS {
                out.push(addr);
            }
        }
        out
    }
}

/// Endpoints of interface addresses: ordinary ones; unique-local IPv6 and
/// IPv4 link-local only if nothing else; loopback only if nothing at all.
fn local_endpoints(addresses: &[IpAddr], (v4, v6): (Option<u16>, Option<u16>)) -> Vec<SocketAddr> {
    let at = |ip: IpAddr| {
        let port = if ip.is_ipv4() { v4 } else { v6 };
        port.map(|port| SocketAddr::new(ip, port))
    };
    let class = |wanted: Class| {
        addresses
            .iter()
            .filter(|ip| classify(**ip) == wanted)
            .filter_map(|ip| at(*ip))
            .collect::<Vec<_>>()
    };
    let mut out = class(Class::Ordinary);
    if out.is_empty() {
        out = class(Class::Fallback);
    }
    if out.is_empty() {
        out = class(Class::Loopback);
    }
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Ordinary,
    Fallback,
    Loopback,
    Never,
}

fn classify(ip: IpAddr) -> Class {
    if ip.is_loopback() {
        return Class::Loopback;
    }
    if ip.is_unspecified() || ip.is_multicast() {
        return Class::Never;
    }
    match ip {
        IpAddr::V4(ip) if ip.is_link_local() => Class::Fallback,
        IpAddr::V4(_) => Class::Ordinary,
        IpAddr::V6(ip) if ip.is_unicast_link_local() || overlay(&ip.octets()) => Class::Never,
        IpAddr::V6(ip) if ip.is_unique_local() => Class::Fallback,
        IpAddr::V6(_) => Class::Ordinary,
    }
}

fn overlay(octets: &[u8; 16]) -> bool {
    octets.starts_with(&adit_keys::addr::SERVICE_PREFIX)
        || octets.starts_with(&adit_keys::addr::TAILNET_PREFIX)
}

/// Addresses of all interfaces that are up.
#[cfg(unix)]
fn interface_addresses() -> Vec<IpAddr> {
    use nix::net::if_::InterfaceFlags;

    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    interfaces
        .filter(|i| i.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|i| {
            let address = i.address?;
            address
                .as_sockaddr_in()
                .map(|a| IpAddr::V4(a.ip()))
                .or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .collect()
}

/// The addresses that default routes use; a connected UDP socket sends nothing.
#[cfg(not(unix))]
fn interface_addresses() -> Vec<IpAddr> {
    let source = |bind: &str, to: &str| {
        let socket = std::net::UdpSocket::bind(bind).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|a| a.ip())
    };
    [
        source("0.0.0.0:0", "192.0.2.1:9"),
        source("[::]:0", "[2001:db8::1]:9"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locals(ips: &[&str]) -> Vec<String> {
        let ips: Vec<IpAddr> = ips.iter().map(|s| s.parse().unwrap()).collect();
        local_endpoints(&ips, (Some(4), Some(6)))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn prefers_ordinary_addresses() {
        assert_eq!(
            locals(&[
                "127.0.0.1",
                "10.1.2.3",
                "169.254.1.1",
                "fe80::1",
                "fd00::1",
                "2001:db8::7"
            ]),
            ["10.1.2.3:4", "[2001:db8::7]:6"]
        );
        assert_eq!(
            locals(&["127.0.0.1", "fd00::1", "169.254.1.1"]),
            ["[fd00::1]:6", "169.254.1.1:4"]
        );
        assert_eq!(
            locals(&["127.0.0.1", "::1", "fe80::1"]),
            ["127.0.0.1:4", "[::1]:6"]
        );
        assert!(locals(&["fd7a:115c:a1e0::1", "fd60:627a:a42b::1"]).is_empty());
    }

    #[test]
    fn reflections_come_first_and_age() {
        let mut endpoints = Endpoints {
            local: vec!["10.0.0.1:4".parse().unwrap()],
            ..Endpoints::default()
        };
        let now = Instant::now();
        endpoints.reflected(now, "[2001:db8::1]:9".parse().unwrap());
        endpoints.reflected(now, "203.0.113.9:7".parse().unwrap());
        let text: Vec<_> = endpoints
            .list(now)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(text, ["203.0.113.9:7", "[2001:db8::1]:9", "10.0.0.1:4"]);
        assert_eq!(endpoints.list(now + KEEP).len(), 1);
    }
}
