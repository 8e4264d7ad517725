//! Looking at the network: relay latencies over HTTP, own addresses by STUN,
//! and the choice of the home region.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_http::Endpoint;
use adit_stun::TxId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::map::Map;
use super::relay_task::RelayConfig;

/// Budget of one check.
const BUDGET: Duration = Duration::from_secs(3);
/// Once one region answered, the others get this many times as long.
const PATIENCE_FACTOR: u32 = 3;
const PATIENCE_MIN: Duration = Duration::from_millis(60);
/// Latencies count for the choice of home this long.
const MEMORY: Duration = Duration::from_secs(300);
/// A new home must be faster by this much, and by a third.
const MIN_GAIN: Duration = Duration::from_millis(10);
/// STUN requests are repeated after this.
const STUN_RETRY: Duration = Duration::from_millis(400);
/// Requests to each server in one check.
const STUN_TRIES: u32 = 3;

/// Finished parts of a check.
#[derive(Debug)]
pub(crate) enum Finding {
    /// Latency checks are done.
    Latencies(Vec<(u32, Duration)>),
    /// STUN servers by address.
    StunServers(Vec<SocketAddr>),
}

/// State of the checks.
#[derive(Debug, Default)]
pub(crate) struct Netcheck {
    tasks: JoinSet<Finding>,
    history: HashMap<u32, VecDeque<(Instant, Duration)>>,
    servers: Vec<SocketAddr>,
    waiting: HashMap<TxId, SocketAddr>,
    answers: HashMap<SocketAddr, SocketAddr>,
    tries: u32,
    retry_at: Option<Instant>,
    /// Last check begun.
    pub(crate) last: Option<Instant>,
    /// Last check that measured relays.
    pub(crate) last_full: Option<Instant>,
    /// Any STUN server answered in the last check.
    pub(crate) udp: bool,
}

