//! What the client asks for.
//!
//! Everything here is called by the task that moves the connection's bytes,
//! so it only notes what the client wants, answers, and starts tasks.

use std::collections::HashMap;
use std::sync::Arc;

use adit_ssh::{ChannelId, Global, GlobalReply, Open, Opening, Refusal, Request};
use tokio::sync::mpsc;

use crate::channel::ChannelIo;
use crate::connection::Connection;
use crate::forward::{Direct, Listeners};
use crate::session::{PtyRequest, Slot, Start, X11Request};

/// Requests about listeners that may wait; as many as the protocol queues.
const LISTENER_REQUESTS: usize = 128;

/// One connection's handler.
pub(crate) struct Handler {
    conn: Arc<Connection>,
    sessions: HashMap<ChannelId, Slot>,
    /// To the task that owns the listeners, once there is one.
    listeners: Option<mpsc::Sender<(GlobalReply, Global)>>,
}

impl Handler {
    pub(crate) fn new(conn: Arc<Connection>) -> Self {
        Self {
            conn,
            sessions: HashMap::new(),
            listeners: None,
        }
    }

    /// Starts a session's program, once.
    fn start(&mut self, id: ChannelId, start: Start) -> bool {
        let Some(setup) = self.sessions.get_mut(&id).and_then(Slot::take) else {
            return false;
        };
        let conn = Arc::clone(&self.conn);
        self.conn.tasks.spawn(setup.run(conn, start));
        true
    }

    fn with_slot(&mut self, id: ChannelId, work: impl FnOnce(&mut Slot) -> bool) -> bool {
        self.sessions.get_mut(&id).is_some_and(work)
    }

    fn direct(&self, target: Direct, opening: Opening) {
        self.conn
            .tasks
            .spawn(target.run(Arc::clone(&self.conn), opening));
    }
}

impl adit_ssh::Handler for Handler {
    fn authenticated(&mut self, conn: &adit_ssh::Connection, _: &[u8]) {
        self.conn.set_protocol(conn.clone());
    }

    fn open(&mut self, opening: Opening, open: Open) {
        let blocked = self.conn.server.config.block_local_port_forwarding;
        match open {
            Open::Session => {
                if let Some(channel) = opening.accept() {
                    let io = ChannelIo::new(channel);
                    self.sessions.insert(io.id(), Slot::new(io));
                }
            }
            Open::DirectTcpip { .. } if blocked => {
                opening.refuse(Refusal::Prohibited, "port forwarding is disabled");
            }
            Open::DirectTcpip {
                host,
                port,
                originator,
                ..
            } => match u16::try_from(port) {
                Ok(port) => self.direct(Direct::tcp(host, port, originator), opening),
                Err(_) => opening.refuse(Refusal::ConnectFailed, "no such port"),
            },
            Open::DirectStreamlocal { .. } if blocked => {
                opening.refuse(Refusal::Prohibited, "local port forwarding is disabled");
            }
            Open::DirectStreamlocal { path } => self.direct(Direct::unix(path), opening),
            _ => opening.refuse(Refusal::UnknownType, "unknown channel type"),
        }
    }

    fn request(&mut self, id: ChannelId, request: Request) -> bool {
        match request {
            Request::Pty {
                term,
                cols,
                rows,
                modes,
            } => {
                let request = PtyRequest::new(term, modes);
                self.with_slot(id, |slot| slot.set_pty(request, cols, rows))
            }
            Request::WindowChange { cols, rows } => {
                self.with_slot(id, |slot| slot.resize(cols, rows))
            }
            Request::Env { name, value } => self.with_slot(id, |slot| slot.set_env(name, value)),
            Request::X11 {
                single,
                protocol,
                cookie,
                screen,
            } => {
                let request = X11Request::new(single, protocol, cookie, screen);
                self.with_slot(id, |slot| slot.set_x11(request))
            }
            Request::Agent => {
                self.conn.offer_agent();
                true
            }
            Request::Shell => self.start(id, Start::Shell),
            Request::Exec(command) => self.start(id, Start::Exec(command.into())),
            Request::Subsystem(name) => name == b"sftp" && self.start(id, Start::Sftp),
            Request::Signal(name) => self.with_slot(id, |slot| {
                slot.signal(&name);
                true
            }),
            Request::Keepalive => true,
            _ => false,
        }
    }

    fn global(&mut self, reply: GlobalReply, request: Global) {
        let listeners = self.listeners.get_or_insert_with(|| {
            let (sender, requests) = mpsc::channel(LISTENER_REQUESTS);
            let listeners = Listeners::new(Arc::clone(&self.conn));
            self.conn.tasks.spawn(listeners.serve(requests));
            sender
        });
        // A request that finds no place is refused.
        let _ = listeners.try_send((reply, request));
    }

    fn closed(&mut self, id: ChannelId) {
        self.sessions.remove(&id);
    }
}
