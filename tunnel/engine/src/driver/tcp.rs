//! TCP connections: between the stack's sockets and the users' streams.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddrV6;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use adit_netstack::{CloseReason, Event, SocketId, Stack, TcpError};
use tokio::sync::mpsc;

use crate::cell::{Doorbell, RING_MAX, StreamCell};
use crate::command::{Command, Reply};
use crate::error::Error;
use crate::listener::PendingConn;
use crate::stream::TcpStream;

/// Room in the write ring that is worth waking a writer for.
const WAKE_ROOM: usize = RING_MAX / 4;

/// A connection before it is a stream.
#[derive(Debug)]
enum Opening {
    /// Own dial.
    Dial(Reply<Result<TcpStream, Error>>),
    /// Accepted for the listener of a port.
    Listener(u16),
    /// Waits for the rest listener's decision.
    Undecided,
    /// Accepted by the rest listener.
    Accepted(Reply<Result<TcpStream, Error>>),
}

#[derive(Debug)]
struct Conn {
    socket: SocketId,
    cell: Arc<StreamCell>,
    fin_sent: bool,
    /// The stack gave a final answer for reads.
    read_done: bool,
}

/// All TCP state above the stack.
#[derive(Debug)]
pub(crate) struct Tcp {
    doorbell: Arc<Doorbell>,
    conns: HashMap<u64, Conn>,
    by_socket: HashMap<SocketId, u64>,
    opening: HashMap<SocketId, Opening>,
    pending: HashMap<u64, SocketId>,
    listeners: HashMap<u16, mpsc::Sender<TcpStream>>,
    rest: Option<mpsc::Sender<PendingConn>>,
    commands: mpsc::WeakSender<Command>,
    next_id: u64,
    total: u64,
    dirty: Vec<u64>,
}

impl Tcp {
    pub(crate) fn new(commands: mpsc::WeakSender<Command>) -> Self {
        Self {
            doorbell: Arc::default(),
            conns: HashMap::new(),
            by_socket: HashMap::new(),
            opening: HashMap::new(),
            pending: HashMap::new(),
            listeners: HashMap::new(),
            rest: None,
            commands,
            next_id: 1,
            total: 0,
            dirty: Vec::new(),
        }
    }

