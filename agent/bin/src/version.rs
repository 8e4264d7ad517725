//! What `--version` prints.
//!
//! Init scripts refuse a binary whose first line does not contain the name of
//! the product they were written for.

/// Semantic version with a leading `v`, as reported to control planes.
pub(crate) const VERSION: &str = adit_rest::WIRE_VERSION;

/// The text form.
pub(crate) fn text() -> String {
    format!("Coder {VERSION}\nAdit, a workspace agent for Coder deployments.\n")
}

/// The JSON form, with the keys scripts look for.
pub(crate) fn json() -> String {
    let value = serde_json::json!({
        "version": VERSION,
        "build_time": "0001-01-01T00:00:00Z",
        "external_url": "",
        "slim": true,
        "agpl": false,
        "boring_crypto": false,
    });
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_scripts_recognise_the_first_line() {
        let text = text();
        assert!(text.lines().next().is_some_and(|l| l.contains("Coder")));
        assert!(VERSION.starts_with('v'));
    }
}
