//! State of one channel (RFC 4254 §5).

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::Error;
use crate::msg;
use crate::wire::Write;

/// Extended data type of standard error (RFC 4254 §5.2).
pub(crate) const STDERR: u32 = 1;
/// Most data in one outgoing packet, whatever the peer would take.
pub(crate) const LARGEST_DATA: usize = 32 << 10;
/// Data the application may queue on a channel.
const QUEUE: usize = 128 << 10;
/// Longest piece handed to the application.
const PIECE: usize = 256 << 10;
/// Runs for which an empty inbox keeps room.
const KEPT_RUNS: usize = 16;

/// Which of the two output streams of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Ordinary data.
    Data,
    /// Standard error.
    Stderr,
}

/// Something to be sent, in order with the data around it.
#[derive(Debug)]
enum Item {
    Data(Stream, Bytes),
    /// Kind, whether an answer is wanted, and what is particular to the kind.
    Request(&'static str, bool, Vec<u8>),
    Eof,
    Close,
}

/// One channel.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// The peer's number and limits; none until both sides have agreed.
    pub(crate) peer: Option<Peer>,
    /// What was sent before the peer gave the channel its number.
    ahead: Option<Ahead>,
    /// Refusals that are still to come of requests that went to a wrong
    /// number.
    strays: u32,
    /// What we still accept.
    window_in: u32,
    /// What we accept when nothing is queued.
    pub(crate) window_max: u32,
    /// Taken by the application and not granted again yet.
    consumed: u32,
    inbox: Inbox,
    discard: bool,
    eof_in: bool,
    pub(crate) close_in: bool,
    queue: VecDeque<Item>,
    queued: usize,
    /// Requests sent that the peer has to answer.
    unanswered: u32,
    /// Stands in the line of channels that can send.
    pub(crate) in_line: bool,
    eof_out: bool,
    close_queued: bool,
    pub(crate) close_out: bool,
    /// The application is not interested any more.
    pub(crate) released: bool,
    /// A writer waits for room in the queue.
    pub(crate) wants_room: bool,
}

/// Requests that go ahead to the number the peer is expected to give.
#[derive(Debug)]
struct Ahead {
    number: u32,
    /// Those that were sent, should they have to be sent again.
    sent: Vec<Item>,
    /// How many of them the peer has refused already.
    refused: u32,
}

/// What has arrived and was not taken yet, of both streams in order.
#[derive(Debug, Default)]
struct Inbox {
    data: BytesMut,
    /// Whose the bytes are, in runs; neighbours are of different streams. A
    /// peer that changes streams with every byte costs little more than one
    /// that does not.
    runs: VecDeque<(Stream, u32)>,
}

impl Inbox {
    fn push(&mut self, stream: Stream, data: &[u8], len: u32) {
        self.data.extend_from_slice(data);
        match self.runs.back_mut() {
            Some((last, run)) if *last == stream => *run += len,
            _ => self.runs.push_back((stream, len)),
        }
    }

    fn pop(&mut self) -> Option<(Stream, Bytes)> {
        let (stream, run) = self.runs.front_mut()?;
        let stream = *stream;
        let len = usize::try_from(*run).unwrap_or(usize::MAX).min(PIECE);
        *run -= u32::try_from(len).unwrap_or(*run);
        if *run == 0 {
            self.runs.pop_front();
        }
        let piece = if len >= self.data.len() {
            // Gives the memory away with the data.
            self.runs.shrink_to(KEPT_RUNS);
            std::mem::take(&mut self.data)
        } else {
            self.data.split_to(len)
        };
        Some((stream, piece.freeze()))
    }
}

/// The other end of a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) id: u32,
    pub(crate) window: u32,
    pub(crate) packet: u32,
}

impl Channel {
    pub(crate) fn new(peer: Option<Peer>, window: u32) -> Self {
        Self {
            peer,
            window_in: window,
            window_max: window,
            ..Self::default()
        }
    }

    /// Bytes that wait here, with what it takes to keep them.
    #[cfg(feature = "testing")]
    pub(crate) fn memory_used(&self) -> usize {
        let queue = self.queued + self.queue.len() * size_of::<Item>();
        let runs = self.inbox.runs.len() * size_of::<(Stream, u32)>();
        size_of::<Self>() + self.inbox.data.len() + runs + queue
    }

