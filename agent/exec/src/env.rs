//! The environment of a command.
//!
//! Several sources meet here; [`EnvLayers`] holds what the agent knows and
//! [`EnvLayers::build`] merges it with what one client asked for. From weak
//! to strong:
//!
//! 1. inherited: the agent's own environment, then the client's requests,
//!    then `DISPLAY`, then `USER`, `LOGNAME`, `SHELL` – the *first* of these
//!    that names a variable wins;
//! 2. the fixed workspace variables;
//! 3. the workspace's configured variables, expanded against the agent's
//!    environment;
//! 4. user secrets, verbatim;
//! 5. agent-level variables such as `GIT_ASKPASS`;
//! 6. `PATH` with the script directory in front;
//! 7. `SSH_CLIENT`, `SSH_CONNECTION`, and what the session itself adds.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use crate::user::{User, expand_variables};

/// An environment: unique names in order of first appearance. Values may be
/// any bytes. `Debug` shows names only, because values may be secret.
#[derive(Clone, Default)]
pub struct Environment {
    order: Vec<OsString>,
    values: HashMap<OsString, OsString>,
}

impl Environment {
    /// An empty environment.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `name`, replacing an earlier value. A name that is empty or holds
    /// `=` or NUL, or a value that holds NUL, cannot be passed to a process
    /// and is dropped.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let (name, value) = (name.into(), value.into());
        if !representable(&name, &value) {
            return;
        }
        if self.values.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }

    /// Sets `name` only if it has no value yet.
    pub fn set_default(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let name = name.into();
        if !self.values.contains_key(&name) {
            self.set(name, value);
        }
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        self.values.get(name.as_ref()).map(OsString::as_os_str)
    }

    /// Removes `name` and returns its value.
    pub fn remove(&mut self, name: impl AsRef<OsStr>) -> Option<OsString> {
        let value = self.values.remove(name.as_ref())?;
        self.order.retain(|n| n != name.as_ref());
        Some(value)
    }

    /// All variables in order of first appearance.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.order
            .iter()
            .filter_map(|n| Some((n.as_os_str(), self.get(n)?)))
    }

    /// Number of variables.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// True without variables.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.order).finish()
    }
}

fn representable(name: &OsStr, value: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    !name.is_empty()
        && !name.contains(&b'=')
        && !name.contains(&0)
        && !value.as_encoded_bytes().contains(&0)
}

/// What the agent contributes to the environment of every command.
///
/// `Debug` shows names only.
#[derive(Clone, Default)]
pub struct EnvLayers {
    /// The agent's own environment ([`EnvLayers::process`]).
    pub process: Vec<(OsString, OsString)>,
    /// Workspace identity, agent token and the like: beats what is inherited.
    pub fixed: Vec<(OsString, OsString)>,
    /// Configured variables of the workspace; `$NAME` and `${NAME}` in their
    /// values refer to [`EnvLayers::process`].
    pub configured: Vec<(OsString, OsString)>,
    /// User secrets that have a variable name; raw bytes.
    pub secrets: Vec<(OsString, OsString)>,
    /// Variables nothing may override, for example `GIT_ASKPASS`.
    pub agent: Vec<(OsString, OsString)>,
    /// Directory placed in front of `PATH`.
    pub script_bin_dir: Option<PathBuf>,
}

impl EnvLayers {
    /// Captures the environment of this process. The marker some init scripts
    /// leave for the Go runtime (`GOTRACEBACK=none`) is not for children.
    #[must_use]
    pub fn process() -> Vec<(OsString, OsString)> {
        std::env::vars_os()
            .filter(|(n, v)| !(n == "GOTRACEBACK" && v == "none"))
            .collect()
    }

    /// Merges everything for one command. `client` are the variables the
    /// client asked for, in its order; `display` is the X11 display, if any.
    #[must_use]
    pub fn build(
        &self,
        user: &User,
        client: &[(OsString, OsString)],
        display: Option<&str>,
    ) -> Environment {
        let mut env = Environment::new();
        for (name, value) in &self.fixed {
            env.set(name, value);
        }
        for (name, value) in self.process.iter().chain(client) {
            env.set_default(name, value);
        }
        if let Some(display) = display {
            env.set_default("DISPLAY", display);
        }
        env.set_default("USER", &user.name);
        env.set_default("LOGNAME", &user.name);
        env.set_default("SHELL", &user.shell);
        for (name, value) in &self.configured {
            env.set(name, expand_variables(value, |n| self.process_var(n)));
        }
        for (name, value) in self.secrets.iter().chain(&self.agent) {
            env.set(name, value);
        }
        self.extend_path(&mut env);
        env.set("SSH_CLIENT", "0.0.0.0 0 0");
        env.set("SSH_CONNECTION", "0.0.0.0 0 0.0.0.0 0");
        env
    }

