//! UDP: one loopback socket per flow.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use adit_engine::{Datagram, UdpRest, UdpSender};
use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A flow without datagrams for this long is forgotten.
const IDLE: Duration = Duration::from_secs(120);
/// Most flows at once; datagrams of further ones are dropped.
const MOST: usize = 1_024;
/// Datagrams waiting per flow; newer ones are dropped.
const QUEUE: usize = 64;
/// Largest answer that fits a tunnel packet, in bytes.
const LARGEST: usize = adit_engine::MAX_DATAGRAM;

type Flow = (SocketAddrV6, SocketAddrV6);

/// Forwards UDP until the tunnel closes. Dropping it ends all flows.
pub async fn run_udp(mut rest: UdpRest) {
    let sender = rest.sender();
    let mut flows: HashMap<Flow, mpsc::Sender<Bytes>> = HashMap::new();
    let mut running: JoinSet<Flow> = JoinSet::new();
    loop {
        tokio::select! {
            datagram = rest.recv() => {
                let Some(datagram) = datagram else { break };
                let key = (datagram.local, datagram.remote);
                if !flows.contains_key(&key) {
                    if flows.len() >= MOST {
                        tracing::debug!("too many UDP flows");
                        continue;
                    }
                    let (to_flow, inbox) = mpsc::channel(QUEUE);
                    flows.insert(key, to_flow);
                    let sender = sender.clone();
                    running.spawn(async move {
                        if let Err(error) = run_flow(key, inbox, &sender).await {
                            tracing::debug!(port = key.0.port(), %error, "UDP flow ended");
                        }
                        key
                    });
                }
                if let Some(flow) = flows.get(&key) {
                    // A full queue drops the newest datagram.
                    let _ = flow.try_send(datagram.data);
                }
            }
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Ok(key) = ended {
                    flows.remove(&key);
                }
            }
        }
    }
}

async fn run_flow(
    (local, remote): Flow,
    mut inbox: mpsc::Receiver<Bytes>,
    sender: &UdpSender,
) -> io::Result<()> {
    let reply = |data: Bytes| {
        let _ = sender.send(Datagram {
            local,
            remote,
            data,
        });
    };
    exchange(local.port(), remote.port(), &mut inbox, reply).await
}

/// Carries one flow to loopback `port` until it is idle. IPv4 is tried first;
/// if nothing listens there, IPv6.
async fn exchange(
    port: u16,
    source: u16,
    inbox: &mut mpsc::Receiver<Bytes>,
    reply: impl Fn(Bytes),
) -> io::Result<()> {
    let mut socket = connect(Ipv4Addr::LOCALHOST.into(), source, port).await?;
    let mut on_ipv4 = true;
    let mut answered = false;
    let mut last = Bytes::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let result = tokio::select! {
            data = inbox.recv() => {
                let Some(data) = data else { return Ok(()) };
                if !answered {
                    last = data.clone();
                }
                socket.send(&data).await.map(|_| ())
            }
            received = socket.recv(&mut buffer) => received.map(|n| {
                answered = true;
                last = Bytes::new();
                reply(Bytes::copy_from_slice(&buffer[..n]));
            }),
            () = tokio::time::sleep(IDLE) => return Ok(()),
        };
        match result {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                // Told by ICMP about an earlier datagram.
                if on_ipv4
                    && !answered
                    && let Ok(other) = connect(Ipv6Addr::LOCALHOST.into(), source, port).await
                {
                    on_ipv4 = false;
                    socket = other;
                    let _ = socket.send(&last).await;
                }
            }
            Err(e) => return Err(e),
            Ok(()) => {}
        }
    }
}

/// The peer's source port is kept if it is free.
async fn connect(to: IpAddr, source: u16, port: u16) -> io::Result<UdpSocket> {
    let socket = match UdpSocket::bind(SocketAddr::new(to, source)).await {
        Ok(socket) => socket,
        Err(_) => UdpSocket::bind(SocketAddr::new(to, 0)).await?,
    };
    socket.connect(SocketAddr::new(to, port)).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo_once(bind: &str) -> Option<Bytes> {
        let server = UdpSocket::bind(bind).await.ok()?;
        let port = server.local_addr().ok()?.port();
        let (to_flow, mut inbox) = mpsc::channel(4);
        let (answers, mut answered) = mpsc::channel(4);
        let flow = exchange(port, 0, &mut inbox, move |data| {
            let _ = answers.try_send(data);
        });
        let talk = async {
            to_flow.send(Bytes::from_static(b"ping")).await.ok()?;
            let mut buffer = [0; 64];
            let (n, from) = server.recv_from(&mut buffer).await.ok()?;
            server.send_to(&buffer[..n], from).await.ok()?;
            answered.recv().await
        };
        tokio::select! {
            _ = flow => None,
            answer = tokio::time::timeout(Duration::from_secs(5), talk) => answer.ok().flatten(),
        }
    }

    #[tokio::test]
    async fn carries_datagrams_both_ways() {
        assert_eq!(
            echo_once("127.0.0.1:0").await.as_deref(),
            Some(&b"ping"[..])
        );
    }

    #[tokio::test]
    async fn falls_back_to_ipv6() {
        if UdpSocket::bind("[::1]:0").await.is_ok() {
            assert_eq!(echo_once("[::1]:0").await.as_deref(), Some(&b"ping"[..]));
        }
    }
}
