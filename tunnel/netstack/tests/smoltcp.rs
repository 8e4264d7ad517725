//! Interoperation with smoltcp: another stack with other habits (no SACK on
//! the sending side, a timeout of at least a second, small windows).
#![allow(clippy::unwrap_used)]

mod support;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use adit_netstack::{Event, SocketId, Stack, StackConfig, TcpError};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};
use support::{Rng, address};

#[derive(Default)]
struct Pipe {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Pipe {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1280;
        capabilities
    }
}

type InTransit = Reverse<(Duration, u64, bool, Vec<u8>)>;

struct World {
    origin: Instant,
    now: Duration,
    rng: Rng,
    loss: f64,
    own: Stack,
    other: Interface,
    pipe: Pipe,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    transit: BinaryHeap<InTransit>,
    count: u64,
}

impl World {
    fn new(loss: f64) -> Self {
        let origin = Instant::now();
        let mut pipe = Pipe::default();
        let config = Config::new(HardwareAddress::Ip);
        let mut other = Interface::new(config, &mut pipe, SmolInstant::ZERO);
        other.update_ip_addrs(|list| {
            list.push(IpCidr::new(address(1).into(), 64)).unwrap();
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_535]);
        let mut sockets = SocketSet::new(vec![]);
        let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self {
            origin,
            now: Duration::ZERO,
            rng: Rng(9),
            loss,
            own: Stack::new(StackConfig::new(vec![address(0)], 3), origin),
            other,
            pipe,
            sockets,
            handle,
            transit: BinaryHeap::new(),
            count: 0,
        }
    }

    fn instant(&self) -> Instant {
        self.origin + self.now
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn carry(&mut self, inbound: bool, packet: Vec<u8>) {
        if !self.rng.chance(self.loss) {
            self.count += 1;
            let at = self.now + Duration::from_millis(10);
            self.transit
                .push(Reverse((at, self.count, inbound, packet)));
        }
    }

    /// One millisecond; returns the stack's events.
    fn tick(&mut self) -> Vec<Event> {
        self.now += Duration::from_millis(1);
        let now = self.instant();
        while self
            .transit
            .peek()
            .is_some_and(|Reverse((at, ..))| *at <= self.now)
        {
            if let Some(Reverse((_, _, inbound, packet))) = self.transit.pop() {
                if inbound {
                    self.own.handle_packet(now, &packet);
                } else {
                    self.pipe.received.push_back(packet);
                }
            }
        }
        self.own.handle_timeout(now);
        let smol_now = SmolInstant::from_micros(self.now.as_micros() as i64);
        self.other.poll(smol_now, &mut self.pipe, &mut self.sockets);
        while let Some(packet) = self.pipe.sent.pop_front() {
            self.carry(true, packet);
        }
        let mut buf = [0; 1280];
        while let Some(transmit) = self.own.poll_transmit(now, &mut buf) {
            self.carry(false, buf[..transmit.len].to_vec());
        }
        std::iter::from_fn(|| self.own.poll_event()).collect()
    }
}

fn byte(offset: usize) -> u8 {
    (offset ^ (offset >> 8) ^ (offset >> 15)) as u8
}

/// smoltcp connects and sends `up` bytes, the stack answers with `down`.
fn exchange(loss: f64, up: usize, down: usize) -> Duration {
    let mut w = World::new(loss);
    let remote = IpEndpoint::new(address(0).into(), 80);
    w.sockets
        .get_mut::<tcp::Socket<'_>>(w.handle)
        .connect(w.other.context(), remote, 50_000)
        .unwrap();
    let mut id: Option<SocketId> = None;
    let (mut sent_up, mut got_up, mut sent_down, mut got_down) = (0, 0, 0, 0);
    while got_down < down || got_up < up || w.socket().is_open() {
        assert!(w.now < Duration::from_secs(300), "{got_up} {got_down}");
        for event in w.tick() {
            if let Event::Incoming { id: new, .. } = event {
                let now = w.instant();
                w.own.accept(now, new).unwrap();
                id = Some(new);
            }
        }
        let socket = w.socket();
        if socket.can_send() && sent_up < up {
            let chunk: Vec<u8> = (sent_up..up.min(sent_up + 8000)).map(byte).collect();
            sent_up += socket.send_slice(&chunk).unwrap();
        }
        if socket.can_recv() {
            let mut buf = [0; 8000];
            let n = socket.recv_slice(&mut buf).unwrap();
            assert!(
                buf[..n]
                    .iter()
                    .enumerate()
                    .all(|(i, b)| *b == byte(got_down + i))
            );
            got_down += n;
        }
        if got_down == down && sent_up == up && socket.may_send() {
            socket.close();
        }
        let Some(id) = id else { continue };
        let now = w.instant();
        let mut buf = [0; 8000];
        match w.own.read(now, id, &mut buf) {
            Ok(0) => {
                if sent_down == down {
                    w.own.close(now, id);
                }
            }
            Ok(n) => {
                assert!(
                    buf[..n]
                        .iter()
                        .enumerate()
                        .all(|(i, b)| *b == byte(got_up + i))
                );
                got_up += n;
            }
            Err(TcpError::WouldBlock | TcpError::UnknownSocket) => {}
            Err(error) => panic!("{error}"),
        }
        if sent_down < down {
            let chunk: Vec<u8> = (sent_down..down.min(sent_down + 8000)).map(byte).collect();
            sent_down += w.own.write(now, id, &chunk).unwrap_or(0);
        }
    }
    assert_eq!((got_up, got_down), (up, down));
    println!("loss {loss}: {up} bytes up, {down} down in {:?}", w.now);
    w.now
}

#[test]
fn data_passes_both_ways() {
    exchange(0.0, 300_000, 300_000);
    exchange(0.0, 0, 1);
    exchange(0.0, 1, 0);
}

#[test]
fn data_passes_both_ways_in_spite_of_loss() {
    exchange(0.02, 100_000, 0);
    exchange(0.02, 0, 300_000);
    exchange(0.05, 50_000, 50_000);
}
