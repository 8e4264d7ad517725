//! Sockets and the map from flows to them.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv6Addr, SocketAddrV6};

use crate::SocketId;
use crate::tcp::{Nanos, Remains, Tcb};

/// Identifies a connection; first the own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) local: (Ipv6Addr, u16),
    pub(super) remote: (Ipv6Addr, u16),
}

impl Flow {
    pub(super) fn of(tcb: &Tcb) -> Self {
        Self {
            local: (*tcb.local.ip(), tcb.local.port()),
            remote: (*tcb.remote.ip(), tcb.remote.port()),
        }
    }

    /// For the keyed hash.
    pub(super) fn bytes(&self) -> [u8; 36] {
        let mut bytes = [0; 36];
        bytes[..16].copy_from_slice(&self.local.0.octets());
        bytes[16..32].copy_from_slice(&self.remote.0.octets());
        bytes[32..34].copy_from_slice(&self.local.1.to_be_bytes());
        bytes[34..].copy_from_slice(&self.remote.1.to_be_bytes());
        bytes
    }

    pub(super) fn local(&self) -> SocketAddrV6 {
        SocketAddrV6::new(self.local.0, self.local.1, 0, 0)
    }

    pub(super) fn remote(&self) -> SocketAddrV6 {
        SocketAddrV6::new(self.remote.0, self.remote.1, 0, 0)
    }
}

/// What a flow belongs to.
#[derive(Debug)]
pub(super) enum Owner {
    Socket(u32),
    TimeWait(Remains),
}

/// A place for a socket.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) tcb: Option<Box<Tcb>>,
    /// In the transmit queue.
    pub(super) ready: bool,
    /// In the event queue.
    pub(super) notified: bool,
    /// Waiting for its pacing time.
    pub(super) paced: bool,
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    flows: HashMap<Flow, Owner>,
    /// Packets come in runs: the flow looked up last.
    last: Option<(Flow, u32)>,
    time_wait: VecDeque<(Nanos, Flow)>,
    sockets: usize,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.sockets
    }

    pub(super) fn contains(&self, flow: &Flow) -> bool {
        self.flows.contains_key(flow)
    }

    pub(super) fn find(&mut self, flow: &Flow) -> Option<&mut Owner> {
        self.flows.get_mut(flow)
    }

    /// Index of the socket of a flow.
    pub(super) fn socket(&mut self, flow: &Flow) -> Option<u32> {
        if let Some((last, index)) = &self.last
            && last == flow
        {
            return Some(*index);
        }
        match self.flows.get(flow) {
            Some(&Owner::Socket(index)) => {
                self.last = Some((*flow, index));
                Some(index)
            }
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, tcb: Tcb) -> u32 {
        let flow = Flow::of(&tcb);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.tcb = Some(Box::new(tcb));
        slot.paced = false;
        self.flows.insert(flow, Owner::Socket(index));
        self.sockets += 1;
        index
    }

    /// Forgets a socket. Its slot is reused once it has left the queues.
    pub(super) fn remove(&mut self, index: u32) -> Option<Box<Tcb>> {
        let slot = self.slots.get_mut(index as usize)?;
        let tcb = slot.tcb.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.paced = false;
        self.sockets -= 1;
        let flow = Flow::of(&tcb);
        if matches!(self.flows.get(&flow), Some(Owner::Socket(i)) if *i == index) {
            self.flows.remove(&flow);
        }
        self.last = None;
        self.reuse(index);
        Some(tcb)
    }

    /// Puts an empty slot on the free list if no queue refers to it.
    pub(super) fn reuse(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        if slot.tcb.is_none() && !slot.ready && !slot.notified {
            self.free.push(index);
        }
    }

    pub(super) fn slot(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    pub(super) fn id(&self, index: u32) -> SocketId {
        SocketId {
            index,
            generation: self.slots[index as usize].generation,
        }
    }

    /// Index of a handle that is valid and was not released.
    pub(super) fn index(&self, id: SocketId) -> Option<u32> {
        let slot = self.slots.get(id.index as usize)?;
        let tcb = slot.tcb.as_ref()?;
        (slot.generation == id.generation && !tcb.released).then_some(id.index)
    }

    pub(super) fn get(&self, id: SocketId) -> Option<&Tcb> {
        let index = self.index(id)?;
        self.slots[index as usize].tcb.as_deref()
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = (u32, &Tcb)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(i, slot)| Some((i as u32, slot.tcb.as_deref()?)))
    }

    /// Keeps what is left of a connection for TIME-WAIT; at most `most`.
    pub(super) fn add_time_wait(
        &mut self,
        flow: Flow,
        remains: Remains,
        until: Nanos,
        most: usize,
    ) {
        while self.time_wait.len() >= most.max(1) {
            self.drop_oldest_time_wait();
        }
        self.flows.insert(flow, Owner::TimeWait(remains));
        self.time_wait.push_back((until, flow));
    }

    fn drop_oldest_time_wait(&mut self) {
        if let Some((_, flow)) = self.time_wait.pop_front() {
            self.remove_time_wait(&flow);
        }
    }

    pub(super) fn remove_time_wait(&mut self, flow: &Flow) {
        if matches!(self.flows.get(flow), Some(Owner::TimeWait(_))) {
            self.flows.remove(flow);
        }
    }

    /// Gives back what a burst of connections needed. Slots stay: what is left
    /// of a handle must not fit another socket.
    pub(super) fn shrink(&mut self) {
        self.flows.shrink_to(super::FEW);
        self.time_wait.shrink_to(super::FEW);
    }

    /// When the oldest TIME-WAIT entry may be forgotten.
    pub(super) fn time_wait_end(&self) -> Option<Nanos> {
        self.time_wait.front().map(|&(until, _)| until)
    }

    pub(super) fn expire_time_wait(&mut self, now: Nanos) {
        while self.time_wait_end().is_some_and(|until| until <= now) {
            self.drop_oldest_time_wait();
        }
    }
}
