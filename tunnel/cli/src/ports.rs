//! The port arguments of `port-forward`.

use std::{fmt, net::IpAddr};

/// What a forward carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One local port and the workspace port behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) protocol: Protocol,
    /// Local address; `None` listens on both loopback addresses.
    pub(crate) bind: Option<IpAddr>,
    pub(crate) local: u16,
    pub(crate) remote: u16,
}

/// Parses a comma-separated list of `[ADDRESS:]LOCAL[:REMOTE]`, where ports
/// may be ranges: `8080`, `8080:3000`, `0.0.0.0:8080:80`, `[::1]:8080:80`,
/// `9000-9005`, `9000-9005:8000-8005`.
pub(crate) fn parse(protocol: Protocol, text: &str) -> Result<Vec<Forward>, String> {
    let mut forwards = Vec::new();
    for spec in text.split(',') {
        parse_one(protocol, spec.trim(), &mut forwards)
            .map_err(|why| format!("invalid {protocol} port {spec:?}: {why}"))?;
    }
    Ok(forwards)
}

fn parse_one(protocol: Protocol, spec: &str, forwards: &mut Vec<Forward>) -> Result<(), String> {
    let (bind, ports) = split_address(spec)?;
    let (local, remote) = match ports.split_once(':') {
        Some((local, remote)) => (range(local)?, range(remote)?),
        None => (range(ports)?, range(ports)?),
    };
    if local.clone().count() != remote.clone().count() {
        return Err("both sides of a range need the same number of ports".to_owned());
    }
    forwards.extend(local.zip(remote).map(|(local, remote)| Forward {
        protocol,
        bind,
        local,
        remote,
    }));
    Ok(())
}

fn split_address(spec: &str) -> Result<(Option<IpAddr>, &str), String> {
    if let Some(rest) = spec.strip_prefix('[') {
        let (address, ports) = rest
            .split_once("]:")
            .ok_or("an IPv6 address is written [address]:port")?;
        let address = address
            .parse::<IpAddr>()
            .map_err(|_| format!("{address:?} is not an IP address"))?;
        return Ok((Some(address), ports));
    }
    match spec.split_once(':') {
        Some((head, ports)) if head.contains('.') => {
            let address = head
                .parse::<IpAddr>()
                .map_err(|_| format!("{head:?} is not an IP address"))?;
            Ok((Some(address), ports))
        }
        _ => Ok((None, spec)),
    }
}

fn range(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|&port| port != 0)
            .ok_or_else(|| format!("{text:?} is not a port between 1 and 65535"))
    };
    match text.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            if first > last {
                return Err(format!("{text:?} runs backwards"));
            }
            Ok(first..=last)
        }
        None => {
            let port = port(text)?;
            Ok(port..=port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Vec<(Option<String>, u16, u16)> {
        parse(Protocol::Tcp, text)
            .unwrap()
            .into_iter()
            .map(|f| (f.bind.map(|a| a.to_string()), f.local, f.remote))
            .collect()
    }

    #[test]
    fn forms() {
        assert_eq!(tcp("8080"), [(None, 8080, 8080)]);
        assert_eq!(
            tcp("8080:3000,9000"),
            [(None, 8080, 3000), (None, 9000, 9000)]
        );
        assert_eq!(tcp("0.0.0.0:1:2"), [(Some("0.0.0.0".into()), 1, 2)]);
        assert_eq!(tcp("[::1]:1:2"), [(Some("::1".into()), 1, 2)]);
        assert_eq!(tcp("5-6:7-8"), [(None, 5, 7), (None, 6, 8)]);
        assert_eq!(tcp("1.2.3.4:80"), [(Some("1.2.3.4".into()), 80, 80)]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("x", "is not a port"),
            ("0", "is not a port"),
            ("70000", "is not a port"),
            ("5-6:7", "same number"),
            ("6-5", "backwards"),
            ("1.2.3:80", "is not an IP address"),
            ("[::1]80", "IPv6 address is written"),
            ("", "is not a port"),
        ] {
            let error = parse(Protocol::Udp, text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
