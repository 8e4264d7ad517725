//! Finding, choosing and doubting the direct path to one peer.
//!
//! A candidate address becomes the path when a ping over it is answered. While
//! traffic flows the path has to keep proving itself: by packets that arrive
//! over UDP and by pongs. When it stays silent for longer than its own
//! round-trip time explains, packets go over the relay as well, and after
//! [`GIVE_UP`] over the relay alone until a candidate answers again.

mod probing;
mod size;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_disco::TxId;
use rand::Rng;

use crate::score::{Measured, better};
use crate::types::{NotDirect, Via};
use probing::spacing;
pub(crate) use size::BASE_MTU;
use size::Size;

/// A peer counts as active this long after the last packet sent to it.
const ACTIVE: Duration = Duration::from_secs(45);
/// Pings over the path in use while active; more often while data flows.
const HEARTBEAT: Duration = Duration::from_secs(3);
const BUSY_HEARTBEAT: Duration = Duration::from_secs(1);
/// A path is believed this long after a pong.
const TRUST: Duration = Duration::from_millis(6500);
/// All candidates are tried again this often, to find a better path.
const FULL_PROBE: Duration = Duration::from_secs(60);
/// Paths at least this fast are good enough not to look further.
const GOOD_ENOUGH: Duration = Duration::from_millis(5);
/// Silence in doubt after which the path is given up.
const GIVE_UP: Duration = Duration::from_secs(2);
/// Bounds of the time a path may stay silent after a packet was sent.
const SILENCE_MIN: Duration = Duration::from_millis(150);
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// Silence after which a packet means that the way was shut and is open again.
const LONG_SILENCE: Duration = Duration::from_secs(1);
/// Most candidates kept.
const MAX_CANDIDATES: usize = 100;

/// What the owner must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a disco ping of `len` bytes.
    Ping {
        tx: TxId,
        to: SocketAddr,
        len: usize,
    },
    /// Send one through the peer's relay, noted as [`Paths::note_ping`] does.
    PingRelay { len: usize },
    /// Inner packets may have this size.
    Mtu(usize),
    /// Send our endpoints through the peer's relay.
    CallMeMaybe,
    /// The path changed, or packets begin to go over the relay as well.
    Changed(Option<SocketAddr>),
}

#[derive(Debug, Default)]
struct Candidate {
    /// Announced in the peer's node.
    announced: bool,
    /// Named in its last call-me-maybe.
    called: bool,
    /// It pinged us from there.
    seen: Option<Instant>,
    pinged: Option<Instant>,
    tries: usize,
}

#[derive(Debug)]
struct Best {
    addr: SocketAddr,
    srtt: Duration,
    rttvar: Duration,
    trust_until: Instant,
    /// Last packet that came over UDP from the peer.
    heard: Instant,
    /// Last one that came from this very address.
    heard_there: Instant,
    /// First data sent since something came back.
    unanswered: Option<Instant>,
    /// Oldest ping without pong.
    ping_out: Option<Instant>,
    last_ping: Instant,
    doubt: Option<Instant>,
}

impl Best {
    /// Longest plausible wait for an answer.
    fn patience(&self) -> Duration {
        (self.srtt + self.rttvar * 4 + Duration::from_millis(20)).clamp(SILENCE_MIN, SILENCE_MAX)
    }
}

/// Why a ping was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    to: Via,
    at: Instant,
    len: usize,
    token: Option<u64>,
}

/// A pong that belonged to one of our pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) via: Via,
    pub(crate) rtt: Duration,
    pub(crate) token: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Paths {
    candidates: BTreeMap<SocketAddr, Candidate>,
    best: Option<Best>,
    /// What the direct path carries.
    size: Size,
    /// What the way through the relay carries.
    relayed: Size,
    /// MTU that the owner was told last.
    told_mtu: usize,
    pings: HashMap<TxId, Sent>,
    last_send: Option<Instant>,
    /// First data sent since anything was heard, over whichever path.
    waiting: Option<Instant>,
    last_call: Option<Instant>,
    full_probe: Option<Instant>,
    lost: bool,
    blocked: bool,
    actions: VecDeque<Action>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            candidates: BTreeMap::new(),
            best: None,
            size: Size::default(),
            relayed: Size::relayed(),
            told_mtu: BASE_MTU,
            pings: HashMap::new(),
            last_send: None,
            waiting: None,
            last_call: None,
            full_probe: None,
            lost: false,
            blocked: false,
            actions: VecDeque::new(),
        }
    }
}

