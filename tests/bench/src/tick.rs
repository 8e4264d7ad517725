//! A steady stream of numbered lines, and a watch on its gaps.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time between two lines.
pub(crate) const PACE: Duration = Duration::from_millis(5);

/// Length of a line: with the pace above about 6.5 Mbit/s.
const LENGTH: usize = 4096;

/// Prints the lines until nobody reads them.
pub(crate) fn print() {
    let mut stdout = io::stdout().lock();
    let mut line = vec![b'.'; LENGTH];
    let mut number = 0u64;
    let mut next = Instant::now();
    loop {
        number += 1;
        let text = format!("{number} ");
        line[..text.len()].copy_from_slice(text.as_bytes());
        line[LENGTH - 1] = b'\n';
        if stdout
            .write_all(&line)
            .and_then(|()| stdout.flush())
            .is_err()
        {
            return;
        }
        // After a stop the pace goes on; it does not catch up.
        next = (next + PACE).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// What has been seen of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Number of the last line.
    pub(crate) last: u64,
    /// When it came.
    pub(crate) at: Option<Instant>,
    /// The longest time without a line, and when that ended.
    pub(crate) longest: Option<(Duration, Instant)>,
    /// A line was lost, doubled or broken.
    pub(crate) broken: Option<String>,
    /// The stream is over.
    pub(crate) ended: bool,
}

impl Seen {
    fn line(&mut self, now: Instant, line: &[u8]) {
        let number = line
            .split(|byte| *byte == b' ')
            .next()
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
        if self.broken.is_none() && (number != Some(self.last + 1) || line.len() != LENGTH) {
            self.broken = Some(format!(
                "after line {} came {} bytes that begin with {:?}",
                self.last,
                line.len(),
                String::from_utf8_lossy(&line[..line.len().min(20)])
            ));
        }
        self.last = number.unwrap_or(self.last);
        if let Some(before) = self.at {
            let gap = now.saturating_duration_since(before);
            if self.longest.is_none_or(|(longest, _)| gap > longest) {
                self.longest = Some((gap, now));
            }
        }
        self.at = Some(now);
    }
}

/// Reads a stream on a thread of its own.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches what `from` gives.
    pub(crate) fn start(from: impl Read + Send + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let thread = thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                let mut from = BufReader::with_capacity(64 << 10, from);
                let mut line = Vec::new();
                while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                    seen.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .line(Instant::now(), &line);
                    line.clear();
                }
                seen.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            }
        });
        Self {
            seen,
            thread: Some(thread),
        }
    }

    /// What was seen until now.
    pub(crate) fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Forgets the gaps so far.
    pub(crate) fn forget_gaps(&self) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .longest = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Whoever wrote the stream has been killed before.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> Vec<u8> {
        let mut line = format!("{number} ").into_bytes();
        line.resize(LENGTH - 1, b'.');
        line.push(b'\n');
        line
    }

    #[test]
    fn gaps_are_found() {
        let start = Instant::now();
        let mut seen = Seen::default();
        for (number, at) in [(1, 0), (2, 5), (3, 905), (4, 910)] {
            seen.line(start + Duration::from_millis(at), &line(number));
        }
        let (gap, end) = seen.longest.unwrap();
        assert_eq!(gap, Duration::from_millis(900));
        assert_eq!(end, start + Duration::from_millis(905));
        assert_eq!(seen.broken, None);
    }

    #[test]
    fn lost_and_broken_lines_are_found() {
        for bad in [line(3), line(1), b"2 ..\n".to_vec(), vec![b'x'; LENGTH]] {
            let mut seen = Seen::default();
            seen.line(Instant::now(), &line(1));
            seen.line(Instant::now(), &bad);
            assert!(seen.broken.is_some());
        }
    }

    #[test]
    fn a_stream_is_watched_to_its_end() {
        let text: Vec<u8> = (1..=10).flat_map(line).collect();
        let watch = Watch::start(io::Cursor::new(text));
        while !watch.seen().ended {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(watch.seen().last, 10);
        assert_eq!(watch.seen().broken, None);
    }
}
