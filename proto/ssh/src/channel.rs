//! State of one channel (RFC 4254 §5).

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::Error;
use crate::msg;
use crate::wire::Write;

/// Extended data type of standard error (RFC 4254 §5.2).
const STDERR: u32 = 1;
/// Most data in one outgoing packet, whatever the peer would take.
pub(crate) const LARGEST_DATA: usize = 32 << 10;
/// Data the application may queue on a channel.
const QUEUE: usize = 128 << 10;
/// Longest piece handed to the application.
const PIECE: usize = 256 << 10;

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
    ExitStatus(u32),
    Eof,
    Close,
}

/// One channel.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// The peer's number and limits; none until both sides have agreed.
    pub(crate) peer: Option<Peer>,
    /// What we still accept.
    window_in: u32,
    /// What we accept when nothing is queued.
    pub(crate) window_max: u32,
    /// Taken by the application and not granted again yet.
    consumed: u32,
    inbox: BytesMut,
    discard: bool,
    eof_in: bool,
    pub(crate) close_in: bool,
    queue: VecDeque<Item>,
    queued: usize,
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

    /// True if both sides have closed and nobody looks at it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.close_in && self.close_out && self.released
    }

    /// Data came in. Extended data of clients has no meaning and is dropped.
    pub(crate) fn receive(&mut self, data: &[u8], ordinary: bool) -> Result<(), Error> {
        let len = u32::try_from(data.len()).map_err(|_| Error::Window)?;
        self.window_in = self.window_in.checked_sub(len).ok_or(Error::Window)?;
        if self.eof_in || self.close_in {
            return Err(Error::Unexpected(msg::CHANNEL_DATA));
        }
        if self.discard || self.released || !ordinary {
            self.consumed = self.consumed.saturating_add(len);
        } else {
            self.inbox.extend_from_slice(data);
        }
        Ok(())
    }

    pub(crate) fn end_input(&mut self) {
        self.eof_in = true;
    }

    /// The next piece of data.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        if self.inbox.is_empty() {
            return None;
        }
        let piece = if self.inbox.len() > PIECE {
            self.inbox.split_to(PIECE)
        } else {
            // Gives the memory away with the data.
            std::mem::take(&mut self.inbox)
        };
        let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        self.consumed = self.consumed.saturating_add(len);
        Some(piece.freeze())
    }

    /// No data is queued and none will come.
    pub(crate) fn input_ended(&self) -> bool {
        self.inbox.is_empty() && (self.eof_in || self.close_in)
    }

    /// Drops what is queued and what will come.
    pub(crate) fn discard(&mut self) {
        self.discard = true;
        let len = u32::try_from(self.inbox.len()).unwrap_or(u32::MAX);
        self.consumed = self.consumed.saturating_add(len);
        self.inbox = BytesMut::new();
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

    pub(crate) fn queue_exit_status(&mut self, status: u32) {
        if !self.output_ended() {
            self.queue.push_back(Item::ExitStatus(status));
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
            (None, _) | (_, None) => false,
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
        let Some(peer) = &mut self.peer else {
            return Ok(());
        };
        let id = peer.id;
        match self.queue.front() {
            None => Ok(()),
            Some(Item::Data(stream, _)) => {
                let stream = *stream;
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
            Some(Item::ExitStatus(status)) => {
                let status = *status;
                self.queue.pop_front();
                send(&mut |out| {
                    out.put_u8(msg::CHANNEL_REQUEST);
                    out.put_u32(id);
                    out.put_string("exit-status");
                    out.put_bool(false);
                    out.put_u32(status);
                })
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