impl Paths {
    /// No action waits.
    pub(crate) fn is_quiet(&self) -> bool {
        self.actions.is_empty()
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Candidates and pings kept.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.candidates.len(), self.pings.len())
    }

    pub(crate) fn direct(&self) -> Option<SocketAddr> {
        self.best.as_ref().map(|b| b.addr)
    }

    /// Largest inner packet that fits. Through the relay goes whatever the
    /// direct path was proven to carry, as long as that is in doubt.
    pub(crate) fn mtu(&self) -> usize {
        match &self.best {
            Some(_) => self.size.mtu(),
            None => self.relayed.mtu(),
        }
    }

    /// Tells the owner of another MTU.
    fn tell_mtu(&mut self) {
        let mtu = self.mtu();
        if std::mem::replace(&mut self.told_mtu, mtu) != mtu {
            self.actions.push_back(Action::Mtu(mtu));
        }
    }

    pub(crate) fn latency(&self) -> Option<Duration> {
        self.best.as_ref().map(|b| b.srtt)
    }

    pub(crate) fn active(&self, now: Instant) -> bool {
        self.last_send
            .is_some_and(|t| now.duration_since(t) < ACTIVE)
    }

    pub(crate) fn not_direct(&self, now: Instant) -> Option<NotDirect> {
        if self.best.is_some() {
            None
        } else if self.blocked {
            Some(NotDirect::Blocked)
        } else if self.candidates.is_empty() {
            Some(NotDirect::PeerHasNoEndpoints)
        } else if self.lost {
            Some(NotDirect::Lost)
        } else if self.active(now) {
            Some(NotDirect::NoAnswer)
        } else {
            Some(NotDirect::Idle)
        }
    }

    /// The way for a packet sent now: direct address, and whether the relay is
    /// used too.
    pub(crate) fn route(&self, now: Instant) -> (Option<SocketAddr>, bool) {
        match &self.best {
            Some(best) => (
                Some(best.addr),
                best.doubt.is_some() || now >= best.trust_until,
            ),
            None => (None, true),
        }
    }

    /// Data (not an empty keepalive) goes out now.
    pub(crate) fn sent(&mut self, now: Instant, rng: &mut impl Rng) {
        let woke = !self.active(now);
        self.last_send = Some(now);
        self.waiting.get_or_insert(now);
        match &mut self.best {
            Some(best) => {
                if best.unanswered.is_none() {
                    best.unanswered = Some(now);
                }
                let addr = best.addr;
                if now >= best.trust_until && best.ping_out.is_none() {
                    self.discover(now, false, rng);
                }
                for len in self.size.sent(now) {
                    self.ping_sized(now, addr, *len, rng);
                }
            }
            None => {
                for len in self.relayed.sent(now) {
                    self.actions.push_back(Action::PingRelay { len: *len });
                }
                if woke {
                    self.discover(now, true, rng);
                }
            }
        }
    }

    /// A keepalive goes out: proves an aged path without a full search.
    pub(crate) fn sent_keepalive(&mut self, now: Instant, rng: &mut impl Rng) {
        if let Some(best) = &self.best
            && now >= best.trust_until
            && best.ping_out.is_none()
        {
            self.ping_best(now, rng);
        }
    }

    /// An authentic packet arrived over any path. After a long silence that
    /// says that the way is open again.
    pub(crate) fn heard(&mut self, now: Instant) {
        if let Some(since) = self.waiting.take()
            && now.duration_since(since) >= LONG_SILENCE
        {
            self.actions.push_back(Action::Changed(self.direct()));
        }
    }

    /// The relay works again: whether the peer should be told, because packets
    /// go that way.
    pub(crate) fn relay_up(&mut self, now: Instant) -> bool {
        self.relay_changed();
        let matters = self.active(now) && !self.trusted(now);
        if matters {
            self.actions.push_back(Action::Changed(self.direct()));
        }
        matters
    }

    /// Packets go through another relay, or a new connection to it: nothing is
    /// known of what that carries.
    pub(crate) fn relay_changed(&mut self) {
        self.relayed.restart();
        self.tell_mtu();
    }

    /// An authentic WireGuard packet arrived over UDP from `addr`.
    pub(crate) fn heard_udp(&mut self, now: Instant, addr: SocketAddr, rng: &mut impl Rng) {
        if self.best.is_none() && !self.blocked && usable(addr) {
            // The peer believes in this path; find out whether it works back.
            self.candidates.entry(addr).or_default().seen = Some(now);
            if self.due(now, addr) {
                self.ping(now, addr, rng);
            }
        }
        let Some(best) = &mut self.best else {
            return;
        };
        best.heard = now;
        best.unanswered = None;
        if addr == best.addr {
            best.heard_there = now;
            let pong_may_come = best
                .ping_out
                .is_none_or(|t| now.duration_since(t) < best.patience() * 3);
            if best.doubt.is_some() && pong_may_come {
                best.doubt = None;
            }
        } else if best.ping_out.is_none()
            && now >= best.heard_there + best.patience()
            && now >= best.last_ping + best.patience()
        {
            // The peer sends from elsewhere: it moved, or its translator gave
            // it another address. Or it just prefers another path.
            self.candidates.entry(addr).or_default().seen = Some(now);
            self.ping_best(now, rng);
            if self.due(now, addr) {
                self.ping(now, addr, rng);
            }
        }
    }

    /// An authentic data packet arrived over the relay. While our path is
    /// direct that says that the peer does not believe in it any more.
    pub(crate) fn heard_relay(&mut self, now: Instant, rng: &mut impl Rng) {
        if let Some(best) = &self.best
            && best.doubt.is_none()
            && now.duration_since(best.heard) > best.patience()
        {
            self.begin_doubt(now, rng);
        }
    }

    /// Sending to `addr` failed in a way that says it cannot be reached.
    pub(crate) fn send_failed(&mut self, now: Instant, addr: SocketAddr) {
        if self.best.as_ref().is_some_and(|b| b.addr == addr) {
            self.drop_best(now);
        }
    }

    /// Own network changed: nothing known about paths holds.
    pub(crate) fn link_changed(&mut self, now: Instant, rng: &mut impl Rng) {
        if let Some(best) = &mut self.best {
            best.trust_until = now;
        }
        if self.active(now) {
            if self.best.is_some() {
                self.begin_doubt(now, rng);
            } else {
                self.discover(now, true, rng);
            }
        }
    }

    /// The path in use may be dead: the relay helps out, and whichever
    /// candidate answers first takes over.
    fn begin_doubt(&mut self, now: Instant, rng: &mut impl Rng) {
        if let Some(best) = &mut self.best {
            best.doubt = Some(now);
            self.actions.push_back(Action::Changed(Some(best.addr)));
        }
        self.discover(now, true, rng);
    }

    /// Own endpoints changed: worth telling a peer that is not reached yet.
    pub(crate) fn endpoints_changed(&mut self, now: Instant) {
        if self.active(now) && !self.trusted(now) && !self.blocked {
            self.last_call = Some(now);
            self.actions.push_back(Action::CallMeMaybe);
        }
    }

    /// Starts with direct paths switched off.
    pub(crate) fn block(&mut self) {
        self.blocked = true;
    }

    pub(crate) fn set_blocked(&mut self, now: Instant, blocked: bool, rng: &mut impl Rng) {
        if self.blocked == blocked {
            return;
        }
        self.blocked = blocked;
        if blocked {
            self.pings.retain(|_, p| matches!(p.to, Via::Derp { .. }));
            if self.best.take().is_some() {
                self.forget_size();
                self.actions.push_back(Action::Changed(None));
            }
            self.lost = false;
        } else if self.active(now) {
            self.reset_tries();
            self.discover(now, true, rng);
        }
    }

    /// Addresses in the peer's node message.
    pub(crate) fn set_announced(
        &mut self,
        now: Instant,
        endpoints: &[SocketAddr],
        rng: &mut impl Rng,
    ) {
        for candidate in self.candidates.values_mut() {
            candidate.announced = false;
        }
        let mut fresh = false;
        for addr in endpoints
            .iter()
            .filter(|a| usable(**a))
            .take(MAX_CANDIDATES)
        {
            let candidate = self.candidates.entry(*addr).or_insert_with(|| {
                fresh = true;
                Candidate::default()
            });
            candidate.announced = true;
        }
        self.prune(now);
        if fresh && self.active(now) && !self.trusted(now) {
            self.discover(now, true, rng);
        }
    }

    /// The peer asks to be pinged at `endpoints` and nowhere else.
    pub(crate) fn called(&mut self, now: Instant, endpoints: &[SocketAddr], rng: &mut impl Rng) {
        if self.blocked {
            return;
        }
        let mut revoked = Vec::new();
        for (addr, candidate) in &mut self.candidates {
            if std::mem::take(&mut candidate.called) {
                revoked.push(*addr);
            }
        }
        for addr in endpoints
            .iter()
            .filter(|a| usable(**a))
            .take(MAX_CANDIDATES)
        {
            self.candidates.entry(*addr).or_default().called = true;
        }
        if let Some(best) = &mut self.best
            && revoked.contains(&best.addr)
            && self
                .candidates
                .get(&best.addr)
                .is_some_and(|c| !c.called && !c.announced)
        {
            best.doubt.get_or_insert(now);
            best.trust_until = now;
        }
        self.prune(now);
        self.reset_tries();
        let targets: Vec<_> = self.candidates.keys().copied().collect();
        for addr in targets {
            self.ping(now, addr, rng);
        }
    }

    /// A ping of the peer arrived from `addr` over UDP.
    pub(crate) fn pinged_from(&mut self, now: Instant, addr: SocketAddr, rng: &mut impl Rng) {
        if self.blocked || !usable(addr) {
            return;
        }
        let full = self.candidates.len() >= MAX_CANDIDATES;
        let fresh = !self.candidates.contains_key(&addr);
        if fresh && full {
            self.prune(now);
            if self.candidates.len() >= MAX_CANDIDATES {
                return;
            }
        }
        self.candidates.entry(addr).or_default().seen = Some(now);
        let knock = fresh || !self.trusted(now);
        if knock && self.active(now) && self.due(now, addr) {
            self.ping(now, addr, rng);
        }
    }

    /// A pong of `len` bytes arrived. `None` if it answers no ping of ours.
    pub(crate) fn ponged(&mut self, now: Instant, tx: TxId, len: usize) -> Option<Answered> {
        let ping = self.pings.remove(&tx)?;
        let rtt = now.duration_since(ping.at);
        match ping.to {
            Via::Udp(addr) if !self.blocked => {
                self.proved(now, Measured { addr, rtt });
                if self.direct() == Some(addr) {
                    self.size.ponged(ping.at, ping.len, len);
                }
            }
            Via::Udp(_) => {}
            Via::Derp { .. } => self.relayed.ponged(ping.at, ping.len, len),
        }
        if self.size.is_foreign() || self.relayed.is_foreign() {
            self.size.set_foreign();
            self.relayed.set_foreign();
        }
        self.tell_mtu();
        Some(Answered {
            via: ping.to,
            rtt,
            token: ping.token,
        })
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.blocked || !self.active(now) {
            return None;
        }
        let next = match &self.best {
            Some(best) => {
                let mut at = best.last_ping + self.heartbeat(now);
                if let Some(t) = best.unanswered
                    && best.ping_out.is_none()
                {
                    at = at.min((t + best.patience()).max(best.last_ping + best.patience()));
                }
                if best.ping_out.is_some() || best.doubt.is_some() {
                    at = at.min(best.last_ping + best.patience());
                }
                if let Some(t) = best.doubt {
                    at = at.min(t + GIVE_UP);
                }
                if let Some(t) = self.size.deadline(best.patience()) {
                    at = at.min(t);
                }
                if best.srtt > GOOD_ENOUGH && self.candidates.len() > 1 {
                    at = at.min(self.full_probe.map_or(now, |t| t + FULL_PROBE));
                }
                at
            }
            None => self
                .candidates
                .values()
                .filter_map(|c| c.pinged.map(|t| t + spacing(c.tries)))
                .min()?,
        };
        Some(next)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.blocked || !self.active(now) {
            return;
        }
        let heartbeat = self.heartbeat(now);
        let Some(best) = &mut self.best else {
            self.discover(now, false, rng);
            return;
        };
        let patience = best.patience();
        if self.size.deadline(patience).is_some_and(|t| now >= t)
            && let Some(len) = self.size.long()
        {
            // Short pings get through, long ones do not.
            self.too_long(now, len);
        }
        let Some(best) = &mut self.best else {
            return;
        };
        if let Some(doubt) = best.doubt
            && now >= doubt + GIVE_UP
        {
            self.drop_best(now);
            self.discover(now, true, rng);
            return;
        }
        // A ping that had its time without an answer, and nothing else heard.
        if let Some(out) = best.ping_out
            && now >= out + patience
            && (best.heard_there < out || now >= out + patience * 3)
            && best.doubt.is_none()
        {
            self.begin_doubt(now, rng);
            return;
        }
        let silent = best.unanswered.is_some_and(|t| now >= t + patience);
        let open = best.ping_out.is_some() || best.doubt.is_some();
        let step = if silent || open { patience } else { heartbeat };
        if now >= best.last_ping + step {
            self.ping_best(now, rng);
        }
        if self.best.as_ref().is_some_and(|b| b.srtt > GOOD_ENOUGH)
            && self.full_probe.is_none_or(|t| now >= t + FULL_PROBE)
        {
            self.discover(now, false, rng);
        }
    }

    fn heartbeat(&self, now: Instant) -> Duration {
        match self.last_send {
            Some(t) if now.duration_since(t) < BUSY_HEARTBEAT => BUSY_HEARTBEAT,
            _ => HEARTBEAT,
        }
    }

    fn trusted(&self, now: Instant) -> bool {
        self.best
            .as_ref()
            .is_some_and(|b| now < b.trust_until && b.doubt.is_none())
    }

    fn proved(&mut self, now: Instant, new: Measured) {
        self.lost = false;
        if let Some(best) = &mut self.best
            && best.addr == new.addr
        {
            let diff = best.srtt.abs_diff(new.rtt);
            best.rttvar = (best.rttvar * 3 + diff) / 4;
            best.srtt = (best.srtt * 7 + new.rtt) / 8;
            best.trust_until = now + TRUST;
            best.heard = now;
            best.heard_there = now;
            best.unanswered = None;
            best.ping_out = None;
            best.doubt = None;
            return;
        }
        let replace = match &self.best {
            None => true,
            Some(best) if best.doubt.is_some() || now >= best.trust_until => true,
            Some(best) => better(
                new,
                Measured {
                    addr: best.addr,
                    rtt: best.srtt,
                },
            ),
        };
        if let Some(candidate) = self.candidates.get_mut(&new.addr) {
            candidate.tries = 0;
        }
        if replace {
            self.candidates.entry(new.addr).or_default().seen = Some(now);
            self.best = Some(Best {
                addr: new.addr,
                srtt: new.rtt,
                rttvar: new.rtt / 2,
                trust_until: now + TRUST,
                heard: now,
                heard_there: now,
                unanswered: None,
                ping_out: None,
                last_ping: now,
                doubt: None,
            });
            self.actions.push_back(Action::Changed(Some(new.addr)));
            self.forget_size();
        }
    }

    /// Datagrams of `len` bytes do not fit the path in use.
    pub(crate) fn too_long(&mut self, now: Instant, len: usize) {
        if self.size.too_long(now, len) {
            self.tell_mtu();
            // What was sent in that size is lost: repeat it.
            self.actions.push_back(Action::Changed(self.direct()));
        }
    }

    /// Another path is in use: nothing is known of what it carries, unless it
    /// is the relay's.
    fn forget_size(&mut self) {
        self.size.restart();
        self.tell_mtu();
    }

    fn drop_best(&mut self, now: Instant) {
        if self.best.take().is_some() {
            self.lost = true;
            self.reset_tries();
            self.prune(now);
            self.forget_size();
            self.actions.push_back(Action::Changed(None));
        }
    }
}

/// Addresses that can lead out of here: no overlay, no link-local, no
/// multicast.
fn usable(addr: SocketAddr) -> bool {
    if addr.port() == 0 || addr.ip().is_unspecified() || addr.ip().is_multicast() {
        return false;
    }
    match addr.ip() {
        IpAddr::V4(ip) => !ip.is_broadcast(),
        IpAddr::V6(ip) => {
            !ip.is_unicast_link_local()
                && !adit_keys::addr::is_service_ip(&ip)
                && !is_tailnet(&ip.octets())
        }
    }
}

fn is_tailnet(octets: &[u8; 16]) -> bool {
    octets.starts_with(&adit_keys::addr::TAILNET_PREFIX)
}
