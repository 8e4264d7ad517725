//! SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions.
//!
//! | Module | Job |
//! |---|---|
//! | [`wire`] | packets to requests and replies to packets; paths are bytes |
//! | [`lane`] | one open file or directory: its requests, in order |
//! | [`paths`] | requests that name a path |
//! | [`attrs`] | file attributes and directory listings |
//!
//! Requests on different handles and paths run side by side on the blocking
//! pool, those on one handle in the order they came. How much may be under
//! way is limited in bytes; beyond that the client's window stays closed.

mod attrs;
mod lane;
mod paths;
mod wire;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::channel::ChannelIo;
use lane::{Lane, Node};
use wire::{Handle, Reply, Request, Status};

/// Longest packet, as OpenSSH has it.
const LONGEST_PACKET: usize = 256 << 10;
/// Longest read or write, advertised to the client.
const LONGEST_DATA: u32 = (LONGEST_PACKET - 1024) as u32;
/// Bytes of requests and replies under way.
const IN_FLIGHT: u32 = 16 << 20;
/// What a request costs at least.
const SMALLEST_COST: u32 = 4 << 10;
/// Requests that can be under way.
const REQUESTS: usize = (IN_FLIGHT / SMALLEST_COST) as usize;
/// Open files and directories.
const HANDLES: usize = 1024;
/// Replies waiting to be sent.
const REPLIES: usize = 64;

/// Serves an SFTP client until it ends its side.
///
/// # Errors
/// A stream that is out of step, or ends in the middle of a packet; a client
/// that closes the channel while requests are under way.
pub(crate) async fn serve(io: &ChannelIo, dir: PathBuf, home: PathBuf) -> io::Result<()> {
    let (replies, outgoing) = mpsc::channel(REPLIES);
    let mut session = Session {
        base: Arc::new(Base { dir, home }),
        budget: Arc::new(Semaphore::new(IN_FLIGHT as usize)),
        lanes: HashMap::new(),
        next_handle: 0,
        opening: JoinSet::new(),
        work: JoinSet::new(),
        replies,
    };
    let mut input = Input::new(io);
    let (served, ()) = tokio::join!(
        async {
            let served = session.run(&mut input).await;
            session.finish().await;
            served
        },
        send_all(io, outgoing),
    );
    served
}

/// Sends replies; small ones that wait together go out together. Ends early
/// if the client closes the channel; requests then fail to reply.
async fn send_all(io: &ChannelIo, mut outgoing: mpsc::Receiver<Outgoing>) {
    const SMALL: usize = 4 << 10;
    while let Some(Outgoing { bytes, permit }) = outgoing.recv().await {
        let mut bytes = bytes;
        let mut permits = vec![permit];
        while bytes.len() < SMALL
            && let Ok(more) = outgoing.try_recv()
        {
            let mut joined = BytesMut::from(bytes);
            joined.extend_from_slice(&more.bytes);
            bytes = joined.freeze();
            permits.push(more.permit);
        }
        if io.send(bytes).await.is_err() {
            return;
        }
    }
}

/// An encoded reply and its share of the budget.
struct Outgoing {
    bytes: Bytes,
    permit: Option<OwnedSemaphorePermit>,
}

/// Where relative paths begin.
struct Base {
    dir: PathBuf,
    home: PathBuf,
}

/// A request being worked on: its id and its share of the budget.
struct Ticket {
    id: u32,
    permit: OwnedSemaphorePermit,
}

impl Ticket {
    fn reply(self, reply: Reply) -> Outgoing {
        Outgoing {
            bytes: reply.encode(self.id),
            permit: Some(self.permit),
        }
    }
}

struct Session {
    base: Arc<Base>,
    budget: Arc<Semaphore>,
    lanes: HashMap<Handle, mpsc::Sender<(Ticket, lane::Job)>>,
    next_handle: u32,
    opening: JoinSet<(Ticket, Result<Node, Status>)>,
    work: JoinSet<()>,
    replies: mpsc::Sender<Outgoing>,
}

impl Session {
    async fn run(&mut self, input: &mut Input<'_>) -> io::Result<()> {
        let Some(first) = input.packet().await? else {
            return Ok(());
        };
        if !wire::is_init(&first) {
            return Err(malformed("the client did not begin with INIT"));
        }
        let hello = Outgoing {
            bytes: wire::version(),
            permit: None,
        };
        self.send(hello).await?;
        loop {
            while self.work.try_join_next().is_some() {}
            let packet = tokio::select! {
                packet = input.packet() => packet?,
                Some(opened) = self.opening.join_next() => {
                    self.opened(opened).await?;
                    continue;
                }
            };
            match packet {
                Some(packet) => self.dispatch(packet).await?,
                None => return Ok(()),
            }
        }
    }

    /// Lets everything under way finish; then the senders of replies are gone.
    async fn finish(mut self) {
        while let Some(opened) = self.opening.join_next().await {
            if self.opened(opened).await.is_err() {
                break;
            }
        }
        self.lanes.clear();
        while self.work.join_next().await.is_some() {}
    }

