//! Time stamps of initiations (section 5.1, "timestamp").

use std::time::{Duration, Instant};

/// Length of a TAI64N label.
pub(crate) const STAMP: usize = 12;

/// The label of the Unix epoch, with the ten seconds between TAI and UTC then.
const EPOCH: u64 = (1 << 62) + 10;

/// Finer parts of a second are left out: they would tell about the machine.
const COARSE: u32 = !0x00ff_ffff;

/// Turns the owner's monotonic time into time stamps that never go back, even
/// if the machine's date does.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall: Duration,
}

impl Clock {
    /// `now` is the moment `wall` after the Unix epoch.
    #[must_use]
    pub fn new(now: Instant, wall: Duration) -> Self {
        Self { origin: now, wall }
    }

    /// The TAI64N label of `now`, in steps of 17 ms.
    pub(crate) fn stamp(&self, now: Instant) -> [u8; STAMP] {
        let wall = self.wall + now.saturating_duration_since(self.origin);
        let mut stamp = [0; STAMP];
        stamp[..8].copy_from_slice(&EPOCH.saturating_add(wall.as_secs()).to_be_bytes());
        stamp[8..].copy_from_slice(&(wall.subsec_nanos() & COARSE).to_be_bytes());
        stamp
    }
}

/// The smallest label greater than `stamp`.
pub(crate) fn after(mut stamp: [u8; STAMP]) -> [u8; STAMP] {
    for byte in stamp.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_tai64n_and_coarse() {
        let origin = Instant::now();
        let clock = Clock::new(origin, Duration::new(1_795_267_651, 0x2512_3456));
        assert_eq!(
            clock.stamp(origin),
            [0x40, 0, 0, 0, 0x6b, 0x01, 0x9c, 0x4d, 0x25, 0, 0, 0]
        );
        assert!(clock.stamp(origin + Duration::from_millis(20)) > clock.stamp(origin));
        assert_eq!(
            clock.stamp(origin - Duration::from_secs(1)),
            clock.stamp(origin)
        );
    }

    #[test]
    fn the_next_label_is_greater() {
        let stamp = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        assert_eq!(after(stamp), [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
