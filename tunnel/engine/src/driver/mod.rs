//! The core task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use adit_messages::tailnet;
use tokio::sync::{mpsc, watch};

use crate::command::Command;
use crate::config::NodeConfig;
use crate::error::Error;

/// Owner of all protocol state of a node.
pub(crate) struct Core {
    inbox: mpsc::Receiver<Command>,
    _commands: mpsc::WeakSender<Command>,
    _announce: watch::Sender<Option<tailnet::Node>>,
    _config: NodeConfig,
}

impl Core {
    pub(crate) fn new(
        config: NodeConfig,
        inbox: mpsc::Receiver<Command>,
        commands: mpsc::WeakSender<Command>,
        announce: watch::Sender<Option<tailnet::Node>>,
    ) -> Result<Self, Error> {
        Ok(Self {
            inbox,
            _commands: commands,
            _announce: announce,
            _config: config,
        })
    }
}

impl Future for Core {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.inbox.poll_recv(cx) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