    /// True if both sides have closed and nobody looks at it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.close_in && self.close_out && self.released
    }

    /// Lets requests go ahead to this number.
    pub(crate) fn presume(&mut self, number: u32) {
        self.ahead = Some(Ahead {
            number,
            sent: Vec::new(),
            refused: 0,
        });
    }

    /// The peer refused a request before it gave the channel a number.
    /// Returns false if there was none.
    pub(crate) fn refuse_ahead(&mut self) -> bool {
        match &mut self.ahead {
            Some(ahead) if ahead.refused < self.unanswered => {
                ahead.refused += 1;
                true
            }
            _ => false,
        }
    }

    /// The peer gave the channel its number. What went to another number is
    /// sent again: a server refuses requests on a channel it does not have.
    /// Returns how many requests the peer has refused so far.
    pub(crate) fn confirm(&mut self, peer: Peer) -> u32 {
        self.peer = Some(peer);
        let Some(ahead) = self.ahead.take() else {
            return 0;
        };
        if ahead.number == peer.id {
            self.unanswered -= ahead.refused;
            return ahead.refused;
        }
        self.strays = self.unanswered - ahead.refused;
        self.unanswered = 0;
        for item in ahead.sent.into_iter().rev() {
            self.queue.push_front(item);
        }
        0
    }

    /// The peer answered a request. Returns false if it was none of those
    /// that count.
    pub(crate) fn answered(&mut self, ok: bool) -> bool {
        if self.strays > 0 && !ok {
            self.strays -= 1;
            return false;
        }
        self.strays = 0;
        // An answer that nobody asked for does no harm.
        let left = self.unanswered.checked_sub(1);
        self.unanswered = left.unwrap_or(0);
        left.is_some()
    }

    /// Data came in; without a stream, of a kind that has no meaning.
    pub(crate) fn receive(&mut self, data: &[u8], stream: Option<Stream>) -> Result<(), Error> {
        let len = u32::try_from(data.len()).map_err(|_| Error::Window)?;
        self.window_in = self.window_in.checked_sub(len).ok_or(Error::Window)?;
        if self.eof_in || self.close_in {
            return Err(Error::Unexpected(msg::CHANNEL_DATA));
        }
        let stream = stream.filter(|_| !self.discard && !self.released && !data.is_empty());
        match stream {
            None => self.consumed = self.consumed.saturating_add(len),
            Some(stream) => self.inbox.push(stream, data, len),
        }
        Ok(())
    }

    pub(crate) fn end_input(&mut self) {
        self.eof_in = true;
    }

    /// The next piece of data.
    pub(crate) fn take(&mut self) -> Option<(Stream, Bytes)> {
        let (stream, piece) = self.inbox.pop()?;
        let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        self.consumed = self.consumed.saturating_add(len);
        Some((stream, piece))
    }

    /// No data is queued and none will come.
    pub(crate) fn input_ended(&self) -> bool {
        self.inbox.data.is_empty() && (self.eof_in || self.close_in)
    }

    /// Drops what is queued and what will come.
    pub(crate) fn discard(&mut self) {
        self.discard = true;
        let len = std::mem::take(&mut self.inbox).data.len();
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.consumed = self.consumed.saturating_add(len);
    }

    /// What the peer should be granted now, if that is worth a message.
    pub(crate) fn grant(&mut self) -> Option<u32> {
        let due = self.consumed >= self.window_max / 4 && self.consumed > 0;
        if !due || self.eof_in || self.close_in || self.close_out || self.peer.is_none() {
            return None;
        }
        let amount = std::mem::take(&mut self.consumed);
        self.window_in = self.window_in.saturating_add(amount);
        Some(amount)
    }

    /// The peer grants more.
    pub(crate) fn granted(&mut self, amount: u32) -> Result<(), Error> {
        let peer = self
            .peer
            .as_mut()
            .ok_or(Error::Unexpected(msg::CHANNEL_WINDOW_ADJUST))?;
        peer.window = peer.window.checked_add(amount).ok_or(Error::Window)?;
        Ok(())
    }

    /// Bytes the application may queue.
    pub(crate) fn room(&self) -> usize {
        QUEUE.saturating_sub(self.queued)
    }

    /// True if a waiting writer should go on.
    pub(crate) fn has_much_room(&self) -> bool {
        self.room() >= QUEUE / 4
    }

    /// True if nothing more may be queued.
    pub(crate) fn output_ended(&self) -> bool {
        self.close_queued || self.close_out || self.close_in
    }

    pub(crate) fn queue_data(&mut self, stream: Stream, data: Bytes) {
        if !data.is_empty() && !self.output_ended() && !self.eof_out {
            self.queued += data.len();
            self.queue.push_back(Item::Data(stream, data));
        }
    }

    pub(crate) fn queue_request(&mut self, kind: &'static str, wants_answer: bool, body: Vec<u8>) {
        if !self.output_ended() {
            self.queue
                .push_back(Item::Request(kind, wants_answer, body));
        }
    }

    pub(crate) fn queue_eof(&mut self) {
        if !self.output_ended() && !self.eof_out {
            self.eof_out = true;
            self.queue.push_back(Item::Eof);
        }
    }

    pub(crate) fn queue_close(&mut self) {
        if !self.output_ended() {
            self.close_queued = true;
            self.queue.push_back(Item::Close);
        }
    }

    /// Forgets what is queued: the channel is closed or the peer reads no
    /// more.
    pub(crate) fn drop_queue(&mut self) {
        self.queue = VecDeque::new();
        self.queued = 0;
    }

    /// True if something could be sent now.
    pub(crate) fn can_send(&self) -> bool {
        match (&self.peer, self.queue.front()) {
            (_, None) => false,
            (None, Some(Item::Request(..))) => self.ahead.is_some(),
            (None, _) => false,
            (Some(peer), Some(Item::Data(..))) => peer.window > 0,
            _ => true,
        }
    }

    /// The next message, which goes to `send`. Sends at most one packet of
    /// data.
    pub(crate) fn transmit(
        &mut self,
        send: impl FnOnce(&mut dyn FnMut(&mut Vec<u8>)) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.can_send() {
            return Ok(());
        }
        let ahead = self.ahead.as_ref().map(|ahead| ahead.number);
        let Some(id) = self.peer.map(|peer| peer.id).or(ahead) else {
            return Ok(());
        };
        match self.queue.front() {
            None => Ok(()),
            Some(Item::Data(stream, _)) => {
                let stream = *stream;
                let Some(peer) = &mut self.peer else {
                    return Ok(());
                };
                let most = run_length(&self.queue, stream);
                let allowed = peer.window.min(peer.packet);
                let len = u32::try_from(most).unwrap_or(u32::MAX).min(allowed);
                if len == 0 {
                    return Ok(());
                }
                peer.window -= len;
                let total = usize::try_from(len).unwrap_or(0);
                self.queued = self.queued.saturating_sub(total);
                let queue = &mut self.queue;
                send(&mut |out| {
                    match stream {
                        Stream::Data => out.put_u8(msg::CHANNEL_DATA),
                        Stream::Stderr => out.put_u8(msg::CHANNEL_EXTENDED_DATA),
                    }
                    out.put_u32(id);
                    if stream == Stream::Stderr {
                        out.put_u32(STDERR);
                    }
                    out.put_u32(len);
                    copy_front(queue, total, out);
                })
            }
            Some(Item::Request(..)) => {
                let Some(Item::Request(kind, wants_answer, body)) = self.queue.pop_front() else {
                    return Ok(());
                };
                self.unanswered += u32::from(wants_answer);
                send(&mut |out| {
                    out.put_u8(msg::CHANNEL_REQUEST);
                    out.put_u32(id);
                    out.put_string(kind);
                    out.put_bool(wants_answer);
                    out.put(&body);
                })?;
                if let Some(ahead) = &mut self.ahead {
                    ahead.sent.push(Item::Request(kind, wants_answer, body));
                }
                Ok(())
            }
            Some(Item::Eof) => {
                self.queue.pop_front();
                send(&mut |out| {
                    out.put_u8(msg::CHANNEL_EOF);
                    out.put_u32(id);
                })
            }
            Some(Item::Close) => {
                self.queue.pop_front();
                self.close_out = true;
                send(&mut |out| {
                    out.put_u8(msg::CHANNEL_CLOSE);
                    out.put_u32(id);
                })
            }
        }
    }
}

/// Bytes of `stream` at the front of the queue that fit into one packet.
fn run_length(queue: &VecDeque<Item>, stream: Stream) -> usize {
    let mut run = 0;
    for item in queue {
        match item {
            Item::Data(s, data) if *s == stream && run < LARGEST_DATA => run += data.len(),
            _ => break,
        }
    }
    run.min(LARGEST_DATA)
}

/// Moves `len` bytes of data from the front of the queue.
fn copy_front(queue: &mut VecDeque<Item>, mut len: usize, out: &mut Vec<u8>) {
    while len > 0 {
        let Some(Item::Data(_, data)) = queue.front_mut() else {
            return;
        };
        let part = len.min(data.len());
        out.put(&data[..part]);
        data.advance(part);
        len -= part;
        if data.is_empty() {
            queue.pop_front();
        }
    }
}
