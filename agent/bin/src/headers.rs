//! Headers the user wants on every request.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use http::{HeaderName, HeaderValue};

/// Reads `key=value` texts and the output of the header command.
pub(crate) fn collect(
    texts: &[String],
    command: &str,
    url: &str,
) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
    let mut all = Vec::new();
    for text in texts.iter().filter(|t| !t.is_empty()) {
        all.push(parse(text)?);
    }
    if !command.is_empty() {
        let output = Command::new("sh")
            .args(["-c", command])
            .env("CODER_URL", url)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run the header command")?;
        if !output.status.success() {
            bail!("the header command failed: {}", output.status);
        }
        let text = String::from_utf8(output.stdout).context("the header command's output")?;
        for line in text.lines().filter(|l| !l.is_empty()) {
            all.push(parse(line)?);
        }
    }
    Ok(all)
}

fn parse(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    // The value may be secret, so only the name is ever shown.
    let Some((name, value)) = text.split_once('=') else {
        bail!("a header must be written as key=value");
    };
    let parsed = name
        .trim()
        .parse()
        .with_context(|| format!("header name {name:?}"))?;
    let mut value =
        HeaderValue::from_str(value).with_context(|| format!("value of header {name:?}"))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_command_are_joined() {
        let texts = ["X-One=1".to_owned()];
        let all = collect(&texts, "echo X-Two=$CODER_URL; echo X-Three=a=b", "u").expect("headers");
        let shown: Vec<_> = all
            .iter()
            .map(|(k, v)| (k.as_str(), v.to_str().expect("text")))
            .collect();
        assert_eq!(shown, [("x-one", "1"), ("x-two", "u"), ("x-three", "a=b")]);
    }

    #[test]
    fn mistakes_are_told_without_the_value() {
        for (texts, command) in [("nothing", ""), ("", "exit 3"), ("bad name=secret", "")] {
            let error = collect(&[texts.to_owned()], command, "").expect_err("refused");
            assert!(!format!("{error:#}").contains("secret"));
        }
    }
}
