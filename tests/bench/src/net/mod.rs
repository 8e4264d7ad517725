//! Two network namespaces and what joins them.

mod echo;
mod namespace;
mod tun;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};

pub(crate) use namespace::{Namespace, kill_all, remove, with_prefix};

use crate::{
    counters::Counters,
    link::{Link, Settings},
};

/// Address of the client's side.
pub(crate) const NEAR: &str = "10.77.0.1";
/// Address of the client's side after it moved.
pub(crate) const NEAR_MOVED: &str = "10.77.0.3";
/// Address of the server's and the agent's side.
pub(crate) const FAR: &str = "10.77.0.2";
/// Bits of the network part of these.
const PREFIX: &str = "/24";
/// Name of the device in each namespace.
pub(crate) const DEVICE: &str = "bench0";

/// Packets that may wait in a TUN device for the link to take them: it takes
/// them at once, so that its own queue is the one that counts.
const TUN_QUEUE: &str = "10000";

/// How the sides are joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Path {
    /// A pair of virtual Ethernet devices: as fast as the machine.
    Veth,
    /// A link with this from near to far and back.
    Link(Settings),
}

/// Two joined namespaces. Dropping it ends everything in them.
#[derive(Debug)]
pub(crate) struct Net {
    // In this order: the link's devices lie in the namespaces.
    link: Option<Link>,
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
}

/// What the names of all namespaces of this run begin with.
pub(crate) fn prefix(pid: u32) -> String {
    format!("adit-bench-{pid}-")
}

impl Net {
    /// Makes it.
    pub(crate) fn new(path: Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}{number}", prefix(std::process::id()));
        let near = Namespace::create(&format!("{prefix}-near"))?;
        let far = Namespace::create(&format!("{prefix}-far"))?;
        let link = match path {
            Path::Veth => {
                near.ip(&[
                    "link",
                    "add",
                    DEVICE,
                    "type",
                    "veth",
                    "peer",
                    "name",
                    DEVICE,
                    "netns",
                    far.name(),
                ])?;
                None
            }
            Path::Link(settings) => {
                let open = |side: &Namespace| {
                    side.enter(|| tun::open(DEVICE))?
                        .context("make a TUN device")
                };
                let devices = [open(&near)?, open(&far)?];
                Some(Link::start(devices, [settings; 2], 1)?)
            }
        };
        for (side, address) in [(&near, NEAR), (&far, FAR)] {
            // Removing an address leaves later ones of the same network alone.
            side.sysctl("net.ipv4.conf.all.promote_secondaries", "1")?;
            side.sysctl(&format!("net.ipv6.conf.{DEVICE}.disable_ipv6"), "1")?;
            if link.is_some() {
                side.ip(&["link", "set", DEVICE, "txqueuelen", TUN_QUEUE])?;
            }
            side.ip(&[
                "address",
                "add",
                &format!("{address}{PREFIX}"),
                "dev",
                DEVICE,
            ])?;
            side.ip(&["link", "set", DEVICE, "up"])?;
            side.ip(&["route", "add", "default", "dev", DEVICE])?;
        }
        let net = Self { link, near, far };
        // Devices take a moment to come up; an answer says that they have.
        net.ping(1)?;
        Ok(net)
    }

    /// Gives the link other settings, both ways.
    pub(crate) fn set(&self, settings: Settings) {
        if let Some(link) = &self.link {
            link.set([settings; 2]);
        }
    }

    /// Round-trip times of small datagrams from near to far.
    pub(crate) fn ping(&self, count: usize) -> Result<Vec<Duration>> {
        echo::measure(&self.near, &self.far, count)
    }

    /// Gives the near side another address.
    pub(crate) fn move_near(&self, from: &str, to: &str) -> Result<()> {
        self.near
            .ip(&["address", "add", &format!("{to}{PREFIX}"), "dev", DEVICE])?;
        self.near
            .ip(&["address", "del", &format!("{from}{PREFIX}"), "dev", DEVICE])?;
        // Removing the address a route prefers takes the route along.
        self.near
            .ip(&["route", "replace", "default", "dev", DEVICE])
    }

    /// What both sides and the link have counted so far.
    pub(crate) fn counters(&self) -> Result<Counters> {
        let mut sum = Counters::default();
        for side in [&self.near, &self.far] {
            sum += Counters::parse(&side.proc_net("snmp")?, &side.proc_net("dev")?, DEVICE);
        }
        if let Some(link) = &self.link {
            for direction in link.counters() {
                sum.link_lost += direction.lost;
                sum.link_overflowed += direction.overflowed;
            }
            sum.link_late += link.late();
            let [_, back] = link.counters();
            sum.link_bytes_to_near = back.bytes;
        }
        Ok(sum)
    }
}
