//! Collects figures; prints them as a table and writes them as JSON.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{counters::Counters, machine::Machine, proc};

/// One figure of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    /// Processor seconds per GiB moved, of all programs of the subject.
    pub(crate) cpu_per_gib: Option<f64>,
    /// Bytes that crossed, both ways, for each byte of the data moved: what
    /// is sent again shows here, whoever's TCP it is.
    pub(crate) wire: Option<f64>,
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
    /// How many times better than the real Coder it is to be.
    pub(crate) ratio_target: Option<f64>,
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
            ratio_target: None,
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

    pub(crate) fn ratio_target(mut self, ratio: f64) -> Self {
        self.ratio_target = Some(ratio);
        self
    }

    /// Sets what came of both.
    pub(crate) fn of(mut self, adit: Outcome, coder: Outcome) -> Self {
        self.adit = adit;
        self.coder = coder;
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

    fn ratio_reached(&self) -> Option<bool> {
        Some(self.ratio()? >= self.ratio_target?)
    }

    /// The budgets, and whether they are kept.
    fn budget(&self) -> String {
        let verdict = |reached| match reached {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        let sign = match self.better {
            Better::Higher => "≥",
            Better::Lower => "≤",
        };
        let mut parts = Vec::new();
        if let Some(target) = self.target {
            let verdict = verdict(self.reached());
            parts.push(format!("{sign} {} {verdict}", number(target)));
        }
        if let Some(ratio) = self.ratio_target {
            let verdict = verdict(self.ratio_reached());
            parts.push(format!("≥ {}× {verdict}", number(ratio)));
        }
        if parts.is_empty() {
            "none".into()
        } else {
            parts.join(", ")
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "case": self.case,
            "metric": self.metric,
            "unit": self.unit,
            "better": match self.better { Better::Higher => "higher", Better::Lower => "lower" },
            "target": self.target,
            "reached": self.reached(),
            "ratio_target": self.ratio_target,
            "ratio_reached": self.ratio_reached(),
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

    fn wire(&self) -> Option<f64> {
        match self {
            Self::Measured(samples) => {
                median(samples.iter().filter_map(|sample| sample.wire).collect())
            }
            Self::None | Self::Skipped(_) | Self::Failed(_) => None,
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
                    "wire_bytes_per_byte": sample.wire,
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
#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    machine: Machine,
    /// Where they are written to.
    file: PathBuf,
}

impl Report {
    pub(crate) fn new(machine: Machine, file: PathBuf) -> Self {
        Self {
            rows: Vec::new(),
            machine,
            file,
        }
    }

    /// This product's figure in a row that is there already.
    pub(crate) fn median(&self, metric: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.metric == metric)?;
        row.adit.median()
    }

    /// Writes what there is so far to the file.
    pub(crate) fn save(&self) -> Result<()> {
        if let Some(dir) = self.file.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&self.file, self.to_json().to_string())
            .with_context(|| format!("write {}", self.file.display()))
    }

    /// Adds a row and says what it holds.
    pub(crate) fn push(&mut self, mut row: Row) {
        row.load = proc::load();
        let beside: String = row
            .beside
            .iter()
            .map(|(name, value)| format!(", {name} {}", number(*value)))
            .collect();
        eprintln!(
            "  {:<44} Adit {}, Coder {}{beside} {}; budget {}",
            row.metric,
            row.adit.text(),
            row.coder.text(),
            row.unit,
            row.budget()
        );
        self.rows.push(row);
    }

    /// All of it, as far as it got.
    fn to_json(&self) -> Value {
        json!({
            "machine": self.machine.to_json(),
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        })
    }

    /// A table in Markdown, and the reasons for what is missing.
    pub(crate) fn table(&self) -> String {
        let machine = &self.machine;
        let mut lines = vec![
            [
                "case",
                "metric",
                "unit",
                "Adit",
                "Coder",
                "ratio",
                "budget",
                "CPU s/GiB",
                "wire/data",
                "losses, Adit",
                "losses, Coder",
                "beside",
                "load",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        let mut reasons = Vec::new();
        for row in &self.rows {
            let both = |adit: Option<f64>, coder: Option<f64>| {
                let one = |value: Option<f64>| value.map_or("-".to_owned(), number);
                match (adit, coder) {
                    (None, None) => String::new(),
                    (adit, coder) => format!("{} / {}", one(adit), one(coder)),
                }
            };
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
                row.budget(),
                both(row.adit.cpu(), row.coder.cpu()),
                both(row.adit.wire(), row.coder.wire()),
                row.adit.losses(),
                row.coder.losses(),
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
            "{machine}\nRatio: how many times better Adit is. Figures: median (range); *: bytes counted on the link.\n\
             Pairs are Adit / Coder. wire/data: bytes that crossed for each byte of data; more of them on a lossy link\n\
             than on a clean one are what was sent again.\n\n"
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
        let mut row = Row::new("x", "speed", "Mbit/s", Better::Higher)
            .target(100.0)
            .of(
                Outcome::Measured(vec![300.0.into(), 100.0.into()]),
                Outcome::one(50.0),
            );
        assert_eq!(row.ratio(), Some(4.0));
        assert_eq!(row.reached(), Some(true));
        row.better = Better::Lower;
        assert_eq!(row.ratio(), Some(0.25));
        assert_eq!(row.reached(), Some(false));
        assert_eq!(row.budget(), "≤ 100 MISSED");
        row.coder = Outcome::Skipped("none".into());
        assert_eq!(row.ratio(), None);
        assert_eq!(
            row.ratio_target(6.0).budget(),
            "≤ 100 MISSED, ≥ 6.00× not measured"
        );
    }

    #[test]
    fn what_is_missing_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/bench.json");
        let mut report = Report::new(Machine::default(), file.clone());
        for _ in 0..2 {
            let mut row = Row::new("x", "m", "ms", Better::Lower);
            row.adit = Outcome::one(1.5);
            row.coder = Outcome::Skipped("no binary".into());
            report.push(row);
        }
        let table = report.table();
        assert_eq!(table.matches("SKIPPED: Coder, x: no binary").count(), 1);
        assert!(table.contains("| 1.50 "), "{table}");
        report.save().unwrap();
        let json: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(report.median("m"), Some(1.5));
        assert_eq!(json["rows"][0]["coder"]["skipped"], "no binary");
        assert_eq!(json["rows"][0]["adit"]["median"], 1.5);
    }
}
