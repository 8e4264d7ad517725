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
    for text in texts {
        for field in fields(text).iter().filter(|f| !f.is_empty()) {
            all.push(parse(field)?);
        }
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

/// The fields of a line of CSV (RFC 4180): one in quotes may have commas, and
/// quotes as two.
fn fields(line: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(field) = all.last_mut() else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => all.push(String::new()),
            c => field.push(c),
        }
    }
    all
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
    fn one_text_may_hold_several() {
        assert_eq!(fields("A=1,B=2"), ["A=1", "B=2"]);
        assert_eq!(
            fields(r#""A=1,""2""",,B=a"b"#),
            [r#"A=1,"2""#, "", r#"B=a"b"#]
        );
    }

    #[test]
    fn mistakes_are_told_without_the_value() {
        for (texts, command) in [("nothing", ""), ("", "exit 3"), ("bad name=secret", "")] {
            let error = collect(&[texts.to_owned()], command, "").expect_err("refused");
            assert!(!format!("{error:#}").contains("secret"));
        }
    }
}
