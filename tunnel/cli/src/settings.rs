//! Which control plane to talk to and as whom: flags first, then the
//! environment (`ADIT_*`, then `CODER_*`), then the stored login, then the
//! login of an installed `coder` CLI.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use url::Url;

use crate::{cli::Global, store::Store};

/// What the environment says, read once at start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pub(crate) url: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) config_dir: Option<PathBuf>,
    pub(crate) header: Option<String>,
    pub(crate) header_command: Option<String>,
    pub(crate) disable_direct: bool,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) config_home: Option<PathBuf>,
}

impl Environment {
    /// Reads the variables of this process.
    pub(crate) fn of_process() -> Self {
        Self::from(&|name| std::env::var_os(name))
    }

    fn from(get: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let os = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| get(name).filter(|value| !value.is_empty()))
        };
        let text = |names: &[&str]| os(names).and_then(|value| value.into_string().ok());
        let path = |names: &[&str]| os(names).map(PathBuf::from);
        Self {
            url: text(&["ADIT_URL", "CODER_URL"]),
            token: text(&["ADIT_SESSION_TOKEN", "CODER_SESSION_TOKEN"]),
            config_dir: path(&["ADIT_CONFIG_DIR", "CODER_CONFIG_DIR"]),
            header: text(&["ADIT_HEADER", "CODER_HEADER"]),
            header_command: text(&["ADIT_HEADER_COMMAND", "CODER_HEADER_COMMAND"]),
            disable_direct: text(&[
                "ADIT_DISABLE_DIRECT_CONNECTIONS",
                "CODER_DISABLE_DIRECT_CONNECTIONS",
            ])
            .is_some_and(|value| !matches!(value.as_str(), "0" | "f" | "false" | "no")),
            tls_ca: path(&["ADIT_CLIENT_TLS_CA_FILE", "CODER_CLIENT_TLS_CA_FILE"]),
            tls_cert: path(&["ADIT_CLIENT_TLS_CERT_FILE", "CODER_CLIENT_TLS_CERT_FILE"]),
            tls_key: path(&["ADIT_CLIENT_TLS_KEY_FILE", "CODER_CLIENT_TLS_KEY_FILE"]),
            home: path(&["HOME", "USERPROFILE"]),
            config_home: path(if cfg!(windows) {
                &["APPDATA"]
            } else {
                &["XDG_CONFIG_HOME"]
            }),
        }
    }
}

/// The login that a command uses.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) url: Url,
    pub(crate) token: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

/// Flags and environment together.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) global: Global,
    pub(crate) environment: Environment,
    pub(crate) store: Store,
    coder_store: Option<Store>,
}

impl Settings {
    /// Joins both; nothing is read from disk yet.
    pub(crate) fn new(global: Global, environment: Environment) -> Self {
        let home = environment.home.as_deref();
        let config_home = environment.config_home.as_deref();
        let explicit = global
            .global_config
            .as_deref()
            .or(environment.config_dir.as_deref());
        let store = Store::open(explicit, home, config_home);
        // A directory that was asked for is the only one that is read.
        let coder_store = explicit
            .is_none()
            .then(|| Store::of_coder(home, config_home));
        Self {
            global,
            environment,
            store,
            coder_store,
        }
    }

    /// The URL, if any source names one.
    pub(crate) fn url(&self) -> Result<Option<Url>> {
        if let Some(url) = &self.global.url {
            return Ok(Some(url.clone()));
        }
        if let Some(text) = &self.environment.url {
            return parse_url(text).map(Some);
        }
        Ok(self.stored()?.map(|(url, _)| url))
    }

    /// The login, or an error that says how to make one.
    pub(crate) fn login(&self) -> Result<Login> {
        let named = match (&self.global.url, &self.environment.url) {
            (Some(url), _) => Some(url.clone()),
            (None, Some(text)) => Some(parse_url(text)?),
            (None, None) => None,
        };
        let token = self
            .global
            .token
            .clone()
            .or_else(|| self.environment.token.clone());
        if let (Some(url), Some(token)) = (&named, &token) {
            return Ok(Login {
                url: url.clone(),
                token: token.clone(),
            });
        }
        let stored = self.stored()?;
        let login = match (named, token, stored) {
            // A stored token goes only to the server it was made for.
            (Some(url), None, Some((stored_url, stored_token)))
                if same_server(&url, &stored_url) =>
            {
                Login {
                    url,
                    token: stored_token,
                }
            }
            (None, Some(token), Some((url, _))) => Login { url, token },
            (None, None, Some((url, token))) => Login { url, token },
            (Some(url), _, _) => {
                bail!("You are not logged in to {url}. Try logging in using 'adit login {url}'.")
            }
            _ => bail!("You are not logged in. Try logging in using 'adit login <url>'."),
        };
        Ok(login)
    }

