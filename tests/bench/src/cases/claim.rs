//! Claim of a prebuilt workspace.

use anyhow::Result;

use crate::{context::Context, report::Report};

pub(super) fn run(_context: &mut Context, _report: &mut Report) -> Result<()> {
    Ok(())
}
