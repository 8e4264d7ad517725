//! What the control plane says about this workspace, checked and in the
//! agent's own types.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_agent_exec::expand_directory;
use adit_messages::time::{duration_from_proto, metadata_interval_from_proto};
use adit_messages::{agent, tailnet};
use uuid::Uuid;

use crate::apphealth::{Check, Health};
use crate::metadata::Description;

/// Log source of output that belongs to no script.
pub const EXTERNAL_LOG_SOURCE: Uuid = Uuid::from_u128(0x3b57_9bf4_1ed8_4b99_87a8_e9a1_e341_0410);

/// One script of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Identifier used in completion reports.
    pub id: Uuid,
    /// Where its output is filed.
    pub log_source: Uuid,
    /// Configured log file; empty for the default one.
    pub log_path: String,
    /// Text of the script.
    pub text: String,
    /// Schedule; empty for none.
    pub cron: String,
    /// Runs once after the first manifest.
    pub on_start: bool,
    /// Runs during shutdown.
    pub on_stop: bool,
    /// Time limit, `None` for none.
    pub timeout: Option<Duration>,
    /// Name for people; may be empty.
    pub name: String,
}

/// A checked manifest. Secrets are kept apart, see [`Secret`].
#[derive(Clone, Debug)]
pub struct Manifest {
    /// This agent.
    pub agent_id: Uuid,
    /// Its workspace.
    pub workspace_id: Uuid,
    /// Set if this agent runs inside a dev container of another.
    pub parent_id: Option<Uuid>,
    /// Name of the workspace's owner.
    pub owner: String,
    /// Name of the workspace.
    pub workspace: String,
    /// Name of this agent.
    pub agent: String,
    /// Working directory of commands, expanded.
    pub directory: Option<PathBuf>,
    /// Environment variables, not yet expanded.
    pub environment: Vec<(OsString, OsString)>,
    /// Template of port addresses for VS Code; may be empty.
    pub vscode_proxy_uri: String,
    /// File shown at login; may be empty.
    pub motd_path: String,
    /// How many git providers the deployment signs in to.
    pub git_auth_configs: u32,
    /// Only relayed connections are allowed.
    pub disable_direct: bool,
    /// Relays are reached through WebSockets only.
    pub force_websockets: bool,
    /// Relay map as received.
    pub derp_map: Option<tailnet::DerpMap>,
    /// Scripts, without the placeholders of dev containers.
    pub scripts: Vec<Script>,
    /// App checks.
    pub checks: Vec<Check>,
    /// Metadata items.
    pub metadata: Vec<Description>,
}

/// A user secret. `Debug` shows no value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Environment variable, empty for none.
    pub env_name: String,
    /// File, empty for none.
    pub file_path: String,
    /// The secret itself.
    pub value: bytes::Bytes,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("env_name", &self.env_name)
            .field("file_path", &self.file_path)
            .finish_non_exhaustive()
    }
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// An identifier is not a UUID.
    #[error("the manifest's {0} is not a UUID")]
    Identifier(&'static str),
    /// The agent has no identity.
    #[error("the manifest names no agent")]
    NoAgent,
}

/// Checks a received manifest and splits the secrets off. `home` and `var`
/// (the agent's own environment) expand the directory.
pub fn check(
    proto: agent::Manifest,
    home: &Path,
    var: impl Fn(&str) -> Option<OsString>,
) -> Result<(Manifest, Vec<Secret>), ManifestError> {
    let agent_id = uuid(&proto.agent_id, "agent id")?;
    if agent_id.is_nil() {
        return Err(ManifestError::NoAgent);
    }
    let placeholders: Vec<_> = proto.devcontainers.iter().map(|d| &d.id).collect();
    let scripts = proto
        .scripts
        .iter()
        .filter(|s| !placeholders.contains(&&s.id))
        .map(script)
        .collect::<Result<_, _>>()?;
    let checks = proto.apps.iter().map(app_check).collect::<Result<_, _>>()?;
    let secrets = proto
        .secrets
        .into_iter()
        .map(|s| Secret {
            env_name: s.env_name,
            file_path: s.file_path,
            value: s.value,
        })
        .collect();
    let mut environment: Vec<(OsString, OsString)> = proto
        .environment_variables
        .into_iter()
        .map(|(k, v)| (k.into(), v.into()))
        .collect();
    environment.sort();
    let manifest = Manifest {
        agent_id,
        workspace_id: uuid(&proto.workspace_id, "workspace id")?,
        parent_id: proto
            .parent_id
            .as_deref()
            .map(|id| uuid(id, "parent id"))
            .transpose()?,
        owner: proto.owner_username,
        workspace: proto.workspace_name,
        agent: proto.agent_name,
        directory: expand_directory(&proto.directory, home, var),
        environment,
        vscode_proxy_uri: proto.vs_code_port_proxy_uri,
        motd_path: proto.motd_path,
        git_auth_configs: proto.git_auth_configs,
        disable_direct: proto.disable_direct_connections,
        force_websockets: proto.derp_force_websockets,
        derp_map: proto.derp_map,
        scripts,
        checks,
        metadata: proto.metadata.into_iter().map(description).collect(),
    };
    Ok((manifest, secrets))
}

