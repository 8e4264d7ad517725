//! A channel joined to a local stream.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::channel::Stream;
use crate::handle::{Channel, Gone};

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
pub async fn relay<S>(channel: &Channel, stream: S)
where
    S: AsyncRead + AsyncWrite,
{
    let (mut from_local, mut to_local) = tokio::io::split(stream);
    let inward = async {
        while let Some((_, piece)) = channel.recv().await {
            if to_local.write_all(&piece).await.is_err() {
                // The local side reads no more, but it may still write.
                channel.discard();
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
            () = channel.closed() => Ok(()),
            done = copy_out(channel, &mut from_local) => done,
        }
    };
    let both = async { tokio::try_join!(inward, outward) };
    let proper = tokio::select! {
        biased;
        () = channel.cut() => return,
        done = both => done.is_ok(),
    };
    if proper
        && tokio::time::timeout(CLOSE_GRACE, channel.closed())
            .await
            .is_ok()
    {
        return;
    }
    // The peer may have closed the channel or left meanwhile.
    let _ = channel.close();
}

/// Sends what the local side writes, to its end. Fails if reading fails.
async fn copy_out(channel: &Channel, from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut size = SMALLEST_READ;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(size);
        match from.read_buf(&mut buffer).await? {
            0 => break,
            n if n >= size => size = (size * 2).min(LARGEST_READ),
            _ => {}
        }
        let piece = buffer.split().freeze();
        if channel.send(Stream::Data, piece).await == Err(Gone) {
            return Ok(());
        }
    }
    // A peer that has closed the channel needs no EOF.
    let _ = channel.eof();
    Ok(())
}