    async fn dispatch(&mut self, packet: Bytes) -> io::Result<()> {
        let (id, request) = wire::decode(packet).ok_or_else(|| malformed("packet too short"))?;
        let ticket = self.ticket(id, &request).await?;
        match request {
            Ok(Request::Open { path, flags, attrs }) => {
                let path = self.base.resolve(&path);
                self.open(ticket, move || Node::open_file(&path, flags, &attrs));
            }
            Ok(Request::OpenDir { path }) => {
                let path = self.base.resolve(&path);
                self.open(ticket, move || Node::open_dir(&path));
            }
            Ok(Request::OnHandle { handle, job }) => self.on_handle(ticket, &handle, job).await?,
            Ok(Request::OnPath(request)) => {
                let (base, replies) = (Arc::clone(&self.base), self.replies.clone());
                self.work.spawn(async move {
                    let reply = blocking(move || paths::perform(&base, request)).await;
                    // The writer is gone only if the channel is.
                    let _ = replies.send(ticket.reply(reply)).await;
                });
            }
            Err(status) => self.send(ticket.reply(Reply::Status(status))).await?,
        }
        Ok(())
    }

    /// Waits until the request fits into the budget.
    async fn ticket(&self, id: u32, request: &Result<Request, Status>) -> io::Result<Ticket> {
        let size = request.as_ref().map_or(0, Request::size);
        let cost = size.saturating_add(SMALLEST_COST).min(IN_FLIGHT);
        match Arc::clone(&self.budget).acquire_many_owned(cost).await {
            Ok(permit) => Ok(Ticket { id, permit }),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn open(&mut self, ticket: Ticket, open: impl FnOnce() -> io::Result<Node> + Send + 'static) {
        if self.lanes.len() + self.opening.len() >= HANDLES {
            self.opening
                .spawn(async { (ticket, Err(Status::failure("too many open files"))) });
            return;
        }
        self.opening.spawn(async move {
            let opened = tokio::task::spawn_blocking(open).await;
            let node = match opened {
                Ok(node) => node.map_err(|error| Status::from(&error)),
                Err(_) => Err(Status::failure("internal error")),
            };
            (ticket, node)
        });
    }

    async fn opened(
        &mut self,
        opened: Result<(Ticket, Result<Node, Status>), tokio::task::JoinError>,
    ) -> io::Result<()> {
        let Ok((ticket, node)) = opened else {
            return Ok(());
        };
        let reply = match node {
            Err(status) => Reply::Status(status),
            Ok(node) => {
                let handle = Handle::from(self.next_handle);
                self.next_handle = self.next_handle.wrapping_add(1);
                let (jobs, queue) = mpsc::channel(REQUESTS);
                self.lanes.insert(handle, jobs);
                self.work
                    .spawn(Lane::new(node, self.replies.clone()).run(queue));
                Reply::Handle(handle)
            }
        };
        self.send(ticket.reply(reply)).await
    }

    async fn on_handle(&mut self, ticket: Ticket, handle: &[u8], job: lane::Job) -> io::Result<()> {
        let known = Handle::decode(handle).filter(|h| self.lanes.contains_key(h));
        let Some(handle) = known else {
            let status = Status::failure("unknown handle");
            return self.send(ticket.reply(Reply::Status(status))).await;
        };
        let jobs = if matches!(job, lane::Job::Close) {
            self.lanes.remove(&handle)
        } else {
            self.lanes.get(&handle).cloned()
        };
        if let Some(jobs) = jobs {
            // As many fit as the budget allows, so this does not wait.
            let _ = jobs.send((ticket, job)).await;
        }
        Ok(())
    }

    async fn send(&self, reply: Outgoing) -> io::Result<()> {
        let sent = self.replies.send(reply).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Base {
    /// Makes a client's path absolute.
    fn resolve(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }
}

async fn blocking(work: impl FnOnce() -> Reply + Send + 'static) -> Reply {
    match tokio::task::spawn_blocking(work).await {
        Ok(reply) => reply,
        Err(_) => Reply::Status(Status::failure("internal error")),
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Cuts the channel's data into packets.
struct Input<'a> {
    io: &'a ChannelIo,
    buffer: BytesMut,
}

impl<'a> Input<'a> {
    fn new(io: &'a ChannelIo) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
        }
    }

    /// The next packet without its length; `None` at the end. Cancel safe.
    async fn packet(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(packet) = next_packet(&mut self.buffer)? {
                return Ok(Some(packet));
            }
            match self.io.recv().await {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

fn next_packet(buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let Some(len) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    if len == 0 || len > LONGEST_PACKET {
        return Err(malformed("impossible packet length"));
    }
    if buffer.len() < len + 4 {
        buffer.reserve(len + 4 - buffer.len());
        return Ok(None);
    }
    let mut packet = buffer.split_to(len + 4);
    Ok(Some(packet.split_off(4).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_at_any_split() {
        let stream = b"\0\0\0\x01A\0\0\0\x03xyz\0\0\0\x02";
        for split in 0..stream.len() {
            let mut buffer = BytesMut::new();
            let mut packets = Vec::new();
            for part in [&stream[..split], &stream[split..]] {
                buffer.extend_from_slice(part);
                while let Some(packet) = next_packet(&mut buffer).unwrap() {
                    packets.push(packet);
                }
            }
            assert_eq!(packets, [&b"A"[..], b"xyz"]);
        }
    }

    #[test]
    fn impossible_lengths_end_the_session() {
        for stream in [&b"\0\0\0\0"[..], b"\0\x04\0\x01", b"\xff\xff\xff\xff"] {
            assert!(next_packet(&mut BytesMut::from(stream)).is_err());
        }
    }
}
