//! `stat`: how much of the workspace's resources is in use.

use std::process::ExitCode;
use std::time::Duration;

use adit_agent_core::resources::{self, CpuUsage, Usage};
use clap::{Subcommand, ValueEnum};

/// Time between the two looks at the processor.
const SAMPLE: Duration = Duration::from_millis(100);

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Processor cores in use.
    Cpu {
        /// Measure the host instead of the container.
        #[arg(long)]
        host: bool,
        #[arg(long, short, default_value = "text")]
        output: Output,
    },
    /// Memory in use.
    Mem {
        /// Measure the host instead of the container.
        #[arg(long)]
        host: bool,
        #[arg(long, default_value = "Gi")]
        prefix: Prefix,
        #[arg(long, short, default_value = "text")]
        output: Output,
    },
    /// Disk space in use.
    Disk {
        /// A place on the disk.
        #[arg(default_value = "/")]
        place: String,
        /// The same as an option.
        #[arg(long)]
        path: Option<String>,
        #[arg(long, default_value = "Gi")]
        prefix: Prefix,
        #[arg(long, short, default_value = "text")]
        output: Output,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Units of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Prefix {
    #[value(name = "Ki")]
    Ki,
    #[value(name = "Mi")]
    Mi,
    #[value(name = "Gi")]
    Gi,
    #[value(name = "Ti")]
    Ti,
}

impl Prefix {
    fn of(self) -> (&'static str, f64) {
        match self {
            Self::Ki => ("KiB", 1_024.0),
            Self::Mi => ("MiB", 1_048_576.0),
            Self::Gi => ("GiB", 1_073_741_824.0),
            Self::Ti => ("TiB", 1_099_511_627_776.0),
        }
    }
}

/// Measures and prints one line.
pub(crate) fn run(what: &What) -> anyhow::Result<ExitCode> {
    let line = match what {
        What::Cpu { host, output } => {
            let cpu = resources::cpu(*host, SAMPLE);
            let CpuUsage { used, total } = cpu.ok_or_else(unreadable)?;
            match output {
                Output::Text => describe(used, total, "cores", 1.0),
                Output::Json => json(used, total, "cores"),
            }
        }
        What::Mem {
            host,
            prefix,
            output,
        } => {
            let (used, total) = if *host {
                let m = resources::host_memory().ok_or_else(unreadable)?;
                (m.used, Some(m.total))
            } else {
                resources::own_memory().ok_or_else(unreadable)?
            };
            bytes(used, total, *prefix, *output)
        }
        What::Disk {
            place,
            path,
            prefix,
            output,
        } => {
            let path = path.as_ref().unwrap_or(place);
            let Usage { used, total } = resources::disk(path).ok_or_else(unreadable)?;
            bytes(used, Some(total), *prefix, *output)
        }
    };
    println!("{line}");
    Ok(ExitCode::SUCCESS)
}

fn unreadable() -> anyhow::Error {
    anyhow::anyhow!("this system does not tell")
}

#[expect(clippy::cast_precision_loss, reason = "shown to three digits")]
fn bytes(used: u64, total: Option<u64>, prefix: Prefix, output: Output) -> String {
    let (used, total) = (used as f64, total.map(|t| t as f64));
    let (unit, scale) = prefix.of();
    match output {
        Output::Text => describe(used, total, unit, scale),
        Output::Json => json(used, total, "B"),
    }
}

fn json(used: f64, total: Option<f64>, unit: &str) -> String {
    serde_json::json!({"used": used, "total": total, "unit": unit}).to_string()
}

fn describe(used: f64, total: Option<f64>, unit: &str, scale: f64) -> String {
    match total {
        None => format!("{} {unit}", short(used / scale)),
        Some(total) => {
            let percent = if total > 0.0 {
                format!(" ({:.0}%)", used / total * 100.0)
            } else {
                String::new()
            };
            format!(
                "{}/{} {unit}{percent}",
                short(used / scale),
                short(total / scale)
            )
        }
    }
}

/// Three significant places, without trailing zeros.
fn short(n: f64) -> String {
    let places = match n {
        n if n < 1.0 => 3,
        n if n < 10.0 => 2,
        n if n < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{n:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_the_line_templates_show() {
        assert_eq!(describe(1.2, Some(4.0), "cores", 1.0), "1.2/4 cores (30%)");
        let gib = 1_073_741_824.0;
        assert_eq!(
            describe(3.21 * gib, Some(15.6 * gib), "GiB", gib),
            "3.21/15.6 GiB (21%)"
        );
        assert_eq!(describe(0.05, None, "cores", 1.0), "0.05 cores");
        assert_eq!(short(123.4), "123");
        assert_eq!(short(0.0), "0");
    }

    #[test]
    fn this_machine_can_be_measured_quickly() {
        let began = std::time::Instant::now();
        for host in [true, false] {
            let what = What::Cpu {
                host,
                output: Output::Json,
            };
            assert!(run(&what).is_ok());
        }
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