    /// A variable of the agent's own environment.
    #[must_use]
    pub fn process_var(&self, name: &str) -> Option<OsString> {
        let found = self.process.iter().find(|(n, _)| n == name)?;
        Some(found.1.clone())
    }

    fn extend_path(&self, env: &mut Environment) {
        let path = match env.get("PATH") {
            Some(path) => path.to_owned(),
            None => match self.process_var("PATH") {
                Some(path) => path,
                None => OsString::new(),
            },
        };
        let Some(dir) = &self.script_bin_dir else {
            if !path.is_empty() {
                env.set("PATH", path);
            }
            return;
        };
        let mut joined = dir.clone().into_os_string();
        if !path.is_empty() {
            joined.push(":");
            joined.push(path);
        }
        env.set("PATH", joined);
    }
}

impl fmt::Debug for EnvLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn names(list: &[(OsString, OsString)]) -> Vec<&OsStr> {
            list.iter().map(|(n, _)| n.as_os_str()).collect()
        }
        f.debug_struct("EnvLayers")
            .field("process", &names(&self.process))
            .field("fixed", &names(&self.fixed))
            .field("configured", &names(&self.configured))
            .field("secrets", &names(&self.secrets))
            .field("agent", &names(&self.agent))
            .field("script_bin_dir", &self.script_bin_dir)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(n, v)| (n.into(), v.into())).collect()
    }

    fn user() -> User {
        User {
            name: "dev".into(),
            home: "/home/dev".into(),
            shell: "/bin/zsh".into(),
        }
    }

    fn layers() -> EnvLayers {
        EnvLayers {
            process: pairs(&[
                ("HOME", "/home/dev"),
                ("PATH", "/bin"),
                ("SHELL", "/bin/agent"),
                ("CODER", "no"),
            ]),
            fixed: pairs(&[("CODER", "true")]),
            configured: pairs(&[("PLACE", "in ${HOME}$NONE"), ("TOKEN", "weak")]),
            secrets: pairs(&[("TOKEN", "$HOME")]),
            agent: pairs(&[("GIT_ASKPASS", "/agent")]),
            script_bin_dir: Some("/scripts".into()),
        }
    }

    #[test]
    fn the_order_of_strength_holds() {
        let client = pairs(&[
            ("HOME", "/evil"),
            ("LANG", "first"),
            ("LANG", "second"),
            ("PLACE", "x"),
            ("CODER", "y"),
        ]);
        let env = layers().build(&user(), &client, Some("localhost:10.0"));
        for (name, value) in [
            ("HOME", "/home/dev"),
            ("LANG", "first"),
            ("CODER", "true"),
            ("PLACE", "in /home/dev"),
            ("TOKEN", "$HOME"),
            ("GIT_ASKPASS", "/agent"),
            ("DISPLAY", "localhost:10.0"),
            ("USER", "dev"),
            ("LOGNAME", "dev"),
            ("SHELL", "/bin/agent"),
            ("PATH", "/scripts:/bin"),
            ("SSH_CLIENT", "0.0.0.0 0 0"),
            ("SSH_CONNECTION", "0.0.0.0 0 0.0.0.0 0"),
        ] {
            assert_eq!(env.get(name), Some(OsStr::new(value)), "{name}");
        }
    }

    #[test]
    fn a_client_may_bring_the_path_only_if_the_agent_has_none() {
        let mut layers = layers();
        layers.process.retain(|(n, _)| n != "PATH");
        let env = layers.build(&user(), &pairs(&[("PATH", "/mine")]), None);
        assert_eq!(env.get("PATH"), Some(OsStr::new("/scripts:/mine")));
        let env = layers.build(&user(), &[], None);
        assert_eq!(env.get("PATH"), Some(OsStr::new("/scripts")));
    }

    #[test]
    fn impossible_entries_are_dropped() {
        let mut env = Environment::new();
        env.set("", "x");
        env.set("A=B", "x");
        env.set("NUL", "a\0b");
        assert!(env.is_empty());
        env.set("A", "1");
        env.set("A", "2");
        assert_eq!((env.len(), env.remove("A")), (1, Some("2".into())));
        assert!(env.is_empty());
    }

    #[test]
    fn debug_shows_no_values() {
        let text = format!("{:?}", layers());
        assert!(text.contains("TOKEN") && !text.contains("weak"), "{text}");
    }
}