    /// Open connections, and all there ever were.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.conns.len() as u64, self.total)
    }

    pub(crate) fn listen(
        &mut self,
        port: u16,
        incoming: mpsc::Sender<TcpStream>,
    ) -> Result<(), Error> {
        if self.listeners.get(&port).is_some_and(|l| !l.is_closed()) {
            return Err(Error::PortInUse(port));
        }
        self.listeners.insert(port, incoming);
        Ok(())
    }

    pub(crate) fn listen_rest(&mut self, incoming: mpsc::Sender<PendingConn>) {
        self.rest = Some(incoming);
    }

    pub(crate) fn dial(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        remote: SocketAddrV6,
        reply: Reply<Result<TcpStream, Error>>,
    ) {
        match stack.connect(now, 0, remote) {
            Ok(socket) => {
                self.opening.insert(socket, Opening::Dial(reply));
            }
            Err(error) => {
                let _ = reply.send(Err(refusal(error)));
            }
        }
    }

    pub(crate) fn accept(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        id: u64,
        reply: Reply<Result<TcpStream, Error>>,
    ) {
        let Some(socket) = self.pending.remove(&id) else {
            let _ = reply.send(Err(gone()));
            return;
        };
        if stack.accept(now, socket).is_ok() {
            self.opening.insert(socket, Opening::Accepted(reply));
        } else {
            self.opening.remove(&socket);
            let _ = reply.send(Err(gone()));
        }
    }

    pub(crate) fn reject(&mut self, now: Instant, stack: &mut Stack, id: u64) {
        if let Some(socket) = self.pending.remove(&id) {
            self.opening.remove(&socket);
            let _ = stack.reject(now, socket);
        }
    }

    /// Serves the streams that rang. Returns whether there were any.
    pub(crate) fn answer_doorbell(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        waker: &Waker,
    ) -> bool {
        let mut dirty = std::mem::take(&mut self.dirty);
        self.doorbell.take(waker, &mut dirty);
        let any = !dirty.is_empty();
        for id in dirty.drain(..) {
            self.serve(now, stack, id);
        }
        self.dirty = dirty;
        any
    }

    /// Handles a TCP event of the stack.
    pub(crate) fn handle_event(&mut self, now: Instant, stack: &mut Stack, event: &Event) {
        match event {
            Event::Incoming { id, local, remote } => {
                self.incoming(now, stack, *id, *local, *remote)
            }
            Event::Connected(id) => self.connected(now, stack, *id),
            Event::Readable(id) | Event::Writable(id) => {
                if let Some(conn) = self.by_socket.get(id) {
                    self.serve(now, stack, *conn);
                }
            }
            Event::Closed { id, reason } => self.closed(now, stack, *id, *reason),
            _ => {}
        }
    }

    fn incoming(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        socket: SocketId,
        local: SocketAddrV6,
        remote: SocketAddrV6,
    ) {
        let port = local.port();
        if let Some(listener) = self.listeners.get(&port) {
            if listener.is_closed() {
                self.listeners.remove(&port);
            } else if stack.accept(now, socket).is_ok() {
                self.opening.insert(socket, Opening::Listener(port));
                return;
            }
        }
        if let (Some(rest), Some(commands)) = (&self.rest, self.commands.upgrade()) {
            let id = self.next_id;
            self.next_id += 1;
            let pending = PendingConn {
                id,
                local,
                remote,
                commands: Some(commands),
            };
            match rest.try_send(pending) {
                Ok(()) => {
                    self.pending.insert(id, socket);
                    self.opening.insert(socket, Opening::Undecided);
                    return;
                }
                Err(mpsc::error::TrySendError::Full(mut pending)) => {
                    // The peer's next SYN gets another chance.
                    pending.commands = None;
                }
                Err(mpsc::error::TrySendError::Closed(mut pending)) => {
                    pending.commands = None;
                    self.rest = None;
                }
            }
        }
        // Nobody serves connections here: be silent.
        let _ = stack.ignore(now, socket);
    }

    fn connected(&mut self, now: Instant, stack: &mut Stack, socket: SocketId) {
        let Some(opening) = self.opening.remove(&socket) else {
            return;
        };
        let Some((local, remote)) = stack.addresses_of(socket) else {
            return;
        };
        let id = self.next_id;
        self.next_id += 1;
        self.total += 1;
        let cell = Arc::new(StreamCell::new(id, Arc::clone(&self.doorbell)));
        self.conns.insert(
            id,
            Conn {
                socket,
                cell: Arc::clone(&cell),
                fin_sent: false,
                read_done: false,
            },
        );
        self.by_socket.insert(socket, id);
        let stream = TcpStream::new(cell, local, remote);
        match opening {
            Opening::Dial(reply) | Opening::Accepted(reply) => {
                // A dialler that gave up drops the stream, which closes it.
                let _ = reply.send(Ok(stream));
            }
            Opening::Listener(port) => {
                let refused = match self.listeners.get(&port) {
                    Some(listener) => listener.try_send(stream).err().map(|e| match e {
                        mpsc::error::TrySendError::Full(s)
                        | mpsc::error::TrySendError::Closed(s) => s,
                    }),
                    None => Some(stream),
                };
                if let Some(stream) = refused {
                    stream.abort();
                }
            }
            Opening::Undecided => drop(stream),
        }
        // Data may have arrived together with the last handshake segment.
        self.serve(now, stack, id);
    }

    fn closed(&mut self, now: Instant, stack: &mut Stack, socket: SocketId, reason: CloseReason) {
        if let Some(opening) = self.opening.remove(&socket) {
            match opening {
                Opening::Dial(reply) | Opening::Accepted(reply) => {
                    let _ = reply.send(Err(refusal(TcpError::Closed(reason))));
                }
                Opening::Listener(_) | Opening::Undecided => {
                    self.pending.retain(|_, s| *s != socket)
                }
            }
            stack.close(now, socket);
            return;
        }
        if let Some(id) = self.by_socket.get(&socket).copied() {
            self.serve(now, stack, id);
        }
    }

    /// Moves bytes both ways for one stream, and its end.
    fn serve(&mut self, now: Instant, stack: &mut Stack, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let socket = conn.socket;
        let mut state = conn.cell.lock();
        state.answer();
        if state.abort {
            drop(state);
            stack.abort(now, socket);
            self.forget(id);
            return;
        }

        let mut failed = None;
        let before = state.tx.len();
        loop {
            let (first, _) = state.tx.slices();
            if first.is_empty() {
                break;
            }
            match stack.write(now, socket, first) {
                Ok(0) => break,
                Ok(n) => state.tx.consume(n),
                Err(TcpError::WouldBlock) => break,
                Err(error) => {
                    failed = Some(kind(error));
                    break;
                }
            }
        }
        let writer = if before > 0 && (state.tx.is_empty() || state.tx.space() >= WAKE_ROOM) {
            state.wake_writer()
        } else {
            None
        };
        if state.tx.is_empty() && state.tx_shutdown && !conn.fin_sent {
            conn.fin_sent = true;
            let _ = stack.shutdown_write(now, socket);
        }

        let mut reader = None;
        if !conn.read_done && !state.dropped {
            let mut blocked = false;
            let mut ended = false;
            let got = state
                .rx
                .fill_with(RING_MAX, |buf| match stack.read(now, socket, buf) {
                    Ok(0) => {
                        ended = true;
                        0
                    }
                    Ok(n) => n,
                    Err(TcpError::WouldBlock) => {
                        blocked = true;
                        0
                    }
                    Err(error) => {
                        failed = Some(kind(error));
                        0
                    }
                });
            state.rx_stalled = !blocked && !ended && failed.is_none();
            conn.read_done = ended;
            state.rx_eof |= ended;
            if got > 0 || ended {
                reader = state.wake_reader();
            }
        }
        let mut over = false;
        if let Some(error) = failed {
            state.error.get_or_insert(error);
            over = true;
        }
        let (reader, writer) = if over {
            (
                reader.or_else(|| state.wake_reader()),
                writer.or_else(|| state.wake_writer()),
            )
        } else {
            (reader, writer)
        };
        let done = state.dropped && (over || state.tx.is_empty());
        if done {
            state.rx.clear();
        }
        drop(state);
        if let Some(waker) = reader {
            waker.wake();
        }
        if let Some(waker) = writer {
            waker.wake();
        }
        if done || over {
            stack.close(now, socket);
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        if let Some(conn) = self.conns.remove(&id) {
            self.by_socket.remove(&conn.socket);
        }
    }

    /// Frees the room of tables that a burst of connections needed.
    pub(crate) fn shrink(&mut self) {
        self.conns.shrink_to_fit();
        self.by_socket.shrink_to_fit();
        self.opening.shrink_to_fit();
        self.pending.shrink_to_fit();
        self.dirty.shrink_to_fit();
        self.doorbell.shrink();
    }

    /// Ends every connection; users see resets.
    pub(crate) fn close_all(&mut self, now: Instant, stack: &mut Stack) {
        for (_, conn) in self.conns.drain() {
            stack.abort(now, conn.socket);
            let mut state = conn.cell.lock();
            state.error.get_or_insert(io::ErrorKind::ConnectionAborted);
            let wakers = [state.wake_reader(), state.wake_writer()];
            drop(state);
            wakers.into_iter().flatten().for_each(Waker::wake);
        }
        self.by_socket.clear();
        self.opening.clear();
        self.pending.clear();
    }
}

fn kind(error: TcpError) -> io::ErrorKind {
    match error {
        TcpError::Closed(CloseReason::Refused) => io::ErrorKind::ConnectionRefused,
        TcpError::Closed(CloseReason::Reset) => io::ErrorKind::ConnectionReset,
        TcpError::Closed(CloseReason::TimedOut) => io::ErrorKind::TimedOut,
        TcpError::Closed(CloseReason::Unreachable) => io::ErrorKind::HostUnreachable,
        TcpError::Closed(CloseReason::Finished) => io::ErrorKind::BrokenPipe,
        _ => io::ErrorKind::ConnectionAborted,
    }
}

fn refusal(error: TcpError) -> Error {
    match error {
        TcpError::Closed(CloseReason::TimedOut) => {
            Error::Timeout("the peer to accept the connection")
        }
        TcpError::Closed(CloseReason::Refused | CloseReason::Reset) => Error::Refused,
        TcpError::Limit => Error::Exhausted("connections"),
        TcpError::PortInUse => Error::Exhausted("local ports"),
        other => Error::Io(io::Error::new(kind(other), other)),
    }
}

fn gone() -> Error {
    Error::Io(io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the peer gave the connection attempt up",
    ))
}
