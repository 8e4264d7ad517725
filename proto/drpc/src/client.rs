//! Making calls: one transport per call.

use std::marker::PhantomData;

use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    codec::Kind,
    error::{Error, ProtocolError, Status},
    metadata,
    transport::{PacketReader, PacketWriter},
};

/// Calls a method with one request and one answer. The transport is given up
/// only after the whole answer has arrived.
///
/// # Errors
/// When the server answers with an error or the transport fails.
pub async fn unary<IO, Req, Resp>(
    io: IO,
    path: &str,
    metadata: &[(&str, &str)],
    request: &Req,
) -> Result<Resp, Error>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
    Req: Message,
    Resp: Message + Default,
{
    let mut call = Call::new(io);
    call.invoke(path, metadata)?;
    call.writer.queue(Kind::Message, encode(request))?;
    call.writer.queue(Kind::CloseSend, Bytes::new())?;
    call.writer.flush().await?;
    let answer = call.reader.message().await?.ok_or(Error::NoMessage)?;
    // The transport is about to end; whether the server hears of the end of
    // the call first is of no importance.
    let _ = call.writer.send(Kind::Close, Bytes::new()).await;
    call.writer.shutdown().await;
    Ok(Resp::decode(answer)?)
}

/// Calls a method with one request and a stream of answers.
///
/// # Errors
/// When the transport fails.
pub async fn server_stream<IO, Req, Resp>(
    io: IO,
    path: &str,
    metadata: &[(&str, &str)],
    request: &Req,
) -> Result<Receiver<Resp>, Error>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
    Req: Message,
{
    let mut call = Call::new(io);
    call.invoke(path, metadata)?;
    call.writer.queue(Kind::Message, encode(request))?;
    call.writer.queue(Kind::CloseSend, Bytes::new())?;
    call.writer.flush().await?;
    Ok(Receiver {
        reader: call.reader,
        _writer: Some(call.writer),
        message: PhantomData,
    })
}

/// Calls a method with messages in both directions.
///
/// # Errors
/// When the transport fails.
pub async fn bidi<IO, Req, Resp>(
    io: IO,
    path: &str,
    metadata: &[(&str, &str)],
) -> Result<(Sender<Req>, Receiver<Resp>), Error>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut call = Call::new(io);
    call.invoke(path, metadata)?;
    call.writer.flush().await?;
    let sender = Sender {
        writer: call.writer,
        message: PhantomData,
    };
    let receiver = Receiver {
        reader: call.reader,
        _writer: None,
        message: PhantomData,
    };
    Ok((sender, receiver))
}

struct Call {
    reader: CallReader,
    writer: PacketWriter,
}

impl Call {
    fn new<IO>(io: IO) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        Self {
            reader: CallReader {
                packets: PacketReader::new(Box::new(read)),
                ended: false,
            },
            writer: PacketWriter::new(Box::new(write)),
        }
    }

    fn invoke(&mut self, path: &str, metadata: &[(&str, &str)]) -> Result<(), Error> {
        if !metadata.is_empty() {
            self.writer
                .queue(Kind::InvokeMetadata, metadata::encode(metadata))?;
        }
        self.writer
            .queue(Kind::Invoke, Bytes::copy_from_slice(path.as_bytes()))
    }
}

struct CallReader {
    packets: PacketReader,
    ended: bool,
}

impl CallReader {
    /// Next message; `None` when the server ended the call.
    async fn message(&mut self) -> Result<Option<Bytes>, Error> {
        if self.ended {
            return Ok(None);
        }
        let outcome = self.next().await;
        if !matches!(outcome, Ok(Some(_))) {
            self.ended = true;
        }
        outcome
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(packet) = self.packets.next().await? {
            match packet.kind {
                Kind::Message => return Ok(Some(packet.data)),
                Kind::Close | Kind::CloseSend => return Ok(None),
                Kind::Error => return Err(Status::decode(&packet.data).into()),
                Kind::Cancel => return Err(Error::Cancelled),
                _ if packet.control => {}
                kind => return Err(ProtocolError::UnknownKind(kind.number()).into()),
            }
        }
        Err(Error::Eof)
    }
}

/// The requests of a call. Dropping both halves ends the transport, which
/// cancels the call.
pub struct Sender<M> {
    writer: PacketWriter,
    message: PhantomData<fn(M)>,
}

impl<M: Message> Sender<M> {
    /// Sends a message. Dropping the future half way breaks the call.
    ///
    /// # Errors
    /// When the transport fails or the message is too large.
    pub async fn send(&mut self, message: &M) -> Result<(), Error> {
        self.send_bytes(encode(message)).await
    }
}

impl<M> Sender<M> {
    /// Sends an encoded message.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send_bytes(&mut self, message: Bytes) -> Result<(), Error> {
        self.writer.send(Kind::Message, message).await
    }

    /// Says that no more messages follow. Answers may still arrive.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn close_send(&mut self) -> Result<(), Error> {
        self.writer.send(Kind::CloseSend, Bytes::new()).await
    }

    /// Ends the call in both directions, and the own direction of the
    /// transport.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn close(mut self) -> Result<(), Error> {
        self.writer.send(Kind::Close, Bytes::new()).await?;
        self.writer.shutdown().await;
        Ok(())
    }

    /// Gives the call up with a Cancel packet.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn cancel(mut self) -> Result<(), Error> {
        self.writer.send(Kind::Cancel, Bytes::new()).await?;
        self.writer.shutdown().await;
        Ok(())
    }
}

impl<M> std::fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// The answers of a call.
pub struct Receiver<M> {
    reader: CallReader,
    /// Held where nothing more is sent, so that the transport stays open.
    _writer: Option<PacketWriter>,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Receiver<M> {
    /// Next message; `None` when the server ended the call in order.
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the server answers with an error or the transport fails or ends.
    pub async fn recv(&mut self) -> Result<Option<M>, Error> {
        match self.recv_bytes().await? {
            Some(message) => Ok(Some(M::decode(message)?)),
            None => Ok(None),
        }
    }
}

impl<M> Receiver<M> {
    /// Next message in its encoding.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv_bytes(&mut self) -> Result<Option<Bytes>, Error> {
        self.reader.message().await
    }
}

impl<M> std::fmt::Debug for Receiver<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
