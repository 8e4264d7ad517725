//! The block that `config-ssh` keeps in an OpenSSH configuration file.
//!
//! Markers and layout are those of the `coder` CLI, so that either program
//! finds and replaces what the other has written.

use std::fmt::Write as _;

/// First line of the block.
pub(crate) const START: &str = "# ------------START-CODER-----------";
/// Last line of the block.
pub(crate) const END: &str = "# ------------END-CODER------------";

/// What the block is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Program and its leading arguments, quoted for OpenSSH.
    pub(crate) program: String,
    /// Arguments between the program and `ssh`.
    pub(crate) global_args: String,
    /// Prefix of host names, with its final dot; none when empty.
    pub(crate) prefix: String,
    /// Suffix of host names, without a dot; none when empty.
    pub(crate) suffix: String,
    /// Workspaces to name one by one; `None` writes wildcards.
    pub(crate) hosts: Option<Vec<String>>,
    /// `--wait` of the proxy command, unless automatic.
    pub(crate) wait: Option<&'static str>,
    /// Whether the proxy command must not start workspaces.
    pub(crate) disable_autostart: bool,
    /// Options of the user, before those of the deployment and the defaults.
    pub(crate) user_options: Vec<String>,
    /// Options that the control plane asks for.
    pub(crate) deployment_options: Vec<(String, String)>,
    /// Options to remember in the block: `key=value`.
    pub(crate) remembered: Vec<String>,
}

const DEFAULTS: [&str; 4] = [
    "ConnectTimeout=0",
    "StrictHostKeyChecking=no",
    // Host keys depend on the workspace's owner and name, which the tunnel
    // has authenticated already.
    "UserKnownHostsFile=/dev/null",
    "LogLevel ERROR",
];

impl Block {
    /// The whole block with both markers and a final newline.
    pub(crate) fn render(&self) -> String {
        let mut text = format!(
            "{START}\n# This section is managed by adit. DO NOT EDIT.\n#\n\
             # Changes in it are lost when \"adit config-ssh\" runs again.\n#\n"
        );
        if !self.remembered.is_empty() {
            text.push_str("# Last config-ssh options:\n");
            for option in &self.remembered {
                let _ = writeln!(text, "# :{option}");
            }
            text.push_str("#\n");
        }
        let mut sections = Vec::new();
        if !self.prefix.is_empty() {
            for host in self.names() {
                let pattern = format!("{}{host}", self.prefix);
                sections.push(format!(
                    "Host {pattern}\n{}\tProxyCommand {}\n",
                    self.options(),
                    self.proxy(&format!("--ssh-host-prefix {}", self.prefix)),
                ));
            }
        }
        if !self.suffix.is_empty() {
            for host in self.names() {
                let pattern = format!("{host}.{}", self.suffix);
                sections.push(format!(
                    "Host {pattern}\n{}\nMatch host {pattern} !exec \"{} connect exists %h\"\n\tProxyCommand {}\n",
                    self.options(),
                    self.program.replace('"', ""),
                    self.proxy(&format!("--hostname-suffix {}", self.suffix)),
                ));
            }
        }
        text.push_str(&sections.join("\n"));
        text.push_str(END);
        text.push('\n');
        text
    }

    fn names(&self) -> Vec<&str> {
        match &self.hosts {
            Some(hosts) => hosts.iter().map(String::as_str).collect(),
            None => vec!["*"],
        }
    }

    fn proxy(&self, naming: &str) -> String {
        let mut flags = String::new();
        if let Some(wait) = self.wait {
            let _ = write!(flags, "--wait={wait} ");
        }
        if self.disable_autostart {
            flags.push_str("--disable-autostart=true ");
        }
        format!(
            "{} {}ssh --stdio {flags}{naming} %h",
            self.program, self.global_args
        )
    }

    /// User options win over the deployment's, those over the defaults.
    fn options(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        let deployment = self
            .deployment_options
            .iter()
            .map(|(key, value)| format!("{key} {value}"));
        let all = self
            .user_options
            .iter()
            .cloned()
            .chain(deployment)
            .chain(DEFAULTS.map(str::to_owned));
        for option in all {
            if !lines.iter().any(|line| key(line) == key(&option)) {
                lines.push(option);
            }
        }
        lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "\t{line}");
            text
        })
    }
}

/// The option's name in lower case: OpenSSH ignores case, and takes both
/// `Key value` and `Key=value`.
fn key(option: &str) -> String {
    option
        .split(['=', ' ', '\t'])
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

/// A file that cannot be edited without guessing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    #[error(
        "more than one {START:?} line: remove all but one block by hand, then run config-ssh again"
    )]
    TwoBlocks,
    #[error(
        "{START:?} and {END:?} do not pair up: repair or remove that block by hand, then run config-ssh again"
    )]
    Unpaired,
}

/// Replaces the block in `file`, or appends it.
pub(crate) fn replace(file: &str, block: &str) -> Result<String, EditError> {
    let Some((before, _, after)) = split(file)? else {
        let mut text = file.to_owned();
        if !text.is_empty() {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push('\n');
        }
        text.push_str(block);
        return Ok(text);
    };
    Ok(format!("{before}{block}{after}"))
}

