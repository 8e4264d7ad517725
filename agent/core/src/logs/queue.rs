//! Which lines are sent when.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

/// What one line costs beyond its text, in bytes.
const OVERHEAD: usize = 21;
/// Largest batch, and largest single line, in bytes with overhead.
const BATCH: usize = 1 << 20;
/// Output held for sending, of all sources together; newer lines are dropped.
const CAPACITY: usize = 1 << 20;
/// How long the first line of a quiet source waits for company.
const GATHER: Duration = Duration::from_millis(100);
/// How long the rest of a partly sent source waits.
const REST: Duration = Duration::from_secs(1);

/// Severity of a line; scripts write `Info` and `Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Standard output.
    Info,
    /// Standard error.
    Error,
}

impl Level {
    /// The number of this level in `coder.agent.v2.Log.Level`.
    #[must_use]
    pub fn wire(self) -> i32 {
        match self {
            Self::Info => 3,
            Self::Error => 5,
        }
    }
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub at: SystemTime,
    /// Its text, without line end.
    pub text: String,
    /// Its severity.
    pub level: Level,
}

/// Lines of one source, to be sent in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Identifier of the log source.
    pub source: [u8; 16],
    /// The lines, oldest first.
    pub lines: Vec<Line>,
}

#[derive(Debug)]
struct Source {
    id: [u8; 16],
    lines: VecDeque<Line>,
    due: Instant,
}

/// The lines of all sources that the control plane has not confirmed.
///
/// Never blocks the writer: beyond one megabyte newer lines are dropped.
#[derive(Debug, Default)]
pub struct LogQueue {
    sources: Vec<Source>,
    held: usize,
    in_flight: Option<([u8; 16], usize)>,
    exceeded: bool,
}

impl LogQueue {
    /// Adds a line. `false` if it was dropped.
    pub fn handle_line(&mut self, now: Instant, source: [u8; 16], line: Line) -> bool {
        let size = line.text.len();
        if self.exceeded || self.held > CAPACITY || size + OVERHEAD > BATCH {
            return false;
        }
        self.held += size;
        match self.sources.iter_mut().find(|s| s.id == source) {
            Some(s) => s.lines.push_back(line),
            None => self.sources.push(Source {
                id: source,
                lines: VecDeque::from([line]),
                due: now + GATHER,
            }),
        }
        true
    }

    /// Asks for everything of `source` to be sent without waiting.
    pub fn handle_flush(&mut self, now: Instant, source: [u8; 16]) {
        if let Some(s) = self.sources.iter_mut().find(|s| s.id == source) {
            s.due = s.due.min(now);
        }
    }

    /// Asks for everything to be sent without waiting.
    pub fn handle_flush_all(&mut self, now: Instant) {
        for s in &mut self.sources {
            s.due = s.due.min(now);
        }
    }

    /// The next batch that is due. It stays queued until
    /// [`handle_sent`](Self::handle_sent); there is never more than one under
    /// way.
    pub fn poll_batch(&mut self, now: Instant) -> Option<Batch> {
        if self.in_flight.is_some() {
            return None;
        }
        let source = self
            .sources
            .iter()
            .filter(|s| s.due <= now)
            .min_by_key(|s| s.due)?;
        let mut size = 0;
        let lines: Vec<Line> = source
            .lines
            .iter()
            .take_while(|l| {
                size += l.text.len() + OVERHEAD;
                size <= BATCH
            })
            .cloned()
            .collect();
        self.in_flight = Some((source.id, lines.len()));
        Some(Batch {
            source: source.id,
            lines,
        })
    }

    /// The batch under way arrived.
    pub fn handle_sent(&mut self, now: Instant) {
        let Some((id, count)) = self.in_flight.take() else {
            return;
        };
        let Some(at) = self.sources.iter().position(|s| s.id == id) else {
            return;
        };
        let source = &mut self.sources[at];
        for line in source.lines.drain(..count) {
            self.held -= line.text.len();
        }
        if source.lines.is_empty() {
            self.sources.swap_remove(at);
        } else {
            source.due = now + REST;
        }
    }

    /// The batch under way was lost with its connection; it will be offered
    /// again.
    pub fn handle_lost(&mut self) {
        self.in_flight = None;
    }

    /// The control plane takes no more logs from this agent: everything is
    /// dropped, now and later.
    pub fn handle_limit_exceeded(&mut self) {
        *self = Self {
            exceeded: true,
            ..Self::default()
        };
    }

    /// Whether the control plane refused further logs.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// Whether nothing waits to be sent or confirmed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// When [`poll_batch`](Self::poll_batch) should be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.in_flight.is_some() {
            return None;
        }
        self.sources.iter().map(|s| s.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line {
            at: SystemTime::UNIX_EPOCH,
            text: text.to_owned(),
            level: Level::Info,
        }
    }

    const A: [u8; 16] = [1; 16];
    const B: [u8; 16] = [2; 16];

    #[test]
    fn lines_gather_briefly_and_a_flush_sends_at_once() {
        let t = Instant::now();
        let mut q = LogQueue::default();
        assert!(q.handle_line(t, A, line("one")));
        assert!(q.handle_line(t, A, line("two")));
        assert_eq!(q.poll_batch(t), None);
        assert_eq!(q.poll_timeout(), Some(t + GATHER));
        q.handle_flush(t, A);
        let b = q.poll_batch(t).expect("a batch");
        assert_eq!(b.lines.len(), 2);
        assert_eq!(q.poll_batch(t), None, "one at a time");
        // Lost with its connection: offered again, with what came since.
        q.handle_lost();
        q.handle_line(t, A, line("three"));
        assert_eq!(q.poll_batch(t).map(|b| b.lines.len()), Some(3));
        q.handle_sent(t);
        assert!(q.is_empty());
    }

    #[test]
    fn one_source_per_batch_oldest_first() {
        let t = Instant::now();
        let mut q = LogQueue::default();
        q.handle_line(t, A, line("a"));
        q.handle_line(t + Duration::from_millis(1), B, line("b"));
        let late = t + Duration::from_secs(1);
        assert_eq!(q.poll_batch(late).map(|b| b.source), Some(A));
        q.handle_sent(late);
        assert_eq!(q.poll_batch(late).map(|b| b.source), Some(B));
    }

    #[test]
    fn batches_and_memory_are_bounded() {
        let t = Instant::now();
        let mut q = LogQueue::default();
        let big = "x".repeat(600 * 1024);
        assert!(q.handle_line(t, A, line(&big)));
        assert!(
            q.handle_line(t, A, line(&big)),
            "the line that crosses stays"
        );
        assert!(!q.handle_line(t, A, line("dropped")));
        assert!(!q.handle_line(t, A, line(&"x".repeat(BATCH))), "too long");
        q.handle_flush_all(t);
        assert_eq!(q.poll_batch(t).map(|b| b.lines.len()), Some(1));
        q.handle_sent(t);
        assert_eq!(q.poll_batch(t), None);
        assert_eq!(q.poll_timeout(), Some(t + REST));
        assert_eq!(q.poll_batch(t + REST).map(|b| b.lines.len()), Some(1));
    }

    #[test]
    fn the_limit_ends_everything() {
        let t = Instant::now();
        let mut q = LogQueue::default();
        q.handle_line(t, A, line("a"));
        q.handle_limit_exceeded();
        assert!(q.is_empty() && q.is_exceeded());
        assert!(!q.handle_line(t, A, line("b")));
        q.handle_sent(t);
        assert_eq!(q.poll_timeout(), None);
    }
}
