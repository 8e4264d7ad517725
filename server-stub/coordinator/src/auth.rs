//! What each kind of peer may ask for.

use std::net::Ipv6Addr;

use thiserror::Error;
use uuid::Uuid;

use crate::message::{EncodedNode, Request};

/// The one address all agents shared before each had its own; still accepted
/// from agents.
const LEGACY_AGENT_ADDRESS: Ipv6Addr = Ipv6Addr::new(
    0xfd7a, 0x115c, 0xa1e0, 0x49d6, 0xb259, 0xb7ac, 0xb1b2, 0x48f4,
);

/// What a connection stands for, and so what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A workspace agent. It announces only addresses made from its own id and
    /// opens no tunnels.
    Agent(Uuid),
    /// A client that was let in for one agent.
    ClientOf(Uuid),
    /// A client of a user; each tunnel needs a [`Permission`].
    User,
    /// A part of the control plane itself.
    Trusted,
}

/// The answer of the access rules to the `add_tunnel` of a [`Role::User`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The user may connect to the agent.
    Granted,
    /// The user may not, or there is no such agent; which of the two is not
    /// told.
    Refused,
}

/// A request its sender had no right to. It ends the connection.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Denied {
    /// Agents are reached; they do not reach out.
    #[error("agents cannot open tunnels")]
    AgentTunnel,
    /// A client of one agent asked for another.
    #[error("invalid agent id, expected {expected}, got {got}")]
    OtherAgent {
        /// The agent the connection is for.
        expected: Uuid,
        /// The one asked for.
        got: Uuid,
    },
    /// See [`Permission::Refused`].
    #[error("workspace agent not found or you do not have permission")]
    NotPermitted,
    /// Only destinations of tunnels acknowledge.
    #[error("clients may not send ready_for_handshake")]
    ClientReady,
    /// An address that does not belong to the sender.
    #[error("{field}: invalid node address, got {got}")]
    Address {
        /// `Addresses` or `AllowedIps`.
        field: &'static str,
        /// The address.
        got: Ipv6Addr,
    },
    /// A network instead of one address.
    #[error("{prefix}invalid address bits, expected 128, got {got}")]
    Bits {
        /// The field with a colon, or nothing.
        prefix: &'static str,
        /// The prefix length.
        got: u8,
    },
    /// Text that is no IPv6 network.
    #[error("parse node address: {0:?} is not an address with a prefix length")]
    Parse(String),
}

impl Role {
    /// Checks a whole request before any part of it takes effect.
    ///
    /// `permission` is the answer for `request.add_tunnel`; it is looked at for
    /// [`Role::User`] alone.
    ///
    /// # Errors
    ///
    /// The first reason against the request.
    pub fn authorize(self, request: &Request, permission: Permission) -> Result<(), Denied> {
        if let Some(node) = &request.update_self {
            self.authorize_node(node)?;
        }
        if let Some(got) = request.add_tunnel {
            match self {
                Self::Agent(_) => return Err(Denied::AgentTunnel),
                Self::ClientOf(expected) if got != expected => {
                    return Err(Denied::OtherAgent { expected, got });
                }
                Self::User if permission == Permission::Refused => {
                    return Err(Denied::NotPermitted);
                }
                Self::ClientOf(_) | Self::User | Self::Trusted => {}
            }
        }
        let is_client = matches!(self, Self::ClientOf(_) | Self::User);
        if is_client && !request.ready_for_handshake.is_empty() {
            return Err(Denied::ClientReady);
        }
        Ok(())
    }

