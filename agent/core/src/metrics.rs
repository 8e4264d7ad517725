//! Counters and gauges of the agent.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use adit_agent_exec::Tally;
use adit_messages::agent::stats::{Metric, metric};

type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Counter(f64),
    Gauge(f64),
}

/// All metrics by name and labels.
#[derive(Debug, Default)]
pub struct Metrics {
    values: Mutex<BTreeMap<(&'static str, Labels), Value>>,
}

impl Tally for Metrics {
    fn count(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        self.change(name, labels, |old| match old {
            Some(Value::Counter(n)) => Value::Counter(n + 1.0),
            _ => Value::Counter(1.0),
        });
    }
}

impl Metrics {
    /// Sets a counter that somebody else keeps.
    pub fn set_counter(&self, name: &'static str, value: u64) {
        // Exact up to 2^53.
        let value = value as f64;
        self.change(name, &[], |_| Value::Counter(value));
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        self.change(name, labels, |_| Value::Gauge(value));
    }

    fn change(
        &self,
        name: &'static str,
        labels: &[(&'static str, &str)],
        to: impl FnOnce(Option<Value>) -> Value,
    ) {
        let labels = labels.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name, labels);
        let value = to(values.get(&key).copied());
        values.insert(key, value);
    }

    /// For the statistics report.
    #[must_use]
    pub fn to_proto(&self) -> Vec<Metric> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values
            .iter()
            .map(|((name, labels), value)| {
                let (kind, value) = match value {
                    Value::Counter(n) => (metric::Type::Counter, *n),
                    Value::Gauge(n) => (metric::Type::Gauge, *n),
                };
                Metric {
                    name: (*name).to_owned(),
                    r#type: kind as i32,
                    value,
                    labels: labels
                        .iter()
                        .map(|(k, v)| metric::Label {
                            name: (*k).to_owned(),
                            value: v.clone(),
                        })
                        .collect(),
                }
            })
            .collect()
    }

    /// In the Prometheus text format.
    #[must_use]
    pub fn to_text(&self) -> String {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        let mut last = "";
        for ((name, labels), value) in values.iter() {
            let (kind, value) = match value {
                Value::Counter(n) => ("counter", n),
                Value::Gauge(n) => ("gauge", n),
            };
            if last != *name {
                let _ = writeln!(out, "# TYPE {name} {kind}");
                last = name;
            }
            let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
            let labels = if labels.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", labels.join(","))
            };
            let _ = writeln!(out, "{name}{labels} {value}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_shows() {
        let m = Metrics::default();
        m.count("runs_total", &[("success", "true")]);
        m.count("runs_total", &[("success", "true")]);
        m.set("seconds", &[], 1.5);
        assert_eq!(
            m.to_text(),
            "# TYPE runs_total counter\nruns_total{success=\"true\"} 2\n# TYPE seconds gauge\nseconds 1.5\n"
        );
        assert_eq!(m.to_proto().len(), 2);
    }
}
