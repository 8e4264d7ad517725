//! Collects figures; prints them as a table and writes them as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{counters::Counters, machine::Machine, proc};

/// One figure of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    /// Processor seconds per GiB moved, of all programs of the subject.
    pub(crate) cpu_per_gib: Option<f64>,
    pub(crate) counters: Counters,
    /// Counted on the link, for want of a result of the subject itself.
    pub(crate) counted: bool,
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Self {
            value,
            ..Self::default()
        }
    }
}

/// Whether more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What came of measuring one subject.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Not a figure of this subject.
    None,
    /// At least one figure.
    Measured(Vec<Sample>),
    /// Not measured, and why.
    Skipped(String),
    /// Tried in vain.
    Failed(String),
}

/// One metric of one case.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) metric: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// What is to be reached.
    pub(crate) target: Option<f64>,
    pub(crate) adit: Outcome,
    pub(crate) coder: Outcome,
    /// Other figures of the same run to compare with, such as the kernel's.
    pub(crate) beside: Vec<(String, f64)>,
    /// Load average when it was done.
    pub(crate) load: f64,
}

impl Row {
    /// A row with nothing measured yet; of neither subject, if it stays so.
    pub(crate) fn new(
        case: &'static str,
        metric: impl Into<String>,
        unit: &'static str,
        better: Better,
    ) -> Self {
        Self {
            case,
            metric: metric.into(),
            unit,
            better,
            target: None,
            adit: Outcome::None,
            coder: Outcome::None,
            beside: Vec::new(),
            load: proc::load(),
        }
    }

    pub(crate) fn target(mut self, target: f64) -> Self {
        self.target = Some(target);
        self
    }

    /// How many times better this product is.
    fn ratio(&self) -> Option<f64> {
        let (adit, coder) = (self.adit.median()?, self.coder.median()?);
        let ratio = match self.better {
            Better::Higher => adit / coder,
            Better::Lower => coder / adit,
        };
        ratio.is_finite().then_some(ratio)
    }

    fn reached(&self) -> Option<bool> {
        let (target, value) = (self.target?, self.adit.median()?);
        Some(match self.better {
            Better::Higher => value >= target,
            Better::Lower => value <= target,
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "case": self.case,
            "metric": self.metric,
            "unit": self.unit,
            "better": match self.better { Better::Higher => "higher", Better::Lower => "lower" },
            "target": self.target,
            "reached": self.reached(),
            "adit": self.adit.to_json(),
            "coder": self.coder.to_json(),
            "ratio": self.ratio(),
            "beside": self.beside.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>(),
            "load": self.load,
        })
    }
}

impl Outcome {
    pub(crate) fn one(value: f64) -> Self {
        Self::Measured(vec![value.into()])
    }

    /// The middle of the figures.
    pub(crate) fn median(&self) -> Option<f64> {
        match self {
            Self::Measured(samples) => median(samples.iter().map(|sample| sample.value).collect()),
            Self::None | Self::Skipped(_) | Self::Failed(_) => None,
        }
    }

    fn cpu(&self) -> Option<f64> {
        match self {
            Self::Measured(samples) => median(
                samples
                    .iter()
                    .filter_map(|sample| sample.cpu_per_gib)
                    .collect(),
            ),
            Self::None | Self::Skipped(_) | Self::Failed(_) => None,
        }
    }

    /// The figure, with the range of the runs if there were several.
    fn text(&self) -> String {
        let samples = match self {
            Self::Measured(samples) => samples,
            Self::None => return "-".into(),
            Self::Skipped(_) => return "SKIPPED".into(),
            Self::Failed(_) => return "FAILED".into(),
        };
        let Some(middle) = self.median() else {
            return "-".into();
        };
        let values = || samples.iter().map(|sample| sample.value);
        let (low, high) = (
            values().fold(f64::INFINITY, f64::min),
            values().fold(f64::NEG_INFINITY, f64::max),
        );
        let mark = if samples.iter().any(|sample| sample.counted) {
            "*"
        } else {
            ""
        };
        if samples.len() < 2 {
            format!("{}{mark}", number(middle))
        } else {
            format!(
                "{}{mark} ({}–{})",
                number(middle),
                number(low),
                number(high)
            )
        }
    }

    fn losses(&self) -> String {
        let Self::Measured(samples) = self else {
            return String::new();
        };
        let worst = |get: fn(&Counters) -> u64| {
            samples
                .iter()
                .map(|sample| get(&sample.counters))
                .max()
                .unwrap_or(0)
        };
        let mut text = String::new();
        for (name, value) in [
            ("retransmits", worst(|c| c.tcp_retransmits)),
            ("rcvbuf", worst(|c| c.rcvbuf_errors)),
            ("sndbuf", worst(|c| c.sndbuf_errors)),
            ("device drops", worst(|c| c.device_drops)),
            ("lost", worst(|c| c.link_lost)),
            ("queue drops", worst(|c| c.link_overflowed)),
            ("late", worst(|c| c.link_late)),
        ] {
            if value > 0 {
                let _ = write!(
                    text,
                    "{}{name} {value}",
                    if text.is_empty() { "" } else { ", " }
                );
            }
        }
        text
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Measured(samples) => json!({
                "median": self.median(),
                "cpu_seconds_per_gib": self.cpu(),
                "runs": samples.iter().map(|sample| json!({
                    "value": sample.value,
                    "cpu_seconds_per_gib": sample.cpu_per_gib,
                    "counters": sample.counters.to_json(),
                    "counted_on_the_link": sample.counted,
                    "valid": !sample.counters.unexpected(),
                })).collect::<Vec<_>>(),
            }),
            Self::None => Value::Null,
            Self::Skipped(why) => json!({"skipped": why}),
            Self::Failed(why) => json!({"failed": why}),
        }
    }
}

