//! Which of two working addresses is better.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An address that answered, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) addr: SocketAddr,
    pub(crate) rtt: Duration,
}

/// Whether `new` should replace `old`.
///
/// The faster one gets its advantage in percent, private networks 20 more,
/// loopback 50 more, IPv6 10 more; a single point is not worth a change.
pub(crate) fn better(new: Measured, old: Measured) -> bool {
    let mut points = (bonus(new.addr), bonus(old.addr));
    let (fast, slow) = if new.rtt < old.rtt {
        (new.rtt, old.rtt)
    } else {
        (old.rtt, new.rtt)
    };
    if slow > Duration::ZERO {
        let advantage = 100 - i64::try_from(fast.as_nanos() * 100 / slow.as_nanos()).unwrap_or(100);
        if new.rtt < old.rtt {
            points.0 += advantage;
        } else {
            points.1 += advantage;
        }
    }
    if points.0 <= 1 && points.1 == 0 {
        return false;
    }
    points.0 > points.1
}

fn bonus(addr: SocketAddr) -> i64 {
    let ip = addr.ip();
    let place = if ip.is_loopback() {
        50
    } else if is_private(ip) {
        20
    } else {
        0
    };
    place + if ip.is_ipv6() { 10 } else { 0 }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(addr: &str, micros: u64) -> Measured {
        Measured {
            addr: addr.parse().expect("test address"),
            rtt: Duration::from_micros(micros),
        }
    }

    #[test]
    fn faster_wins_and_a_tie_stays() {
        assert!(better(at("192.0.2.1:1", 1000), at("192.0.2.2:1", 2000)));
        assert!(!better(at("192.0.2.1:1", 2000), at("192.0.2.2:1", 1000)));
        assert!(!better(at("192.0.2.1:1", 990), at("192.0.2.2:1", 1000)));
        assert!(!better(at("192.0.2.1:1", 1000), at("192.0.2.2:1", 1000)));
    }

    #[test]
    fn near_networks_beat_a_small_delay() {
        assert!(better(at("10.0.0.1:1", 1100), at("192.0.2.2:1", 1000)));
        assert!(!better(at("192.0.2.2:1", 1000), at("10.0.0.1:1", 1100)));
        assert!(better(at("127.0.0.1:1", 1400), at("192.0.2.2:1", 1000)));
        assert!(better(at("[2001:db8::1]:1", 1000), at("192.0.2.2:1", 1000)));
    }
}
