//! Callbacks of the SSH library.
//!
//! They run inside the connection's event loop, so they only note what the
//! peer wants, answer, and start tasks.

use std::collections::HashMap;
use std::sync::Arc;

use russh::server::{Auth, ChannelOpenHandle, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};

use crate::channel::ChannelIo;
use crate::connection::Connection;
use crate::forward::{Direct, Listeners};
use crate::session::{PtyRequest, Slot, Start, X11Request};

/// One connection's handler.
pub(crate) struct Handler {
    conn: Arc<Connection>,
    sessions: HashMap<ChannelId, Slot>,
    listeners: Listeners,
}

type Outcome<T = ()> = Result<T, russh::Error>;

impl Handler {
    pub(crate) fn new(conn: Arc<Connection>) -> Self {
        Self {
            listeners: Listeners::new(Arc::clone(&conn)),
            conn,
            sessions: HashMap::new(),
        }
    }

    fn answer(session: &mut Session, channel: ChannelId, ok: bool) -> Outcome {
        if ok {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    /// Starts a session's program, once.
    fn start(&mut self, channel: ChannelId, start: Start, session: &mut Session) -> Outcome {
        let setup = self.sessions.get_mut(&channel).and_then(Slot::take);
        let ok = setup.is_some();
        Self::answer(session, channel, ok)?;
        if let Some(setup) = setup {
            let conn = Arc::clone(&self.conn);
            self.conn.tasks.spawn(setup.run(conn, start));
        }
        Ok(())
    }

    fn direct(&self, target: Direct, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        let io = ChannelIo::new(Arc::clone(&self.conn), channel);
        self.conn
            .tasks
            .spawn(target.run(Arc::clone(&self.conn), io, reply));
    }

    fn deliver(&self, channel: ChannelId, data: &[u8]) {
        if let Some(inbox) = self.conn.inbox(channel)
            && !inbox.push(data)
        {
            self.conn.consumed(channel, &inbox, data.len());
        }
    }
}

fn prohibited(reason: &str) -> ChannelOpenFailure {
    ChannelOpenFailure::Other {
        code: ChannelOpenFailure::AdministrativelyProhibited.code(),
        reason: reason.to_owned(),
    }
}

impl russh::server::Handler for Handler {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Outcome<Auth> {
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Outcome {
        self.conn.set_handle(session.handle());
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Outcome {
        let io = ChannelIo::new(Arc::clone(&self.conn), channel);
        self.sessions.insert(io.id(), Slot::new(io));
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Outcome {
        if self.conn.server.config.block_local_port_forwarding {
            reply
                .reject(prohibited("port forwarding is disabled"))
                .await;
            return Ok(());
        }
        match u16::try_from(port) {
            Ok(port) => self.direct(Direct::tcp(host, port, originator), channel, reply),
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Outcome {
        if self.conn.server.config.block_local_port_forwarding {
            reply
                .reject(prohibited("local port forwarding is disabled"))
                .await;
            return Ok(());
        }
        self.direct(Direct::unix(path), channel, reply);
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Outcome {
        reply.reject(ChannelOpenFailure::UnknownChannelType).await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Outcome {
        reply.reject(ChannelOpenFailure::UnknownChannelType).await;
        Ok(())
    }

    /// A channel we asked for is open: its data may follow at once.
    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Outcome {
        self.conn.register(id);
        Ok(())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Outcome {
        self.deliver(channel, data);
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Session) -> Outcome {
        if let Some(inbox) = self.conn.inbox(channel) {
            inbox.end();
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Outcome {
        self.sessions.remove(&channel);
        self.conn.closed(channel);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Outcome {
        let request = PtyRequest::new(term, modes);
        let ok = self
            .sessions
            .get_mut(&channel)
            .is_some_and(|slot| slot.set_pty(request, cols, rows));
        Self::answer(session, channel, ok)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        session: &mut Session,
    ) -> Outcome {
        let ok = self
            .sessions
            .get_mut(&channel)
            .is_some_and(|slot| slot.resize(cols, rows));
        Self::answer(session, channel, ok)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Outcome {
        let ok = self
            .sessions
            .get_mut(&channel)
            .is_some_and(|slot| slot.set_env(name, value));
        Self::answer(session, channel, ok)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        single_connection: bool,
        protocol: &str,
        cookie: &str,
        screen: u32,
        session: &mut Session,
    ) -> Outcome {
        let request = X11Request::new(single_connection, protocol, cookie, screen);
        let ok = self
            .sessions
            .get_mut(&channel)
            .is_some_and(|slot| slot.set_x11(request));
        Self::answer(session, channel, ok)
    }

    /// The library answers by itself.
    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Outcome<bool> {
        self.conn.offer_agent();
        Ok(true)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Outcome {
        self.start(channel, Start::Shell, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Outcome {
        self.start(channel, Start::exec(command), session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Outcome {
        if name == "sftp" {
            self.start(channel, Start::Sftp, session)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, _: &mut Session) -> Outcome {
        if let Some(slot) = self.sessions.get(&channel) {
            slot.signal(&signal);
        }
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Outcome<bool> {
        match self.listeners.listen_tcp(address, *port).await {
            Ok(bound) => {
                *port = u32::from(bound);
                Ok(true)
            }
            Err(error) => {
                tracing::debug!(%error, address, port, "remote forward refused");
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut Session,
    ) -> Outcome<bool> {
        self.listeners.cancel_tcp(address, port);
        Ok(true)
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Outcome<bool> {
        match self.listeners.listen_unix(path) {
            Ok(()) => Ok(true),
            Err(error) => {
                tracing::debug!(%error, path, "remote socket forward refused");
                Ok(false)
            }
        }
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Outcome<bool> {
        self.listeners.cancel_unix(path);
        Ok(true)
    }
}
