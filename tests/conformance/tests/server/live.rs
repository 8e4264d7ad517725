//! A connection to the server under test, decoded as it speaks.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use adit_drpc::codec::{self, Packet};
use adit_ws::{Message, Role, WebSocketStream, config};
use adit_yamux::frame::{self, Flags, FrameType, Header, Item};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, stream::SplitSink};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Mutex as AsyncMutex, Notify},
    task::JoinHandle,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How a sender ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Finished,
    Reset,
}

/// What came over one direction of a connection.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) packets: BTreeMap<u32, VecDeque<Packet>>,
    /// Streams the sender ended, and how.
    pub(crate) ended: BTreeSet<(u32, End)>,
    /// Code of the sender's last GoAway.
    pub(crate) gone: Option<u32>,
    /// Code and reason of its close frame.
    pub(crate) close: Option<(u16, String)>,
    /// The connection is over.
    pub(crate) over: bool,
    pongs: Vec<u32>,
}

/// Turns the bytes of one direction into packets.
#[derive(Default)]
pub(crate) struct Ear {
    yamux: frame::Decoder,
    streams: BTreeMap<u32, (BytesMut, codec::Decoder)>,
}

impl Ear {
    /// Takes a piece of the byte stream.
    pub(crate) fn hear(&mut self, piece: &Bytes, heard: &mut Heard) {
        let mut piece = piece.clone();
        while let Ok(Some(item)) = self.yamux.next(&mut piece) {
            match item {
                Item::Body { stream, data, .. } => {
                    let (buffer, decoder) = self.streams.entry(stream).or_default();
                    buffer.extend_from_slice(&data);
                    while let Ok(Some(packet)) = decoder.decode(buffer) {
                        heard.packets.entry(stream).or_default().push_back(packet);
                    }
                }
                Item::Header(header) => note(&header, heard),
            }
        }
    }
}

fn note(header: &Header, heard: &mut Heard) {
    if header.frame_type == FrameType::Ping && header.flags.contains(Flags::SYN) {
        heard.pongs.push(header.length);
    } else if header.frame_type == FrameType::GoAway {
        heard.gone = Some(header.length);
    } else if header.flags.contains(Flags::RST) {
        heard.ended.insert((header.stream, End::Reset));
    } else if header.flags.contains(Flags::FIN) {
        heard.ended.insert((header.stream, End::Finished));
    }
}

type Sink = SplitSink<WebSocketStream<TcpStream>, Message>;

/// An upgraded connection.
pub(crate) struct Live {
    heard: Arc<(Mutex<Heard>, Notify)>,
    sink: Arc<AsyncMutex<Sink>>,
    reader: JoinHandle<()>,
}

/// The answer to a request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends a request; reads the head of the answer and, unless it is an upgrade,
/// its body.
pub(crate) async fn request(socket: &mut TcpStream, head: &str, body: &str) -> Answer {
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let read = async {
        // Byte by byte: what follows an upgrade is not part of the head.
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(socket.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("an answer in time");
    let head = String::from_utf8(bytes).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer {
        status,
        head,
        body: String::new(),
    };
    let length: usize = answer
        .header("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if status != 101 && length > 0 {
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
    }
    answer
}

impl Live {
    pub(crate) async fn new(socket: TcpStream) -> Self {
        let socket = WebSocketStream::from_raw_socket(socket, Role::Client, Some(config())).await;
        let (sink, mut source) = socket.split();
        let sink = Arc::new(AsyncMutex::new(sink));
        let heard: Arc<(Mutex<Heard>, Notify)> = Arc::default();
        let (to, pongs) = (Arc::clone(&heard), Arc::clone(&sink));
        let reader = tokio::spawn(async move {
            let mut ear = Ear::default();
            while let Some(Ok(message)) = source.next().await {
                let pings = {
                    let mut heard = to.0.lock().unwrap();
                    match message {
                        Message::Binary(data) => ear.hear(&data, &mut heard),
                        Message::Close(frame) => {
                            heard.close = Some(frame.map_or((1005, String::new()), |f| {
                                (f.code.into(), f.reason.to_string())
                            }));
                        }
                        _ => {}
                    }
                    std::mem::take(&mut heard.pongs)
                };
                to.1.notify_waiters();
                for length in pings {
                    let mut pong = BytesMut::new();
                    Header {
                        frame_type: FrameType::Ping,
                        flags: Flags::ACK,
                        stream: 0,
                        length,
                    }
                    .encode(&mut pong);
                    let _ = pongs
                        .lock()
                        .await
                        .send(Message::Binary(pong.freeze()))
                        .await;
                }
            }
            to.0.lock().unwrap().over = true;
            to.1.notify_waiters();
        });
        Self {
            heard,
            sink,
            reader,
        }
    }

    pub(crate) async fn send(&self, message: Message) {
        // The server may have ended the connection for what came before.
        let _ = self.sink.lock().await.send(message).await;
    }

    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.0.lock().unwrap()
    }

    /// Waits until what was heard satisfies `take`.
    pub(crate) async fn until<T>(
        &self,
        mut take: impl FnMut(&mut Heard) -> Option<T>,
    ) -> Option<T> {
        let wait = async {
            loop {
                let changed = self.heard.1.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = take(&mut self.heard()) {
                    return Some(found);
                }
                if self.heard().over {
                    return take(&mut self.heard());
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.ok().flatten()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Both halves go, and with them the connection.
        self.reader.abort();
    }
}
