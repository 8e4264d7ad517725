//! Packets over an asynchronous byte stream.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::{
    codec::{Decoder, Kind, MAX_MESSAGE, Packet, encode_packet},
    error::Error,
};

pub(crate) type BoxRead = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type BoxWrite = Box<dyn AsyncWrite + Send + Unpin>;

/// Most bytes taken by one read.
const READ_CHUNK: usize = 4 * 1024;

/// Reading half.
pub(crate) struct PacketReader {
    io: BoxRead,
    buffer: BytesMut,
    decoder: Decoder,
}

impl PacketReader {
    pub(crate) fn new(io: BoxRead) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            decoder: Decoder::default(),
        }
    }

    /// Next packet; `None` at the end of the transport. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Packet>, Error> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.buffer)? {
                return Ok(Some(packet));
            }
            if self.buffer.is_empty() {
                // An idle call holds no buffer.
                self.buffer = BytesMut::new();
            }
            let (io, buffer) = (&mut self.io, &mut self.buffer);
            if poll_fn(|cx| poll_read(io, cx, buffer)).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads and drops everything up to the end of the transport.
    pub(crate) async fn drain(&mut self) {
        loop {
            self.buffer.clear();
            self.buffer.reserve(READ_CHUNK);
            if !matches!(self.io.read_buf(&mut self.buffer).await, Ok(count) if count > 0) {
                return;
            }
        }
    }
}

/// Appends what there is to read, at most [`READ_CHUNK`] bytes; nothing at the
/// end of the transport.
fn poll_read(
    io: &mut BoxRead,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let mut chunk = [MaybeUninit::uninit(); READ_CHUNK];
    let mut chunk = ReadBuf::uninit(&mut chunk);
    ready!(Pin::new(io).poll_read(cx, &mut chunk))?;
    buffer.extend_from_slice(chunk.filled());
    Poll::Ready(Ok(chunk.filled().len()))
}

/// Writing half, for one call at a time.
pub(crate) struct PacketWriter {
    io: BoxWrite,
    stream: u64,
    message: u64,
    buffer: BytesMut,
    /// A write was given up half way: the transport is of no more use.
    broken: bool,
}

impl PacketWriter {
    pub(crate) fn new(io: BoxWrite) -> Self {
        Self {
            io,
            stream: 1,
            message: 0,
            buffer: BytesMut::new(),
            broken: false,
        }
    }

    /// Starts the next call.
    pub(crate) const fn start(&mut self, stream: u64) {
        self.stream = stream;
        self.message = 0;
    }

    pub(crate) const fn stream(&self) -> u64 {
        self.stream
    }

    /// Puts a packet behind what waits to be sent.
    pub(crate) fn queue(&mut self, kind: Kind, data: Bytes) -> Result<(), Error> {
        if data.len() > MAX_MESSAGE {
            return Err(Error::TooLarge(data.len()));
        }
        self.message += 1;
        let packet = Packet {
            stream: self.stream,
            message: self.message,
            kind,
            control: kind == Kind::Cancel,
            data,
        };
        encode_packet(&mut self.buffer, &packet);
        Ok(())
    }

    /// Sends what waits. When the future is dropped half way, later calls
    /// fail.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        if self.broken {
            return Err(Error::Cancelled);
        }
        self.broken = true;
        self.io.write_all_buf(&mut self.buffer).await?;
        self.io.flush().await?;
        self.broken = false;
        Ok(())
    }

    pub(crate) async fn send(&mut self, kind: Kind, data: Bytes) -> Result<(), Error> {
        self.queue(kind, data)?;
        self.flush().await
    }

    /// Ends the own direction of the transport.
    pub(crate) async fn shutdown(&mut self) {
        // The transport may be gone already, which is what is wanted.
        let _ = self.io.shutdown().await;
    }

    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }
}