/// The middle value; `None` of none.
pub(crate) fn median(values: Vec<f64>) -> Option<f64> {
    percentile(values, 50)
}

/// The value that `percent` of the values do not exceed.
pub(crate) fn percentile(mut values: Vec<f64>, percent: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    if percent == 50 && values.len().is_multiple_of(2) {
        return Some((values[last / 2] + values[last / 2 + 1]) / 2.0);
    }
    values.get((last * percent).div_ceil(100)).copied()
}

/// About three digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        0.0 => "0".into(),
        _ => format!("{value:.3}"),
    }
}

/// All rows of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// Adds a row and says what it holds.
    pub(crate) fn push(&mut self, mut row: Row) {
        row.load = proc::load();
        let beside: String = row
            .beside
            .iter()
            .map(|(name, value)| format!(", {name} {}", number(*value)))
            .collect();
        eprintln!(
            "  {:<44} Adit {}, Coder {}{beside} {}",
            row.metric,
            row.adit.text(),
            row.coder.text(),
            row.unit
        );
        self.rows.push(row);
    }

    /// All of it.
    pub(crate) fn to_json(&self, machine: &Machine) -> Value {
        json!({
            "machine": machine.to_json(),
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        })
    }

    /// A table in Markdown, and the reasons for what is missing.
    pub(crate) fn table(&self, machine: &Machine) -> String {
        let mut lines = vec![
            [
                "case",
                "metric",
                "unit",
                "Adit",
                "Coder",
                "ratio",
                "target",
                "CPU s/GiB",
                "losses, Adit",
                "beside",
                "load",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        let mut reasons = Vec::new();
        for row in &self.rows {
            let cpu = match (row.adit.cpu(), row.coder.cpu()) {
                (None, None) => String::new(),
                (adit, coder) => {
                    let one = |cpu: Option<f64>| cpu.map_or("-".to_owned(), number);
                    format!("{} / {}", one(adit), one(coder))
                }
            };
            let target = row.target.map_or_else(String::new, |target| {
                let sign = match row.better {
                    Better::Higher => "≥",
                    Better::Lower => "≤",
                };
                let verdict = match row.reached() {
                    Some(true) => " ok",
                    Some(false) => " MISSED",
                    None => "",
                };
                format!("{sign} {}{verdict}", number(target))
            });
            let beside: Vec<String> = row
                .beside
                .iter()
                .map(|(name, value)| format!("{name} {}", number(*value)))
                .collect();
            lines.push(vec![
                row.case.to_owned(),
                row.metric.clone(),
                row.unit.to_owned(),
                row.adit.text(),
                row.coder.text(),
                row.ratio()
                    .map_or_else(String::new, |ratio| format!("{}×", number(ratio))),
                target,
                cpu,
                row.adit.losses(),
                beside.join(", "),
                format!("{:.1}", row.load),
            ]);
            for (who, outcome) in [("Adit", &row.adit), ("Coder", &row.coder)] {
                if let Outcome::Skipped(why) | Outcome::Failed(why) = outcome {
                    let word = if matches!(outcome, Outcome::Failed(_)) {
                        "FAILED"
                    } else {
                        "SKIPPED"
                    };
                    let reason = format!("{word}: {who}, {}: {why}", row.case);
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                }
            }
        }
        let mut text = format!(
            "{machine}\nRatio: how many times better Adit is. Figures: median (range); *: bytes counted on the link.\n\n"
        );
        text.push_str(&markdown(&lines));
        if !reasons.is_empty() {
            text.push('\n');
            for reason in reasons {
                let _ = writeln!(text, "{reason}");
            }
        }
        text
    }
}

/// Columns of equal width.
fn markdown(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middles_and_tails() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
        let hundred: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(percentile(hundred, 95), Some(95.0));
        assert_eq!(percentile(vec![1.0, 2.0], 95), Some(2.0));
    }

    #[test]
    fn ratios_say_how_much_better() {
        let mut row = Row::new("x", "speed", "Mbit/s", Better::Higher).target(100.0);
        row.adit = Outcome::Measured(vec![300.0.into(), 100.0.into()]);
        row.coder = Outcome::one(50.0);
        assert_eq!(row.ratio(), Some(4.0));
        assert_eq!(row.reached(), Some(true));
        row.better = Better::Lower;
        assert_eq!(row.ratio(), Some(0.25));
        assert_eq!(row.reached(), Some(false));
        row.coder = Outcome::Skipped("none".into());
        assert_eq!(row.ratio(), None);
    }

    #[test]
    fn what_is_missing_is_told_once() {
        let mut report = Report::default();
        for _ in 0..2 {
            let mut row = Row::new("x", "m", "ms", Better::Lower);
            row.adit = Outcome::one(1.5);
            row.coder = Outcome::Skipped("no binary".into());
            report.push(row);
        }
        let table = report.table(&Machine::default());
        assert_eq!(table.matches("SKIPPED: Coder, x: no binary").count(), 1);
        assert!(table.contains("| 1.50 "), "{table}");
        let json = report.to_json(&Machine::default());
        assert_eq!(json["rows"][0]["coder"]["skipped"], "no binary");
        assert_eq!(json["rows"][0]["adit"]["median"], 1.5);
    }
}
