//! TCP streams between nodes, with contents known beforehand.

use std::net::SocketAddrV6;
use std::time::{Duration, Instant};

use adit_netstack::{CloseReason, Event, SocketId, TcpError};

use super::world::World;

const FIRST_PORT: u16 = 1000;

/// A stream from one node to another; the receiver answers nothing.
pub(crate) struct Stream {
    pub(crate) from: usize,
    pub(crate) to: usize,
    lives: (u32, u32),
    source: Option<SocketId>,
    sink: Option<SocketId>,
    pub(crate) total: usize,
    /// Bytes a second the writer produces.
    rate: usize,
    began: Instant,
    written: usize,
    pub(crate) read: usize,
    finished: bool,
    pub(crate) eof: bool,
    pub(crate) failed: Option<TcpError>,
    /// When there last was a way between the ends.
    pub(crate) way_seen: Instant,
    pub(crate) was_open: bool,
    /// How long there had been none when it failed.
    pub(crate) cut_off: Duration,
    /// May fail: an end restarted or the grant was taken back.
    pub(crate) excused: bool,
}

/// The byte at `at` of stream `number`.
fn content(number: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 9) ^ number.wrapping_mul(17)) as u8
}

impl Stream {
    /// Both ends know of it.
    pub(crate) fn is_open(&self) -> bool {
        self.read > 0
    }

    fn fail(&mut self, now: Instant, error: TcpError) {
        if self.failed.is_none() && !self.eof {
            self.failed = Some(error);
            self.cut_off = now - self.way_seen;
        }
    }

    pub(crate) fn over(&self) -> bool {
        self.eof || self.excused
    }
}

impl World {
    pub(crate) fn open_stream(&mut self, from: usize, to: usize, total: usize, rate: usize) {
        let port = FIRST_PORT + u16::try_from(self.streams.len()).unwrap();
        let remote = SocketAddrV6::new(self.nodes[to].ip, port, 0, 0);
        let clock = self.nodes[from].clock(self.now);
        let source = self.nodes[from].stack.connect(clock, 0, remote).unwrap();
        self.streams.push(Stream {
            from,
            to,
            lives: (self.nodes[from].life, self.nodes[to].life),
            source: Some(source),
            sink: None,
            total,
            rate,
            began: self.now,
            written: 0,
            read: 0,
            finished: false,
            eof: false,
            failed: None,
            way_seen: self.now,
            was_open: true,
            cut_off: Duration::ZERO,
            excused: false,
        });
        self.write_stream(self.streams.len() - 1);
    }

    /// The writer of a stream has its turn.
    pub(crate) fn write_stream(&mut self, number: usize) {
        let stream = &self.streams[number];
        if !stream.finished && !stream.excused && stream.failed.is_none() {
            let from = stream.from;
            self.write_later(number);
            self.settle(from);
        }
    }

    /// Reads and writes what can be at node `n`.
    pub(crate) fn use_streams(&mut self, n: usize) -> bool {
        let clock = self.nodes[n].clock(self.now);
        let mut moved = false;
        while let Some(event) = self.nodes[n].stack.poll_event() {
            moved = true;
            match event {
                Event::Incoming { id, local, .. } => {
                    let number = usize::from(local.port() - FIRST_PORT);
                    self.nodes[n].stack.accept(clock, id).unwrap();
                    self.streams[number].sink = Some(id);
                }
                // Noticed here if the writer has nothing more to say.
                Event::Closed { id, reason } if reason != CloseReason::Finished => {
                    let (now, life) = (self.now, self.nodes[n].life);
                    let mine = self
                        .streams
                        .iter_mut()
                        .find(|s| s.from == n && s.lives.0 == life && s.source == Some(id));
                    if let Some(stream) = mine {
                        stream.fail(now, TcpError::Closed(reason));
                    }
                }
                _ => {}
            }
        }
        let now = self.now;
        let mut buf = [0; 16 * 1024];
        for (number, stream) in self.streams.iter_mut().enumerate() {
            let life = self.nodes[n].life;
            let stack = &mut self.nodes[n].stack;
            if stream.from == n
                && stream.lives.0 == life
                && stream.failed.is_none()
                && !stream.finished
            {
                let source = stream.source.unwrap();
                let micros = usize::try_from((now - stream.began).as_micros()).unwrap();
                let most = stream
                    .total
                    .min(stream.rate.saturating_mul(micros / 1000) / 1000 + 1);
                while stream.written < most {
                    let len = (most - stream.written).min(buf.len());
                    for (i, byte) in buf[..len].iter_mut().enumerate() {
                        *byte = content(number, stream.written + i);
                    }
                    match stack.write(clock, source, &buf[..len]) {
                        Ok(0) | Err(TcpError::WouldBlock | TcpError::InvalidState) => break,
                        Ok(n) => {
                            stream.written += n;
                            moved = true;
                        }
                        Err(error) => {
                            stream.fail(now, error);
                            break;
                        }
                    }
                }
                if stream.written == stream.total
                    && stream.failed.is_none()
                    && stack.shutdown_write(clock, source).is_ok()
                {
                    stream.finished = true;
                    moved = true;
                }
            }
            if stream.to == n
                && stream.lives.1 == life
                && let Some(sink) = stream
                    .sink
                    .filter(|_| !stream.eof && stream.failed.is_none())
            {
                loop {
                    match stack.read(clock, sink, &mut buf) {
                        Ok(0) => {
                            stream.eof = true;
                            assert_eq!(stream.read, stream.total, "stream {number} ends early");
                            stack.close(clock, sink);
                            moved = true;
                            break;
                        }
                        Ok(len) => {
                            let same = buf[..len]
                                .iter()
                                .enumerate()
                                .all(|(i, byte)| *byte == content(number, stream.read + i));
                            assert!(
                                same,
                                "stream {number} brings other bytes after {}",
                                stream.read
                            );
                            stream.read += len;
                            moved = true;
                        }
                        Err(TcpError::WouldBlock | TcpError::InvalidState) => break,
                        Err(error) => {
                            stream.fail(now, error);
                            break;
                        }
                    }
                }
            }
        }
        moved
    }

    /// Ends all streams.
    pub(crate) fn abort_streams(&mut self) {
        for stream in &self.streams {
            let ends = [
                (stream.from, stream.lives.0, stream.source),
                (stream.to, stream.lives.1, stream.sink),
            ];
            for (n, life, socket) in ends {
                let clock = self.nodes[n].clock(self.now);
                if let Some(socket) = socket.filter(|_| self.nodes[n].life == life) {
                    self.nodes[n].stack.abort(clock, socket);
                }
            }
        }
    }

    /// Streams of a node that ends, or of a pair that is parted, may fail.
    pub(crate) fn excuse(&mut self, involved: impl Fn(&Stream) -> bool) {
        for stream in &mut self.streams {
            stream.excused |= involved(stream);
        }
    }
}
