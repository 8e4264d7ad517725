//! What frames of the peer do to a session.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    error::{Error, GoAwayCode, Violation},
    frame::{Flags, FrameType, Header},
    session::{Event, Session},
    stream::{LocalEnd, StreamState},
};

impl Session {
    pub(crate) fn handle_header(&mut self, now: Instant, header: Header) -> Result<(), Error> {
        match header.frame_type {
            FrameType::Ping => {
                self.handle_ping(now, header);
                Ok(())
            }
            FrameType::GoAway => self.handle_go_away(GoAwayCode(header.length)),
            FrameType::Data | FrameType::WindowUpdate => self.handle_stream_frame(header),
        }
    }

    /// Data that arrived for a stream. Its window was charged with the header.
    pub(crate) fn handle_body(&mut self, id: u32, data: Bytes) -> Result<(), Error> {
        let Some(state) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if state.off_wire || state.orphaned || state.remote_fin {
            return Ok(());
        }
        self.buffered += data.len();
        if self.buffered > self.config.max_buffered {
            return Err(Violation::Budget.into());
        }
        state.recv.push(data);
        self.events.push_back(Event::Readable(id));
        Ok(())
    }

    fn handle_ping(&mut self, now: Instant, header: Header) {
        if header.flags.contains(Flags::SYN) {
            self.send_control(FrameType::Ping, Flags::ACK, 0, header.length);
            return;
        }
        let Some(sent) = self.pings.remove(&header.length) else {
            return;
        };
        if self.keepalive_id == Some(header.length) {
            self.schedule_keepalive(now);
        } else {
            let rtt = now.saturating_duration_since(sent);
            self.events.push_back(Event::Pong(header.length, rtt));
        }
    }

    fn handle_go_away(&mut self, code: GoAwayCode) -> Result<(), Error> {
        if code != GoAwayCode::NORMAL {
            return Err(Error::RemoteGoAway(code));
        }
        self.remote_go_away = true;
        self.events.push_back(Event::CanOpen);
        Ok(())
    }

    fn handle_stream_frame(&mut self, header: Header) -> Result<(), Error> {
        let id = header.stream;
        if header.flags.contains(Flags::SYN) {
            self.handle_syn(id)?;
        }
        let Some(state) = self.streams.get_mut(&id).filter(|state| !state.off_wire) else {
            return Ok(());
        };
        match header.frame_type {
            FrameType::WindowUpdate => {
                state.send_window = state.send_window.saturating_add(header.length);
                self.enqueue(id);
            }
            _ => {
                state.recv_window = state
                    .recv_window
                    .checked_sub(header.length)
                    .ok_or(Violation::Window(id))?;
            }
        }
        self.handle_flags(id, header)
    }

    fn handle_syn(&mut self, id: u32) -> Result<(), Error> {
        if id == 0 {
            return Err(Violation::StreamId(id).into());
        }
        if self.streams.contains_key(&id) {
            return Err(Violation::DuplicateStream(id).into());
        }
        let full = self.accept_queue.len() >= self.config.accept_backlog
            || self.inbound >= self.config.max_inbound_streams;
        if full || self.local_go_away {
            self.send_control(FrameType::WindowUpdate, Flags::RST, id, 0);
            return Ok(());
        }
        self.inbound += 1;
        self.streams.insert(id, StreamState::new(false));
        self.accept_queue.push_back(id);
        self.events.push_back(Event::Incoming);
        Ok(())
    }

    /// ACK, FIN and RST. A FIN on a Data frame follows the frame's body, which
    /// has not been seen yet.
    fn handle_flags(&mut self, id: u32, header: Header) -> Result<(), Error> {
        let Some(state) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if header.flags.contains(Flags::ACK) && state.outbound && !state.established {
            state.established = true;
            self.unacked = self.unacked.saturating_sub(1);
            self.events.push_back(Event::CanOpen);
        }
        if header.flags.contains(Flags::RST) {
            self.kill_stream(id);
            return Ok(());
        }
        if header.flags.contains(Flags::FIN) {
            let Some(state) = self.streams.get_mut(&id) else {
                return Ok(());
            };
            if state.remote_fin {
                return Err(Violation::UnexpectedFlag(id).into());
            }
            if header.frame_type == FrameType::Data && header.length > 0 {
                self.decoder.delay_fin();
            } else {
                self.remote_finished(id);
            }
        }
        Ok(())
    }

    /// The peer's direction is complete.
    pub(crate) fn remote_finished(&mut self, id: u32) {
        let Some(state) = self.streams.get_mut(&id) else {
            return;
        };
        if state.off_wire {
            return;
        }
        state.remote_fin = true;
        self.events.push_back(Event::Readable(id));
        if state.both_finished() {
            self.leave_wire(id);
        }
    }

    /// Reset by either side: queued data is lost, reads and writes fail.
    pub(crate) fn kill_stream(&mut self, id: u32) {
        let Some(state) = self.streams.get_mut(&id) else {
            return;
        };
        state.reset = true;
        state.send.clear();
        self.buffered = self.buffered.saturating_sub(state.recv.len());
        state.recv.clear();
        self.events.push_back(Event::Readable(id));
        self.events.push_back(Event::Writable(id));
        self.leave_wire(id);
    }

    /// No more frames for this stream in either direction. It stays known
    /// while the application holds it.
    pub(crate) fn leave_wire(&mut self, id: u32) {
        let Some(state) = self.streams.get_mut(&id) else {
            return;
        };
        if state.off_wire {
            return;
        }
        state.off_wire = true;
        if state.local == LocalEnd::Closing {
            state.local = LocalEnd::FinSent;
        }
        if !state.outbound {
            self.inbound = self.inbound.saturating_sub(1);
        } else if !state.established {
            self.unacked = self.unacked.saturating_sub(1);
            self.events.push_back(Event::CanOpen);
        }
        if state.orphaned {
            self.streams.remove(&id);
        }
    }
}