/// The options remembered in the block of `file`.
pub(crate) fn remembered(file: &str) -> Result<Vec<(String, String)>, EditError> {
    let Some((_, block, _)) = split(file)? else {
        return Ok(Vec::new());
    };
    Ok(block
        .lines()
        .filter_map(|line| line.strip_prefix("# :")?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

fn split(file: &str) -> Result<Option<(&str, &str, &str)>, EditError> {
    let mut start = None;
    let mut end = None;
    let mut position = 0;
    for line in file.split_inclusive('\n') {
        match line.trim_end() {
            START if start.is_some() => return Err(EditError::TwoBlocks),
            START => start = Some(position),
            END if start.is_none() || end.is_some() => return Err(EditError::Unpaired),
            END => end = Some(position + line.len()),
            _ => {}
        }
        position += line.len();
    }
    match (start, end) {
        (None, None) => Ok(None),
        (Some(start), Some(end)) => Ok(Some((&file[..start], &file[start..end], &file[end..]))),
        _ => Err(EditError::Unpaired),
    }
}

/// Quotes a path for a `ProxyCommand`, which a shell splits.
pub(crate) fn quote(path: &str) -> Result<String, String> {
    if path.contains(['"', '\n', '\r']) {
        return Err(format!(
            "the path {path:?} holds a quote or a line break, which OpenSSH cannot take"
        ));
    }
    let escaped = path.replace('%', "%%");
    if escaped.contains([
        ' ', '\t', '\'', '$', '`', '\\', '&', ';', '(', ')', '<', '>', '|', '*', '?',
    ]) {
        return Ok(format!(
            "\"{}\"",
            escaped
                .replace('\\', "\\\\")
                .replace('$', "\\$")
                .replace('`', "\\`")
        ));
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        Block {
            program: "/usr/bin/adit".into(),
            global_args: "--global-config /home/u/.config/adit ".into(),
            prefix: "coder.".into(),
            suffix: "coder".into(),
            hosts: None,
            wait: None,
            disable_autostart: false,
            user_options: Vec::new(),
            deployment_options: Vec::new(),
            remembered: Vec::new(),
        }
    }

    #[test]
    fn wildcards() {
        let text = block().render();
        assert!(text.contains(
            "Host coder.*\n\tConnectTimeout=0\n\tStrictHostKeyChecking=no\n\tUserKnownHostsFile=/dev/null\n\tLogLevel ERROR\n\
             \tProxyCommand /usr/bin/adit --global-config /home/u/.config/adit ssh --stdio --ssh-host-prefix coder. %h\n"
        ), "{text}");
        assert!(text.contains(
            "Match host *.coder !exec \"/usr/bin/adit connect exists %h\"\n\
             \tProxyCommand /usr/bin/adit --global-config /home/u/.config/adit ssh --stdio --hostname-suffix coder %h\n"
        ), "{text}");
    }

    #[test]
    fn one_by_one_with_options() {
        let mut block = block();
        block.hosts = Some(vec!["dev".into()]);
        block.disable_autostart = true;
        block.wait = Some("yes");
        block.user_options = vec!["ForwardAgent=yes".into(), "loglevel DEBUG".into()];
        block.deployment_options = vec![
            ("ForwardAgent".into(), "no".into()),
            ("Compression".into(), "yes".into()),
        ];
        let text = block.render();
        assert!(text.contains("Host coder.dev\n\tForwardAgent=yes\n\tloglevel DEBUG\n\tCompression yes\n\tConnectTimeout=0\n"), "{text}");
        assert!(!text.contains("LogLevel ERROR"));
        assert!(text.contains(
            "ssh --stdio --wait=yes --disable-autostart=true --hostname-suffix coder %h"
        ));
    }

    #[test]
    fn replaces_only_its_block() {
        let first = replace("Host a\n\tUser b", &block().render()).unwrap();
        assert!(first.starts_with("Host a\n\tUser b\n\n# ---"));
        let mut other = block();
        other.remembered = vec!["ssh-option=ForwardAgent=yes".into()];
        let second = replace(&format!("{first}\nHost z\n"), &other.render()).unwrap();
        assert!(second.starts_with("Host a\n\tUser b\n\n# ---"));
        assert!(second.ends_with("\nHost z\n"));
        assert_eq!(second.matches(START).count(), 1);
        assert_eq!(
            remembered(&second).unwrap(),
            [("ssh-option".to_owned(), "ForwardAgent=yes".to_owned())]
        );
        // Writing the same block again changes nothing.
        assert_eq!(replace(&second, &other.render()).unwrap(), second);
    }

    #[test]
    fn refuses_to_guess() {
        assert_eq!(
            replace(&format!("{START}\n"), "x"),
            Err(EditError::Unpaired)
        );
        assert_eq!(
            replace(&format!("{END}\n{START}\n"), "x"),
            Err(EditError::Unpaired)
        );
        assert_eq!(
            replace(&format!("{START}\n{START}\n{END}\n"), "x"),
            Err(EditError::TwoBlocks)
        );
    }

    #[test]
    fn quoting() {
        assert_eq!(quote("/usr/bin/adit").unwrap(), "/usr/bin/adit");
        assert_eq!(quote("/my bin/adit").unwrap(), "\"/my bin/adit\"");
        assert_eq!(quote("/a%b").unwrap(), "/a%%b");
        assert!(quote("a\"b").is_err());
    }
}
