//! Every port nobody serves in the tunnel leads to the same port on loopback.

mod udp;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use adit_engine::{PendingConn, RestListener};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

pub use udp::run_udp;

/// A connection to loopback that takes longer than this will not come.
const DIAL: Duration = Duration::from_secs(5);
/// Most connections forwarded at once; more are refused.
const MOST: usize = 4_096;
/// Bytes under way per direction.
const BUFFER: usize = 32 * 1_024;

/// Forwards TCP until the tunnel closes. Dropping it ends all connections.
pub async fn run_tcp(mut listener: RestListener) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            pending = listener.recv() => match pending {
                None => break,
                Some(pending) if running.len() >= MOST => {
                    tracing::warn!(port = pending.port(), "too many forwarded connections");
                    pending.reject();
                }
                Some(pending) => {
                    running.spawn(forward(pending));
                }
            },
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
    }
}

/// The peer's handshake is completed only once something answered on
/// loopback; otherwise it sees "connection refused".
async fn forward(pending: PendingConn) {
    let port = pending.port();
    let mut local = match dial(port).await {
        Ok(local) => local,
        Err(error) => {
            tracing::debug!(port, %error, "nothing answers on loopback");
            pending.reject();
            return;
        }
    };
    let mut remote = match pending.accept().await {
        Ok(remote) => remote,
        Err(error) => {
            tracing::debug!(port, %error, "the peer gave up");
            return;
        }
    };
    let copied = tokio::io::copy_bidirectional_with_sizes(&mut remote, &mut local, BUFFER, BUFFER);
    if let Err(error) = copied.await {
        tracing::debug!(port, %error, "forwarded connection ended");
    }
}

/// Connects to loopback: IPv4 first, then IPv6.
async fn dial(port: u16) -> io::Result<TcpStream> {
    let attempt = async {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => Ok(stream),
            Err(first) => TcpStream::connect((Ipv6Addr::LOCALHOST, port))
                .await
                .map_err(|_| first),
        }
    };
    let stream = match tokio::time::timeout(DIAL, attempt).await {
        Ok(stream) => stream?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reaches_both_families() {
        let four = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let port = four.local_addr().expect("an address").port();
        assert!(dial(port).await.is_ok());
        drop(four);
        assert!(dial(port).await.is_err());
        if let Ok(six) = tokio::net::TcpListener::bind("[::1]:0").await {
            let port = six.local_addr().expect("an address").port();
            assert!(dial(port).await.is_ok());
        }
    }
}
