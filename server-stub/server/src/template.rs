//! The template every server has.

use adit_rest::{DisplayApp, LoginType, UserStatus};
use adit_store::model::{PREBUILDS_USER, TemplateOptions};
use adit_store::spec::{AgentSpec, MetadataSpec, ResourceSpec, ScriptSpec, VersionSpec};
use adit_store::{Error, NewPreset, NewTemplate, NewUser, NewVersion, Store};

/// Name of the built-in template.
pub(crate) const LOCAL: &str = "local";
/// Name of its preset.
pub(crate) const DEFAULT_PRESET: &str = "default";

/// Makes the organization, the system user and the built-in template if they
/// are missing.
pub(crate) async fn ensure_builtin(store: &Store) -> anyhow::Result<()> {
    let organization = store.default_organization().await?;
    match store.user(PREBUILDS_USER).await {
        Ok(_) => {}
        Err(Error::NotFound) => {
            let new = NewUser {
                id: PREBUILDS_USER,
                username: "prebuilds".to_owned(),
                email: "prebuilds@system".to_owned(),
                name: "Prebuilds Owner".to_owned(),
                status: UserStatus::Active,
                login_type: LoginType::None,
                is_system: true,
                ..NewUser::default()
            };
            store.create_user(&new, &[organization.id]).await?;
        }
        Err(error) => return Err(error.into()),
    }
    match store.template_by_name(organization.id, LOCAL).await {
        Ok(_) => Ok(()),
        Err(Error::NotFound) => {
            store.create_template(&local(organization.id)).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// One agent as a process of the server's user.
fn local(organization_id: uuid::Uuid) -> NewTemplate {
    NewTemplate {
        organization_id,
        created_by: PREBUILDS_USER,
        name: LOCAL.to_owned(),
        provisioner: LOCAL.to_owned(),
        options: TemplateOptions {
            display_name: "Local process".to_owned(),
            description: "A workspace in its own directory on this machine.".to_owned(),
            use_classic_parameter_flow: true,
            ..TemplateOptions::default()
        },
        version: NewVersion {
            name: "v1".to_owned(),
            message: "Built in".to_owned(),
            readme: "# Local process\n\nRuns the agent as a process of the server's user.\n"
                .to_owned(),
            spec: VersionSpec {
                resources: vec![ResourceSpec {
                    resource_type: "local_process".to_owned(),
                    name: "main".to_owned(),
                    agents: vec![agent()],
                    ..ResourceSpec::default()
                }],
                ..VersionSpec::default()
            },
            presets: vec![NewPreset {
                name: DEFAULT_PRESET.to_owned(),
                description: "The template's defaults".to_owned(),
                is_default: true,
                ..NewPreset::default()
            }],
            ..NewVersion::default()
        },
    }
}

fn agent() -> AgentSpec {
    AgentSpec {
        name: "main".to_owned(),
        operating_system: match std::env::consts::OS {
            "macos" => "darwin",
            other => other,
        }
        .to_owned(),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        connection_timeout_seconds: 120,
        display_apps: vec![
            DisplayApp::Vscode,
            DisplayApp::WebTerminal,
            DisplayApp::SshHelper,
            DisplayApp::PortForwardingHelper,
        ],
        scripts: vec![ScriptSpec {
            display_name: "Startup".to_owned(),
            script: "echo \"Workspace of $CODER_WORKSPACE_OWNER_NAME is ready.\"".to_owned(),
            run_on_start: true,
            timeout_seconds: 60,
            ..ScriptSpec::default()
        }],
        metadata: vec![MetadataSpec {
            key: "load".to_owned(),
            display_name: "Load average".to_owned(),
            script: "uptime | sed 's/.*load average[s]*: //'".to_owned(),
            interval_seconds: 15,
            timeout_seconds: 5,
        }],
        ..AgentSpec::default()
    }
}