impl Netcheck {
    /// Begins a check; a full one measures all relays too.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        http: &adit_http::Client,
        map: &Map,
        full: bool,
        stun: bool,
    ) {
        self.tasks.abort_all();
        self.last = Some(now);
        if full {
            self.last_full = Some(now);
            let relays: Vec<_> = map.relays.values().cloned().collect();
            let http = http.clone();
            self.tasks
                .spawn(async move { Finding::Latencies(measure(http, relays).await) });
        }
        if stun && !map.stun.is_empty() {
            let names = map.stun.clone();
            self.tasks
                .spawn(async move { Finding::StunServers(resolve(names).await) });
        }
    }

    /// Next finished part.
    pub(crate) fn poll_finding(&mut self, cx: &mut std::task::Context<'_>) -> Option<Finding> {
        loop {
            match self.tasks.poll_join_next(cx) {
                std::task::Poll::Ready(Some(Ok(finding))) => return Some(finding),
                std::task::Poll::Ready(Some(Err(_))) => {}
                _ => return None,
            }
        }
    }

    /// Notes latencies.
    pub(crate) fn measured(&mut self, now: Instant, latencies: &[(u32, Duration)]) {
        for (region, latency) in latencies {
            self.history
                .entry(*region)
                .or_default()
                .push_back((now, *latency));
        }
        for list in self.history.values_mut() {
            while list
                .front()
                .is_some_and(|(at, _)| now.duration_since(*at) > MEMORY)
                || list.len() > 32
            {
                list.pop_front();
            }
        }
    }

    /// Latest latency of each region.
    pub(crate) fn latencies(&self) -> Vec<(u32, Duration)> {
        let mut out: Vec<_> = self
            .history
            .iter()
            .filter_map(|(id, list)| list.back().map(|(_, l)| (*id, *l)))
            .collect();
        out.sort_unstable();
        out
    }

    /// Chooses the home region after a measurement. Regions missing from
    /// `current` did not answer this time.
    pub(crate) fn choose_home(&self, old: u32, map: &Map, current: &[(u32, Duration)]) -> u32 {
        let best_of = |region: u32| {
            let best = self.history.get(&region)?.iter().map(|(_, l)| *l).min()?;
            Some(best.mul_f64(map.scores.get(&region).copied().unwrap_or(1.0)))
        };
        let mut scored: Vec<_> = current
            .iter()
            .filter(|(id, _)| map.relays.contains_key(id))
            .filter_map(|(id, _)| best_of(*id).map(|l| (l, *id)))
            .collect();
        scored.sort_unstable();
        let Some((latency, id)) = scored.first().copied() else {
            return if map.relays.contains_key(&old) {
                old
            } else {
                lowest(map)
            };
        };
        if let Some((old_latency, _)) = scored.iter().find(|(_, i)| *i == old)
            && (old_latency.saturating_sub(latency) < MIN_GAIN || latency > *old_latency * 2 / 3)
        {
            return old;
        }
        id
    }

    /// Begins to ask `servers` from the node's own sockets.
    pub(crate) fn ask(&mut self, now: Instant, servers: Vec<SocketAddr>) {
        self.servers = servers;
        self.waiting.clear();
        self.answers.clear();
        self.tries = 0;
        self.retry_at = Some(now);
        self.udp = false;
    }

    /// When [`requests`](Self::requests) has something to send.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    /// STUN requests due now.
    pub(crate) fn requests(&mut self, now: Instant) -> Vec<(SocketAddr, [u8; 40])> {
        if self.retry_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.tries += 1;
        self.retry_at = (self.tries < STUN_TRIES).then_some(now + STUN_RETRY);
        let silent: Vec<_> = self
            .servers
            .iter()
            .copied()
            .filter(|s| !self.answers.contains_key(s))
            .collect();
        if silent.is_empty() {
            self.retry_at = None;
        }
        silent
            .into_iter()
            .map(|server| {
                let tx = TxId::random();
                self.waiting.insert(tx, server);
                (server, adit_stun::binding_request(tx))
            })
            .collect()
    }

    /// A STUN response: our address as the server saw it, if it is an answer.
    pub(crate) fn response(&mut self, datagram: &[u8]) -> Option<SocketAddr> {
        let (tx, seen) = adit_stun::parse_binding_response(datagram).ok()?;
        let server = self.waiting.remove(&tx)?;
        let seen = SocketAddr::new(seen.ip().to_canonical(), seen.port());
        self.answers.insert(server, seen);
        self.udp = true;
        Some(seen)
    }

    /// Two IPv4 servers saw different addresses.
    pub(crate) fn mapping_varies(&self) -> bool {
        let mut v4 = self.answers.values().filter(|a| a.is_ipv4());
        v4.next()
            .is_some_and(|first| v4.any(|other| other != first))
    }
}

/// Without any measurement the choice must still be the same everywhere.
pub(crate) fn lowest(map: &Map) -> u32 {
    map.relays.keys().copied().min().unwrap_or(0)
}

async fn resolve(names: Vec<(String, u16)>) -> Vec<SocketAddr> {
    let mut lookups = JoinSet::new();
    for (host, port) in names {
        lookups.spawn(async move {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            let Ok(found) = found else {
                return Vec::new();
            };
            let all: Vec<_> = found.collect();
            let v4 = all.iter().find(|a| a.is_ipv4()).copied();
            let v6 = all.iter().find(|a| a.is_ipv6()).copied();
            v4.into_iter().chain(v6).collect()
        });
    }
    let mut out = Vec::new();
    let _ = tokio::time::timeout(BUDGET, async {
        while let Some(found) = lookups.join_next().await {
            out.extend(found.unwrap_or_default());
        }
    })
    .await;
    out
}

