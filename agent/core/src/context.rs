//! What commands inherit from the agent, rebuilt with every manifest.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use adit_agent_exec::{CommandContext, ContextError, ContextProvider, EnvLayers, User};
use adit_agent_ssh::Greeting;

use crate::config::AgentConfig;
use crate::manifest::{Manifest, Secret};

/// The environment and directory of commands in this workspace, and what is
/// shown at login.
#[derive(Debug)]
pub(crate) struct Workspace {
    config: Arc<AgentConfig>,
    current: RwLock<Option<Current>>,
    banners: RwLock<Vec<String>>,
}

#[derive(Debug)]
struct Current {
    layers: EnvLayers,
    directory: Option<PathBuf>,
    motd: String,
}

impl Workspace {
    /// A workspace that is not known yet.
    #[must_use]
    pub(crate) fn new(config: Arc<AgentConfig>) -> Self {
        Self {
            config,
            current: RwLock::default(),
            banners: RwLock::default(),
        }
    }

    /// Takes a new manifest over, for commands started from now on.
    pub(crate) fn handle_manifest(&self, manifest: &Manifest, secrets: &[Secret]) {
        let exe = self.config.executable.clone().into_os_string();
        let mut git_ssh = exe.clone();
        git_ssh.push(" gitssh --");
        let mut fixed: Vec<(OsString, OsString)> = [
            ("CODER", "true"),
            ("CODER_WORKSPACE_NAME", &manifest.workspace),
            ("CODER_WORKSPACE_AGENT_NAME", &manifest.agent),
            ("CODER_WORKSPACE_OWNER_NAME", &manifest.owner),
            ("CODER_WORKSPACE_ID", &manifest.workspace_id.to_string()),
            ("CS_DISABLE_GETTING_STARTED_OVERRIDE", "true"),
        ]
        .map(|(n, v)| (n.into(), v.into()))
        .into();
        fixed.push(("GIT_SSH_COMMAND".into(), git_ssh));
        if !manifest.vscode_proxy_uri.is_empty() {
            let uri = manifest.vscode_proxy_uri.clone();
            fixed.push(("VSCODE_PROXY_URI".into(), uri.into()));
        }
        let secrets = secrets
            .iter()
            .filter(|s| !s.env_name.is_empty())
            .map(|s| {
                let value = OsString::from_vec(s.value.to_vec());
                (OsString::from(&s.env_name), value)
            })
            .collect();
        let layers = EnvLayers {
            process: self.config.environment.clone(),
            fixed,
            configured: manifest.environment.clone(),
            secrets,
            agent: vec![("GIT_ASKPASS".into(), exe)],
            script_bin_dir: Some(self.config.data_dir().join("bin")),
        };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Current {
            layers,
            directory: manifest.directory.clone(),
            motd: manifest.motd_path.clone(),
        });
    }

    /// Takes the announcement banners over.
    pub(crate) fn handle_banners(&self, banners: Vec<String>) {
        *self.banners.write().unwrap_or_else(PoisonError::into_inner) = banners;
    }
}

impl ContextProvider for Workspace {
    fn context(&self) -> Result<CommandContext, ContextError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let current = current.as_ref().ok_or(ContextError::NoManifest)?;
        let mut layers = current.layers.clone();
        // Fresh for every command, so that helpers work after a rotation.
        if let Ok(token) = self.config.auth.token() {
            layers
                .fixed
                .push(("CODER_AGENT_TOKEN".into(), token.into()));
        }
        Ok(CommandContext {
            user: User::current()?,
            layers,
            directory: current.directory.clone(),
            wrapper: self.config.wrapper.clone(),
        })
    }
}

impl Greeting for Workspace {
    fn banners(&self) -> Vec<String> {
        self.banners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn motd_file(&self) -> Option<PathBuf> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let motd = current.as_ref().map(|c| c.motd.clone())?;
        (!motd.is_empty()).then(|| motd.into())
    }
}
