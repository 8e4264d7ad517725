//! Port and socket forwarding.
//!
//! | Request | Module |
//! |---|---|
//! | `direct-tcpip`, `direct-streamlocal@openssh.com` | [`direct`] |
//! | `tcpip-forward`, `streamlocal-forward@openssh.com` | [`listen`] |
//!
//! Both end in [`relay`], which copies in both directions with half-close.

mod direct;
mod listen;

pub(crate) use direct::Direct;
pub(crate) use listen::Listeners;

use std::time::Duration;

use adit_ssh::Gone;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::channel::ChannelIo;

/// Output is read in pieces of this size, growing while they are filled.
const SMALLEST_READ: usize = 4 << 10;
const LARGEST_READ: usize = 64 << 10;
/// Time a peer has to close a channel of which both directions have ended.
const CLOSE_GRACE: Duration = Duration::from_secs(10);

/// Copies between a channel and a local stream until both directions have
/// ended, then closes the channel.
///
/// What the peer sent before it closed the channel is still delivered. A
/// channel that ended properly is left for the peer to close, as RFC 4254
/// §5.3 wants of the side that sees the second EOF; it gets some time for it.
pub(crate) async fn relay<S>(io: &ChannelIo, stream: S)
where
    S: AsyncRead + AsyncWrite,
{
    let (mut from_local, mut to_local) = tokio::io::split(stream);
    let inward = async {
        while let Some(piece) = io.recv().await {
            if to_local.write_all(&piece).await.is_err() {
                // The local side reads no more, but it may still write.
                io.discard();
                return Ok(());
            }
        }
        // The local side may have closed already.
        let _ = to_local.shutdown().await;
        Ok(())
    };
    let outward = async {
        tokio::select! {
            biased;
            () = io.closed() => Ok(()),
            done = copy_out(io, &mut from_local) => done,
        }
    };
    let both = async { tokio::try_join!(inward, outward) };
    let proper = tokio::select! {
        biased;
        () = io.cut() => return,
        done = both => done.is_ok(),
    };
    if proper && tokio::time::timeout(CLOSE_GRACE, io.closed()).await.is_ok() {
        return;
    }
    io.finish(None);
}

/// Sends what the local side writes, to its end. Fails if reading fails.
async fn copy_out(
    io: &ChannelIo,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<(), std::io::Error> {
    let mut size = SMALLEST_READ;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(size);
        match from.read_buf(&mut buffer).await? {
            0 => break,
            n if n >= size => size = (size * 2).min(LARGEST_READ),
            _ => {}
        }
        if io.send(buffer.split().freeze()).await == Err(Gone) {
            return Ok(());
        }
    }
    // A peer that has closed the channel needs no EOF.
    let _ = io.eof();
    Ok(())
}
