//! `version`: who this program is.

use anyhow::Result;
use serde_json::json;

use crate::cli::{Output, OutputArgs};

/// First line of `--version`. IDE plugins look for `Coder` and a version in
/// it.
pub(crate) const LINE: &str = concat!(env!("CARGO_PKG_VERSION"), " (speaks Coder ", "v2.33.0", ")");

/// Prints the version as text or JSON.
pub(crate) fn run(args: &OutputArgs) -> Result<()> {
    match args.output {
        Output::Text => println!("Adit {LINE}"),
        Output::Json => {
            let version = json!({
                "version": adit_rest::WIRE_VERSION,
                "build_time": "0001-01-01T00:00:00Z",
                "external_url": "",
                "slim": true,
                "agpl": true,
                "boring_crypto": false,
            });
            println!("{}", serde_json::to_string_pretty(&version)?);
        }
    }
    Ok(())
}
