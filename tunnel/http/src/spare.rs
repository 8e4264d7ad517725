//! Connections dialed before they are needed.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::{BoxIo, Endpoint, Error};

/// Servers close connections on which no request comes; one that has waited
/// longer than this is not used.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Connections that are being dialed, or wait for their use.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<Spare>>);

#[derive(Debug)]
struct Spare {
    endpoint: Endpoint,
    since: Instant,
    dial: JoinHandle<Result<BoxIo, Error>>,
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.dial.abort();
    }
}

impl Spares {
    /// Dials once more.
    pub(crate) fn add(
        &self,
        endpoint: Endpoint,
        dial: impl Future<Output = Result<BoxIo, Error>> + Send + 'static,
    ) {
        let spare = Spare {
            endpoint,
            since: Instant::now(),
            dial: tokio::spawn(dial),
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(spare);
    }

    /// A connection to `endpoint`, if one was dialed and came about.
    pub(crate) async fn take(&self, endpoint: &Endpoint) -> Option<BoxIo> {
        let mut spare = {
            let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            spares.retain(|spare| spare.since.elapsed() < LONGEST_WAIT);
            let at = spares
                .iter()
                .position(|spare| same_server(&spare.endpoint, endpoint))?;
            spares.remove(at)
        };
        (&mut spare.dial).await.ok()?.ok()
    }
}

/// Whether both lead to the same server; by which address does not matter.
fn same_server(a: &Endpoint, b: &Endpoint) -> bool {
    (&a.host, a.port, a.tls, &a.cert_name, a.insecure)
        == (&b.host, b.port, b.tls, &b.cert_name, b.insecure)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn each_is_used_once_and_only_for_its_server() {
        let spares = Spares::default();
        let endpoint = Endpoint::new("relay", 443, true);
        for byte in [b"1", b"2"] {
            let io = BoxIo::new(tokio::io::join(&byte[..], tokio::io::sink()));
            spares.add(endpoint.clone(), async { Ok(io) });
        }
        assert!(
            spares
                .take(&Endpoint::new("relay", 443, false))
                .await
                .is_none()
        );
        let mut fixed = endpoint.clone();
        fixed.addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        for expected in [b'1', b'2'] {
            let mut io = spares.take(&fixed).await.unwrap();
            assert_eq!(io.read_u8().await.unwrap(), expected);
        }
        assert!(spares.take(&endpoint).await.is_none());
    }
}