/// Asks all relays at once how far they are.
async fn measure(http: adit_http::Client, relays: Vec<RelayConfig>) -> Vec<(u32, Duration)> {
    let mut checks = JoinSet::new();
    for relay in relays {
        let http = http.clone();
        checks.spawn(async move {
            for endpoint in &relay.endpoints {
                if let Some(latency) = latency(&http, endpoint).await {
                    return Some((relay.region, latency));
                }
            }
            None
        });
    }
    let begun = tokio::time::Instant::now();
    let mut deadline = begun + BUDGET;
    let mut out = Vec::new();
    while let Ok(Some(done)) = tokio::time::timeout_at(deadline, checks.join_next()).await {
        if let Ok(Some(found)) = done {
            if out.is_empty() {
                let so_far = begun.elapsed();
                deadline = deadline.min(begun + so_far * PATIENCE_FACTOR + PATIENCE_MIN);
            }
            out.push(found);
        }
    }
    out
}

/// Time from request to first byte of the answer, on a connection of its own.
async fn latency(http: &adit_http::Client, endpoint: &Endpoint) -> Option<Duration> {
    let mut io = http.connect_io(endpoint).await.ok()?;
    let request = format!(
        "GET /derp/latency-check HTTP/1.1\r\nHost: {}\r\nUser-Agent: adit/{}\r\nConnection: close\r\n\r\n",
        endpoint.host_header(),
        env!("CARGO_PKG_VERSION"),
    );
    let sent = Instant::now();
    io.write_all(request.as_bytes()).await.ok()?;
    io.flush().await.ok()?;
    let mut head = [0; 12];
    io.read_exact(&mut head).await.ok()?;
    let took = sent.elapsed();
    (head.starts_with(b"HTTP/1.") && head[9] == b'2').then_some(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ids: &[u32]) -> Map {
        let relays = ids
            .iter()
            .map(|id| {
                (
                    *id,
                    RelayConfig {
                        region: *id,
                        endpoints: Vec::new(),
                    },
                )
            })
            .collect();
        Map {
            relays,
            ..Map::default()
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn home_is_the_fastest_region_and_sticks() {
        let map = map(&[1, 2, 3]);
        let mut check = Netcheck::default();
        let now = Instant::now();
        let found = [(1, ms(50)), (2, ms(20))];
        check.measured(now, &found);
        assert_eq!(check.choose_home(0, &map, &found), 2);
        assert_eq!(
            check.choose_home(1, &map, &found),
            2,
            "more than a third faster"
        );
        let found = [(1, ms(24)), (2, ms(20))];
        let mut check = Netcheck::default();
        check.measured(now, &found);
        assert_eq!(check.choose_home(1, &map, &found), 1, "not worth a change");
        assert_eq!(
            check.choose_home(3, &map, &found),
            2,
            "the old home is silent"
        );
        assert_eq!(check.choose_home(3, &map, &[]), 3, "nothing measured: stay");
        assert_eq!(check.choose_home(0, &map, &[]), 1);
        assert_eq!(check.choose_home(9, &map, &[]), 1, "the old home is gone");
    }

    #[test]
    fn scores_weigh() {
        let mut map = map(&[1, 2]);
        map.scores.insert(2, 10.0);
        let mut check = Netcheck::default();
        let found = [(1, ms(50)), (2, ms(20))];
        check.measured(Instant::now(), &found);
        assert_eq!(check.choose_home(0, &map, &found), 1);
    }

    #[test]
    fn stun_answers_are_matched_and_compared() {
        let mut check = Netcheck::default();
        let now = Instant::now();
        let servers: Vec<SocketAddr> =
            vec![([192, 0, 2, 1], 3478).into(), ([192, 0, 2, 2], 3478).into()];
        check.ask(now, servers);
        let requests = check.requests(now);
        assert_eq!(requests.len(), 2);
        for (n, (_, request)) in requests.iter().enumerate() {
            let Ok(tx) = adit_stun::parse_binding_request(request) else {
                panic!("not a request")
            };
            let seen: SocketAddr = ([203, 0, 113, 7], 5000 + n as u16).into();
            let response = adit_stun::binding_response(tx, seen);
            assert_eq!(check.response(&response), Some(seen));
            assert_eq!(check.response(&response), None, "only once");
        }
        assert!(check.mapping_varies() && check.udp);
        assert!(check.requests(now + STUN_RETRY).is_empty());
        assert_eq!(check.poll_timeout(), None);
    }
}
