//! `connect exists`: asked by the OpenSSH configuration whether a host name
//! already leads into an operating-system-wide tunnel.

use std::{net::IpAddr, process::ExitCode, time::Duration};

use crate::cli::ConnectCommand;

/// A resolver that does not answer must not hold up every `ssh`.
const LIMIT: Duration = Duration::from_millis(500);

/// The prefix of addresses that such a tunnel serves.
const PREFIX: [u16; 3] = [0xfd60, 0x627a, 0xa42b];

/// Exit code 0 if the name resolves into the tunnel's prefix, else 1.
pub(crate) async fn run(command: &ConnectCommand) -> ExitCode {
    let ConnectCommand::Exists { host } = command;
    let found = tokio::time::timeout(LIMIT, resolves_into_tunnel(host)).await;
    if found.unwrap_or(false) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether `host` has an address in the prefix of the tunnel.
pub(crate) async fn resolves_into_tunnel(host: &str) -> bool {
    tokio::net::lookup_host((host, 0))
        .await
        .is_ok_and(|mut addresses| addresses.any(|address| in_tunnel(address.ip())))
}

fn in_tunnel(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(address) => address.segments()[..3] == PREFIX,
        IpAddr::V4(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix() {
        assert!(in_tunnel("fd60:627a:a42b::53".parse().unwrap()));
        assert!(!in_tunnel("fd7a:115c:a1e0::1".parse().unwrap()));
        assert!(!in_tunnel("127.0.0.1".parse().unwrap()));
    }
}
