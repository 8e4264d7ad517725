//! When metadata is collected and reported, without clocks or processes.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use crate::logs::sanitise;

/// Most bytes of a value that are kept.
const LIMIT: usize = 10_240;
/// Time limit where neither timeout nor interval is set.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
/// Least time between two reports.
const REPORT_GAP: Duration = Duration::from_secs(1);

/// One metadata item of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its key.
    pub key: String,
    /// The command that prints its value.
    pub script: String,
    /// Time between collections; zero collects once per connection.
    pub interval: Duration,
    /// Time limit; zero takes the interval.
    pub timeout: Duration,
}

impl Description {
    /// The time limit of one collection.
    #[must_use]
    pub fn limit(&self) -> Duration {
        [self.timeout, self.interval]
            .into_iter()
            .find(|d| !d.is_zero())
            .unwrap_or(DEFAULT_TIMEOUT)
    }
}

/// What one collection gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// When the collection began.
    pub collected_at: SystemTime,
    /// Whole seconds it took.
    pub age: i64,
    /// Output of the command.
    pub value: String,
    /// What went wrong, empty if nothing.
    pub error: String,
}

impl Value {
    /// Cuts and cleans raw output; `error` is what the run itself reported.
    #[must_use]
    pub fn from_output(collected_at: SystemTime, age: i64, output: &[u8], error: &str) -> Self {
        let mut errors: Vec<String> = Vec::new();
        if !error.is_empty() {
            errors.push(error.to_owned());
        }
        let kept = if output.len() > LIMIT {
            errors.push(format!(
                "output truncated from {} to {LIMIT} bytes",
                output.len()
            ));
            &output[..LIMIT]
        } else {
            output
        };
        let error = if errors.is_empty() {
            String::new()
        } else {
            format!("run cmd: {}", sanitise(errors.join("\n").as_bytes()))
        };
        Self {
            collected_at,
            age,
            value: sanitise(kept),
            error,
        }
    }
}

#[derive(Debug, Default)]
struct Item {
    running: bool,
    last: Option<Instant>,
}

/// The schedule of one control connection.
#[derive(Debug, Default)]
pub struct Schedule {
    items: HashMap<String, Item>,
    results: HashMap<String, Value>,
    report_in_flight: bool,
    last_report: Option<Instant>,
}

impl Schedule {
    /// The items to collect now; each counts as running until its result.
    pub fn poll_due(&mut self, now: Instant, items: &[Description]) -> Vec<Description> {
        items
            .iter()
            .filter(|d| {
                let item = self.items.entry(d.key.clone()).or_default();
                let due = !item.running
                    && match item.last {
                        None => true,
                        Some(last) => !d.interval.is_zero() && now >= last + d.interval,
                    };
                if due {
                    item.running = true;
                    item.last = Some(now);
                }
                due
            })
            .cloned()
            .collect()
    }

    /// A collection ended. The newest value of a key replaces an older one
    /// that was not reported yet.
    pub fn handle_result(&mut self, key: &str, value: Value) {
        if let Some(item) = self.items.get_mut(key) {
            item.running = false;
        }
        self.results.insert(key.to_owned(), value);
    }

    /// What to report now: everything new, at most once per second and one
    /// report at a time.
    pub fn poll_report(&mut self, now: Instant) -> Option<Vec<(String, Value)>> {
        let early = self.last_report.is_some_and(|t| now < t + REPORT_GAP);
        if self.results.is_empty() || self.report_in_flight || early {
            return None;
        }
        self.report_in_flight = true;
        self.last_report = Some(now);
        let mut all: Vec<_> = self.results.drain().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Some(all)
    }

    /// The report under way arrived.
    pub fn handle_reported(&mut self) {
        self.report_in_flight = false;
    }

    /// When to look again, given the same `items`.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant, items: &[Description]) -> Option<Instant> {
        let collect = items.iter().filter_map(|d| match self.items.get(&d.key) {
            None => Some(now),
            Some(i) if i.running || d.interval.is_zero() => None,
            Some(i) => i.last.map(|l| l + d.interval),
        });
        let report = (!self.results.is_empty() && !self.report_in_flight)
            .then(|| self.last_report.map_or(now, |t| t + REPORT_GAP));
        collect.chain(report).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, interval: u64, timeout: u64) -> Description {
        Description {
            key: key.to_owned(),
            script: String::new(),
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(timeout),
        }
    }

    fn value(text: &str) -> Value {
        Value::from_output(SystemTime::UNIX_EPOCH, 0, text.as_bytes(), "")
    }

    #[test]
    fn limits_fall_back() {
        assert_eq!(item("a", 10, 4).limit(), Duration::from_secs(4));
        assert_eq!(item("a", 10, 0).limit(), Duration::from_secs(10));
        assert_eq!(item("a", 0, 0).limit(), Duration::from_secs(3));
    }

    #[test]
    fn each_key_runs_alone_and_zero_interval_runs_once() {
        let t = Instant::now();
        let items = [item("once", 0, 0), item("often", 2, 0)];
        let mut s = Schedule::default();
        assert_eq!(s.poll_due(t, &items).len(), 2);
        let later = t + Duration::from_secs(5);
        assert!(s.poll_due(later, &items).is_empty(), "still running");
        s.handle_result("once", value("1"));
        s.handle_result("often", value("2"));
        assert_eq!(s.poll_due(later, &items)[0].key, "often");
        assert_eq!(s.poll_due(later, &items).len(), 0);
    }

    #[test]
    fn reports_collapse_and_are_paced() {
        let t = Instant::now();
        let mut s = Schedule::default();
        s.handle_result("b", value("old"));
        s.handle_result("b", value("new"));
        s.handle_result("a", value("x"));
        let report = s.poll_report(t).expect("a report");
        assert_eq!(report.len(), 2);
        assert_eq!(report[1].1.value, "new");
        s.handle_result("a", value("y"));
        assert_eq!(s.poll_report(t + REPORT_GAP), None, "one in flight");
        s.handle_reported();
        assert_eq!(s.poll_report(t), None, "too early");
        assert_eq!(s.poll_timeout(t, &[]), Some(t + REPORT_GAP));
        assert!(s.poll_report(t + REPORT_GAP).is_some());
        s.handle_reported();
        assert_eq!(s.poll_timeout(t, &[]), None, "quiet without items");
    }

    #[test]
    fn values_are_cut_and_cleaned() {
        let mut long = vec![b'a'; LIMIT - 1];
        long.extend("ü and more".as_bytes());
        let v = Value::from_output(SystemTime::UNIX_EPOCH, 0, &long, "exit status 1");
        assert!(v.value.ends_with('❌'));
        assert_eq!(
            v.error,
            format!(
                "run cmd: exit status 1\noutput truncated from {} to 10240 bytes",
                long.len()
            )
        );
    }
}