    /// Both halves of the first stored login that is complete.
    pub(crate) fn stored(&self) -> Result<Option<(Url, String)>> {
        for store in [Some(&self.store), self.coder_store.as_ref()]
            .into_iter()
            .flatten()
        {
            if let (Some(url), Some(token)) = (store.url()?, store.session()?) {
                return Ok(Some((url, token)));
            }
        }
        Ok(None)
    }

    /// `NAME=VALUE` headers for every request, as flags and environment have
    /// them. The header command is left to the caller.
    pub(crate) fn headers(&self) -> Vec<String> {
        if !self.global.header.is_empty() {
            return self.global.header.clone();
        }
        self.environment
            .header
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::to_owned)
            .collect()
    }

    /// The command that prints more headers.
    pub(crate) fn header_command(&self) -> Option<&str> {
        self.global
            .header_command
            .as_deref()
            .or(self.environment.header_command.as_deref())
            .filter(|command| !command.trim().is_empty())
    }

    /// Whether only relayed connections are wanted.
    pub(crate) fn relay_only(&self) -> bool {
        self.global.disable_direct_connections || self.environment.disable_direct
    }

    /// CA, certificate and key files.
    pub(crate) fn tls_files(&self) -> (Option<&Path>, Option<&Path>, Option<&Path>) {
        fn pick<'a>(flag: &'a Option<PathBuf>, variable: &'a Option<PathBuf>) -> Option<&'a Path> {
            flag.as_deref().or(variable.as_deref())
        }
        (
            pick(&self.global.client_tls_ca_file, &self.environment.tls_ca),
            pick(
                &self.global.client_tls_cert_file,
                &self.environment.tls_cert,
            ),
            pick(&self.global.client_tls_key_file, &self.environment.tls_key),
        )
    }
}

/// Reads an address as people type it: the scheme may be missing.
pub(crate) fn parse_url(text: &str) -> Result<Url> {
    let text = text.trim();
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    match Url::parse(&full) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => bail!(
            "{text:?} is not the address of a control plane: write it like https://coder.example.com"
        ),
    }
}

fn same_server(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin() && a.path().trim_end_matches('/') == b.path().trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    fn settings(args: &[&str], variables: &[(&str, &str)], config: &Path) -> Settings {
        let cli = Cli::try_parse_from([&["adit"], args, &["whoami"]].concat()).unwrap();
        let environment = Environment::from(&|name| {
            if name == "XDG_CONFIG_HOME" {
                return Some(config.as_os_str().to_owned());
            }
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        });
        Settings::new(cli.global, environment)
    }

    #[test]
    fn precedence() {
        let dir = tempfile::tempdir().unwrap();
        let stored = Url::parse("http://stored").unwrap();
        Store::of_coder(None, Some(dir.path()))
            .save(&stored, "coder")
            .unwrap();
        let token = |args: &[&str], variables: &[(&str, &str)]| {
            let login = settings(args, variables, dir.path()).login().unwrap();
            format!("{} {}", login.url.host_str().unwrap(), login.token)
        };
        assert_eq!(token(&[], &[]), "stored coder");
        Store::open(None, None, Some(dir.path()))
            .save(&stored, "adit")
            .unwrap();
        assert_eq!(token(&[], &[]), "stored adit");
        assert_eq!(
            token(
                &[],
                &[("CODER_URL", "http://c"), ("CODER_SESSION_TOKEN", "t")]
            ),
            "c t"
        );
        assert_eq!(
            token(
                &[],
                &[
                    ("CODER_URL", "http://c"),
                    ("ADIT_URL", "http://a"),
                    ("CODER_SESSION_TOKEN", "t")
                ]
            ),
            "a t"
        );
        assert_eq!(
            token(
                &["--url", "http://f", "--token", "x"],
                &[("CODER_SESSION_TOKEN", "t")]
            ),
            "f x"
        );
    }

    #[test]
    fn a_stored_token_stays_with_its_server() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(None, None, Some(dir.path()))
            .save(&Url::parse("http://stored").unwrap(), "secret")
            .unwrap();
        let error = settings(&["--url", "http://other"], &[], dir.path())
            .login()
            .unwrap_err()
            .to_string();
        assert!(error.contains("adit login http://other"), "{error}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let login = Login {
            url: Url::parse("http://h").unwrap(),
            token: "very-secret".into(),
        };
        assert!(!format!("{login:?}").contains("very-secret"));
    }

    #[test]
    fn addresses() {
        assert_eq!(
            parse_url("coder.example.com").unwrap().as_str(),
            "https://coder.example.com/"
        );
        assert_eq!(parse_url("http://127.0.0.1:1/x").unwrap().port(), Some(1));
        for bad in ["", "ftp://h", "http://", "::"] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
