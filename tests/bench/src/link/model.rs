//! One direction of a link, without input or output: a bounded queue before a
//! bottleneck, then a delay line on which packets are lost, doubled or held
//! back.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

/// What one direction does to packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Bits per second through the bottleneck, counting whole IP packets.
    /// `None`: no bottleneck, and so no queue.
    pub(crate) rate: Option<u64>,
    /// Time from the end of transmission to delivery.
    pub(crate) delay: Duration,
    /// Packets that may wait for the bottleneck or be in it; one more is
    /// dropped.
    pub(crate) queue: usize,
    /// Part of the packets that is lost after the bottleneck, 0 to 1.
    pub(crate) loss: f64,
    /// Part of the packets that arrives twice, 0 to 1.
    pub(crate) duplicate: f64,
    /// Part of the packets that is held back, 0 to 1.
    pub(crate) reorder: f64,
    /// For how long at most those are held back.
    pub(crate) reorder_by: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate: None,
            delay: Duration::ZERO,
            queue: 512,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::ZERO,
        }
    }
}

/// What one direction did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Packets delivered, doubles included.
    pub(crate) packets: u64,
    /// Bytes delivered, doubles included.
    pub(crate) bytes: u64,
    /// Packets lost at random.
    pub(crate) lost: u64,
    /// Packets dropped because the queue was full.
    pub(crate) overflowed: u64,
    /// The most packets that ever waited at once.
    pub(crate) deepest: u64,
}

/// A packet on its way, ordered by arrival and then by entry.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    arrival: Instant,
    number: u64,
    packet: Vec<u8>,
}

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Direction {
    settings: Settings,
    random: u64,
    free_at: Option<Instant>,
    departures: VecDeque<Instant>,
    line: BinaryHeap<Reverse<Flight>>,
    spare: Vec<Vec<u8>>,
    number: u64,
    counters: Counters,
}

/// Buffers kept for reuse.
const SPARES: usize = 1024;

impl Direction {
    /// A direction whose random choices follow from `seed`.
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            random: seed,
            free_at: None,
            departures: VecDeque::new(),
            line: BinaryHeap::new(),
            spare: Vec::new(),
            number: 0,
            counters: Counters::default(),
        }
    }

    /// Treats later packets differently. Packets on the way stay as they are.
    pub(crate) fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What happened so far.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// A packet enters.
    pub(crate) fn push(&mut self, now: Instant, packet: &[u8]) {
        let mut leaves = now;
        if let Some(rate) = self.settings.rate.filter(|rate| *rate > 0) {
            while self.departures.front().is_some_and(|at| *at <= now) {
                self.departures.pop_front();
            }
            if self.departures.len() >= self.settings.queue {
                self.counters.overflowed += 1;
                return;
            }
            let bits = packet.len() as u64 * 8;
            let time = Duration::from_nanos(bits.saturating_mul(1_000_000_000) / rate);
            leaves = self.free_at.map_or(now, |free| free.max(now)) + time;
            self.free_at = Some(leaves);
            self.departures.push_back(leaves);
            self.counters.deepest = self.counters.deepest.max(self.departures.len() as u64);
        }
        if self.chance(self.settings.loss) {
            self.counters.lost += 1;
            return;
        }
        let mut arrival = leaves + self.settings.delay;
        if self.chance(self.settings.reorder) {
            arrival += self.settings.reorder_by.mul_f64(self.fraction());
        }
        self.fly(arrival, packet);
        if self.chance(self.settings.duplicate) {
            self.fly(arrival, packet);
        }
    }

    fn fly(&mut self, arrival: Instant, packet: &[u8]) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.number += 1;
        self.line.push(Reverse(Flight {
            arrival,
            number: self.number,
            packet: buffer,
        }));
    }

    /// When the next packet arrives.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.line.peek().map(|Reverse(flight)| flight.arrival)
    }

    /// Gives the next packet that has arrived to `deliver`; whether there was
    /// one.
    pub(crate) fn pop(&mut self, now: Instant, deliver: impl FnOnce(&[u8])) -> bool {
        if self.next().is_none_or(|arrival| arrival > now) {
            return false;
        }
        let Some(Reverse(flight)) = self.line.pop() else {
            return false;
        };
        self.counters.packets += 1;
        self.counters.bytes += flight.packet.len() as u64;
        deliver(&flight.packet);
        if self.spare.len() < SPARES {
            self.spare.push(flight.packet);
        }
        true
    }

    fn chance(&mut self, part: f64) -> bool {
        part > 0.0 && self.fraction() < part
    }

    /// An even random number from 0 to 1, by splitmix64.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(direction: &mut Direction, start: Instant) -> Vec<(Duration, u8)> {
        let mut seen = Vec::new();
        while let Some(at) = direction.next() {
            assert!(direction.pop(at, |packet| seen.push((at - start, packet[0]))));
        }
        seen
    }

    #[test]
    fn a_packet_takes_its_time_on_the_wire_and_the_delay() {
        let start = Instant::now();
        let settings = Settings {
            rate: Some(100_000_000),
            delay: Duration::from_millis(20),
            ..Settings::default()
        };
        let mut direction = Direction::new(settings, 1);
        direction.push(start, &[1; 1250]);
        direction.push(start, &[2; 1250]);
        assert!(!direction.pop(start, |_| panic!("too early")));
        assert_eq!(
            drain(&mut direction, start),
            [
                (Duration::from_micros(20_100), 1),
                (Duration::from_micros(20_200), 2)
            ]
        );
    }

    #[test]
    fn the_queue_is_bounded_and_empties_at_the_rate() {
        let start = Instant::now();
        let settings = Settings {
            rate: Some(10_000_000),
            queue: 3,
            ..Settings::default()
        };
        let mut direction = Direction::new(settings, 1);
        for number in 0..5 {
            direction.push(start, &[number; 1250]);
        }
        assert_eq!(direction.counters().overflowed, 2);
        assert_eq!(direction.counters().deepest, 3);
        // One has left after a millisecond, and makes room for one.
        let later = start + Duration::from_millis(1);
        direction.push(later, &[8; 1250]);
        direction.push(later, &[9; 1250]);
        let order: Vec<u8> = drain(&mut direction, start).iter().map(|x| x.1).collect();
        assert_eq!(order, [0, 1, 2, 8]);
    }

    #[test]
    fn loss_is_as_asked_for_and_repeatable() {
        let settings = Settings {
            loss: 0.01,
            ..Settings::default()
        };
        let lost = |seed| {
            let start = Instant::now();
            let mut direction = Direction::new(settings, seed);
            for _ in 0..100_000 {
                direction.push(start, &[0; 20]);
                direction.pop(start, |_| {});
            }
            direction.counters().lost
        };
        assert!((850..1150).contains(&lost(7)), "{}", lost(7));
        assert_eq!(lost(7), lost(7));
        assert_ne!(lost(7), lost(8));
    }

    #[test]
    fn held_back_packets_are_overtaken_and_doubles_follow() {
        let start = Instant::now();
        let settings = Settings {
            reorder: 0.2,
            reorder_by: Duration::from_millis(5),
            duplicate: 0.1,
            ..Settings::default()
        };
        let mut direction = Direction::new(settings, 3);
        for number in 0..200u8 {
            direction.push(start + Duration::from_millis(1) * number.into(), &[number]);
        }
        let seen = drain(&mut direction, start);
        assert!(seen.len() > 205 && seen.len() < 240, "{}", seen.len());
        assert!(!seen.is_sorted_by_key(|(_, number)| *number));
        let (last, _) = seen.last().unwrap();
        assert!(*last < Duration::from_millis(206));
    }
}
