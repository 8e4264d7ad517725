//! What the tasks of one connection share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use russh::ChannelId;
use russh::server::Handle;
use tokio_util::sync::CancellationToken;

use crate::inbox::Inbox;
use crate::server::Shared;
use crate::tasks::Tasks;

/// One connection.
pub(crate) struct Connection {
    /// The server it belongs to.
    pub(crate) server: Arc<Shared>,
    /// Address of the peer without port; may be empty.
    pub(crate) peer_ip: String,
    /// Ends everything that belongs to the connection.
    pub(crate) token: CancellationToken,
    /// Sessions, forwards and listeners.
    pub(crate) tasks: Tasks,
    handle: OnceLock<Handle>,
    agent_forwarding: AtomicBool,
    channels: Mutex<HashMap<ChannelId, Entry>>,
}

struct Entry {
    inbox: Arc<Inbox>,
    closed: CancellationToken,
}

impl Connection {
    pub(crate) fn new(server: Arc<Shared>, peer_ip: String, token: CancellationToken) -> Self {
        Self {
            server,
            peer_ip,
            token,
            tasks: Tasks::default(),
            handle: OnceLock::new(),
            agent_forwarding: AtomicBool::new(false),
            channels: Mutex::default(),
        }
    }

    /// Makes the library's handle available to tasks that open channels.
    pub(crate) fn set_handle(&self, handle: Handle) {
        let _ = self.handle.set(handle);
    }

    /// The library's handle, once the peer is authenticated. Never await it
    /// inside a handler callback: the callback blocks the loop that answers.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.handle.get()
    }

    /// The peer offers its SSH agent, to all sessions of the connection.
    pub(crate) fn offer_agent(&self) {
        self.agent_forwarding.store(true, Ordering::Relaxed);
    }

    pub(crate) fn agent_offered(&self) -> bool {
        self.agent_forwarding.load(Ordering::Relaxed)
    }

    /// The inbox of a channel and the token that tells when it is closed;
    /// made on first use.
    pub(crate) fn register(&self, id: ChannelId) -> (Arc<Inbox>, CancellationToken) {
        let mut channels = self.channels();
        let entry = channels.entry(id).or_insert_with(|| Entry {
            inbox: Arc::default(),
            closed: self.token.child_token(),
        });
        (Arc::clone(&entry.inbox), entry.closed.clone())
    }

    /// The inbox of a channel that is still wanted.
    pub(crate) fn inbox(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        self.channels().get(&id).map(|e| Arc::clone(&e.inbox))
    }

    /// The peer closed the channel.
    pub(crate) fn closed(&self, id: ChannelId) {
        if let Some(entry) = self.channels().remove(&id) {
            entry.inbox.end();
            entry.closed.cancel();
        }
    }

    /// Nobody here is interested in the channel any more.
    pub(crate) fn forget(&self, id: ChannelId) {
        self.channels().remove(&id);
    }

    /// Lets the peer send more once `len` bytes of a channel are consumed.
    pub(crate) fn consumed(&self, id: ChannelId, inbox: &Inbox, len: usize) {
        if let (Some(amount), Some(handle)) = (inbox.consume(len), self.handle()) {
            handle.adjust_window(id, amount);
        }
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<ChannelId, Entry>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
