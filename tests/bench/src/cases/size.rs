//! Size of the agent's binary, as it is and as it is downloaded.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    report::{Better, Outcome, Report, Row},
};

const CASE: &str = "size";

pub(super) fn run(context: &mut Context, report: &mut Report) -> Result<()> {
    let adit = sizes(&context.bin.join("adit-agent"))?;
    let coder = match &context.real {
        Ok(real) => sizes(&real.agent)
            .map(|sizes| sizes.map(Outcome::one))
            .unwrap_or_else(|error| [(); 2].map(|()| Outcome::Failed(format!("{error:#}")))),
        Err(why) => [(); 2].map(|()| Outcome::Skipped(why.clone())),
    };
    let rows = [("agent binary", 8.0), ("agent binary, gzip -9", 4.0)];
    for (((metric, target), adit), coder) in rows.into_iter().zip(adit).zip(coder) {
        let mut row = Row::new(CASE, metric, "MB", Better::Lower).target(target);
        row.adit = Outcome::one(adit);
        row.coder = coder;
        report.push(row);
    }
    Ok(())
}

/// In MB.
fn sizes(binary: &Path) -> Result<[f64; 2]> {
    let plain = fs::metadata(binary)
        .with_context(|| format!("look at {}", binary.display()))?
        .len();
    let packed = Command::new("gzip")
        .args(["-9", "-c"])
        .stdin(fs::File::open(binary)?)
        .stderr(Stdio::null())
        .output()
        .context("start gzip")?;
    Ok([plain as f64 / 1e6, packed.stdout.len() as f64 / 1e6])
}