fn uuid(field: &[u8], name: &'static str) -> Result<Uuid, ManifestError> {
    adit_messages::uuid_from_bytes(field)
        .map(Uuid::from_bytes)
        .ok_or(ManifestError::Identifier(name))
}

fn script(s: &agent::WorkspaceAgentScript) -> Result<Script, ManifestError> {
    let timeout = s.timeout.as_ref().and_then(duration_from_proto);
    let source = uuid(&s.log_source_id, "log source id")?;
    Ok(Script {
        id: uuid(&s.id, "script id")?,
        log_source: if source.is_nil() {
            EXTERNAL_LOG_SOURCE
        } else {
            source
        },
        log_path: s.log_path.clone(),
        text: s.script.clone(),
        cron: s.cron.clone(),
        on_start: s.run_on_start,
        on_stop: s.run_on_stop,
        timeout: timeout.filter(|t| !t.is_zero()),
        name: s.display_name.clone(),
    })
}

fn app_check(app: &agent::WorkspaceApp) -> Result<Check, ManifestError> {
    let health = app.healthcheck.clone().unwrap_or_default();
    let interval = health.interval.as_ref().and_then(duration_from_proto);
    Ok(Check {
        id: uuid(&app.id, "app id")?.into_bytes(),
        url: health.url,
        interval: interval.unwrap_or_default(),
        threshold: u32::try_from(health.threshold).unwrap_or(0),
        initial: Health::from_wire(app.health),
    })
}

fn description(d: agent::workspace_agent_metadata::Description) -> Description {
    let seconds = |d: Option<&_>| d.map(metadata_interval_from_proto).unwrap_or_default();
    Description {
        interval: seconds(d.interval.as_ref()),
        timeout: seconds(d.timeout.as_ref()),
        key: d.key,
        script: d.script,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn id(n: u8) -> Bytes {
        Bytes::copy_from_slice(&[n; 16])
    }

    fn manifest() -> agent::Manifest {
        agent::Manifest {
            agent_id: id(1),
            workspace_id: id(2),
            directory: "~/$SUB".to_owned(),
            scripts: vec![
                agent::WorkspaceAgentScript {
                    id: id(3),
                    log_source_id: id(0),
                    ..Default::default()
                },
                agent::WorkspaceAgentScript {
                    id: id(4),
                    log_source_id: id(5),
                    ..Default::default()
                },
            ],
            devcontainers: vec![agent::WorkspaceAgentDevcontainer {
                id: id(4),
                ..Default::default()
            }],
            metadata: vec![agent::workspace_agent_metadata::Description {
                key: "k".to_owned(),
                interval: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 10,
                }),
                ..Default::default()
            }],
            secrets: vec![agent::WorkspaceSecret {
                env_name: "S".to_owned(),
                value: Bytes::from_static(b"hush"),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn checked(m: agent::Manifest) -> Result<(Manifest, Vec<Secret>), ManifestError> {
        check(m, Path::new("/home/u"), |n| {
            (n == "SUB").then(|| OsString::from("src"))
        })
    }

    #[test]
    fn splits_secrets_and_placeholders_off() {
        let (m, secrets) = checked(manifest()).expect("usable");
        assert_eq!(m.directory.as_deref(), Some(Path::new("/home/u/src")));
        assert_eq!(m.scripts.len(), 1);
        assert_eq!(m.scripts[0].log_source, EXTERNAL_LOG_SOURCE);
        assert_eq!(m.metadata[0].interval, Duration::from_secs(10));
        assert!(!format!("{m:?} {secrets:?}").contains("hush"));
        assert_eq!(&secrets[0].value[..], b"hush");
    }

    #[test]
    fn refuses_what_is_not_an_identity() {
        let mut m = manifest();
        m.agent_id = id(0);
        assert_eq!(checked(m).err(), Some(ManifestError::NoAgent));
        let mut m = manifest();
        m.workspace_id = Bytes::new();
        assert_eq!(
            checked(m).err(),
            Some(ManifestError::Identifier("workspace id"))
        );
        let mut m = manifest();
        m.parent_id = Some(Bytes::new());
        assert!(checked(m).is_err());
    }
}