    fn authorize_node(self, node: &EncodedNode) -> Result<(), Denied> {
        match self {
            Self::Trusted => Ok(()),
            // Clients choose their own addresses; what routes to them is what
            // an agent accepts from the key of that node.
            Self::ClientOf(_) | Self::User => node
                .addresses
                .iter()
                .try_for_each(|text| single_address(text, "").map(drop)),
            Self::Agent(id) => {
                let own = [
                    adit_keys::addr::tailnet_ip(id),
                    adit_keys::addr::service_ip(id),
                    LEGACY_AGENT_ADDRESS,
                ];
                let fields = [
                    ("Addresses", "Addresses: ", &node.addresses),
                    ("AllowedIps", "AllowedIps: ", &node.allowed_ips),
                ];
                for (field, prefix, entries) in fields {
                    for text in entries {
                        let got = single_address(text, prefix)?;
                        if !own.contains(&got) {
                            return Err(Denied::Address { field, got });
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

/// Reads `address/128`.
fn single_address(text: &str, prefix: &'static str) -> Result<Ipv6Addr, Denied> {
    let malformed = || Denied::Parse(text.chars().take(64).collect());
    let (address, bits) = text.split_once('/').ok_or_else(malformed)?;
    let got: u8 = bits.parse().map_err(|_| malformed())?;
    if let Ok(address) = address.parse() {
        return if got == 128 {
            Ok(address)
        } else {
            Err(Denied::Bits { prefix, got })
        };
    }
    // An IPv4 network is well-formed, but has too few bits to be right.
    match address.parse::<std::net::Ipv4Addr>() {
        Ok(_) if got <= 32 => Err(Denied::Bits { prefix, got }),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: Uuid = Uuid::from_u128(0x3f25_04e0_4f89_41d3_9a0c_0305_e82c_3301);
    const OTHER: Uuid = Uuid::from_u128(7);
    const OWN: &str = "fd7a:115c:a1e0:41d3:9a0c:305:e82c:3301/128";

    fn node(addresses: &[&str], allowed_ips: &[&str]) -> Request {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Request {
            update_self: Some(EncodedNode {
                bytes: bytes::Bytes::new(),
                addresses: own(addresses),
                allowed_ips: own(allowed_ips),
            }),
            ..Request::default()
        }
    }

    fn denial(role: Role, request: &Request) -> String {
        role.authorize(request, Permission::Refused)
            .map_or_else(|denied| denied.to_string(), |()| String::new())
    }

    #[test]
    fn an_agent_announces_its_own_addresses_only() {
        let role = Role::Agent(AGENT);
        let service = "fd60:627a:a42b:41d3:9a0c:305:e82c:3301/128";
        let legacy = "fd7a:115c:a1e0:49d6:b259:b7ac:b1b2:48f4/128";
        assert_eq!(
            denial(role, &node(&[OWN, service, legacy], &[OWN, service])),
            ""
        );
        assert_eq!(
            denial(role, &node(&["fd7a:115c:a1e0::1/128"], &[])),
            "Addresses: invalid node address, got fd7a:115c:a1e0::1"
        );
        assert_eq!(
            denial(role, &node(&[OWN], &["::/0"])),
            "AllowedIps: invalid address bits, expected 128, got 0"
        );
        assert_eq!(
            denial(role, &node(&[OWN], &["fd7a:115c:a1e0::1/128"])),
            "AllowedIps: invalid node address, got fd7a:115c:a1e0::1"
        );
        assert_eq!(
            denial(role, &node(&["10.0.0.1/32"], &[])),
            "Addresses: invalid address bits, expected 128, got 32"
        );
        assert!(denial(role, &node(&["junk"], &[])).starts_with("parse node address: "));
    }

    #[test]
    fn an_agent_opens_no_tunnels() {
        let request = Request {
            add_tunnel: Some(OTHER),
            ..Request::default()
        };
        assert_eq!(
            denial(Role::Agent(AGENT), &request),
            "agents cannot open tunnels"
        );
    }

    #[test]
    fn a_client_reaches_its_agent_only() {
        let role = Role::ClientOf(AGENT);
        assert_eq!(
            denial(
                role,
                &Request {
                    add_tunnel: Some(AGENT),
                    ..Request::default()
                }
            ),
            ""
        );
        assert_eq!(
            denial(
                role,
                &Request {
                    add_tunnel: Some(OTHER),
                    ..Request::default()
                }
            ),
            format!("invalid agent id, expected {AGENT}, got {OTHER}")
        );
        let ready = Request {
            ready_for_handshake: vec![AGENT],
            ..Request::default()
        };
        assert_eq!(
            denial(role, &ready),
            "clients may not send ready_for_handshake"
        );
        assert_eq!(
            denial(role, &node(&["fd7a:115c:a1e0::1/128"], &["::/0"])),
            ""
        );
        assert_eq!(
            denial(role, &node(&["fd7a::/48"], &[])),
            "invalid address bits, expected 128, got 48"
        );
    }

    #[test]
    fn a_user_needs_permission_for_each_tunnel() {
        let request = Request {
            add_tunnel: Some(OTHER),
            ..Request::default()
        };
        assert_eq!(
            denial(Role::User, &request),
            "workspace agent not found or you do not have permission"
        );
        assert_eq!(Role::User.authorize(&request, Permission::Granted), Ok(()));
    }
}
