//! What an agent is told about itself.

use std::time::Duration;

use adit_messages::{agent as pb, tailnet, time};
use adit_rest::{AppHealth, SharingLevel};
use adit_store::model::{AgentContext, App, Metadata, Script};
use bytes::Bytes;
use url::Url;
use uuid::Uuid;

/// Everything a manifest is made of.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) context: AgentContext,
    pub(crate) scripts: Vec<Script>,
    pub(crate) apps: Vec<App>,
    pub(crate) metadata: Vec<Metadata>,
    pub(crate) derp_map: tailnet::DerpMap,
    pub(crate) block_direct: bool,
    pub(crate) force_websockets: bool,
    /// The number of sign-in providers for git hosts.
    pub(crate) git_auth_configs: u32,
    /// Host name pattern of apps (`*.apps.example.com`), or empty.
    pub(crate) wildcard_host: String,
    /// By which agents and clients reach this server.
    pub(crate) access_url: Url,
}

impl Facts {
    /// The URL below which ports of the workspace are reached from a browser,
    /// with a place for the port; empty without host names for apps.
    fn port_url(&self) -> String {
        if self.wildcard_host.is_empty() {
            return String::new();
        }
        let AgentContext {
            agent,
            workspace,
            owner,
            ..
        } = &self.context;
        let name = format!(
            "{{{{port}}}}--{}--{}--{}",
            agent.name, workspace.name, owner.username
        );
        let mut host = self.wildcard_host.replacen('*', &name, 1);
        if let (false, Some(port)) = (self.wildcard_host.contains(':'), self.access_url.port()) {
            host = format!("{host}:{port}");
        }
        format!("{}://{host}", self.access_url.scheme())
    }
}

/// The manifest. Every part that agents written in Go need is present, even if
/// empty, and no enum is unspecified.
pub(crate) fn manifest(facts: Facts) -> pb::Manifest {
    let vs_code_port_proxy_uri = facts.port_url();
    let AgentContext {
        agent,
        workspace,
        owner,
        ..
    } = facts.context;
    pb::Manifest {
        agent_id: id(agent.id),
        git_auth_configs: facts.git_auth_configs,
        environment_variables: agent.environment_variables,
        directory: agent.directory,
        vs_code_port_proxy_uri,
        motd_path: agent.motd_file,
        disable_direct_connections: facts.block_direct,
        derp_force_websockets: facts.force_websockets,
        derp_map: Some(facts.derp_map),
        scripts: facts.scripts.into_iter().map(script).collect(),
        apps: facts.apps.into_iter().map(app).collect(),
        metadata: facts.metadata.into_iter().map(metadata).collect(),
        owner_username: owner.username,
        workspace_id: id(workspace.id),
        agent_name: agent.name,
        workspace_name: workspace.name,
        devcontainers: Vec::new(),
        parent_id: agent.parent_id.map(id),
        secrets: Vec::new(),
    }
}

fn script(script: Script) -> pb::WorkspaceAgentScript {
    pb::WorkspaceAgentScript {
        log_source_id: id(script.log_source_id),
        log_path: script.log_path,
        script: script.script,
        cron: script.cron,
        run_on_start: script.run_on_start,
        run_on_stop: script.run_on_stop,
        start_blocks_login: script.start_blocks_login,
        timeout: Some(seconds(script.timeout_seconds)),
        display_name: script.display_name,
        id: id(script.id),
    }
}

fn app(app: App) -> pb::WorkspaceApp {
    use pb::workspace_app::{Health, Healthcheck, SharingLevel as Level};
    let spec = app.spec;
    pb::WorkspaceApp {
        id: id(app.id),
        url: spec.url,
        external: spec.external,
        slug: spec.slug,
        display_name: spec.display_name,
        command: spec.command,
        icon: spec.icon,
        subdomain: spec.subdomain,
        subdomain_name: String::new(),
        sharing_level: match spec.sharing_level {
            SharingLevel::Authenticated => Level::Authenticated,
            SharingLevel::Public => Level::Public,
            SharingLevel::Organization => Level::Organization,
            _ => Level::Owner,
        }
        .into(),
        healthcheck: Some(Healthcheck {
            url: spec.healthcheck.url,
            interval: Some(seconds(spec.healthcheck.interval)),
            threshold: i32::try_from(spec.healthcheck.threshold).unwrap_or(i32::MAX),
        }),
        health: match app.health {
            AppHealth::Initializing => Health::Initializing,
            AppHealth::Healthy => Health::Healthy,
            AppHealth::Unhealthy => Health::Unhealthy,
            _ => Health::Disabled,
        }
        .into(),
        hidden: spec.hidden,
    }
}

fn metadata(item: Metadata) -> pb::workspace_agent_metadata::Description {
    let interval = |seconds: i64| {
        Some(time::metadata_interval_to_proto(
            u64::try_from(seconds).unwrap_or(0),
        ))
    };
    pb::workspace_agent_metadata::Description {
        display_name: item.display_name,
        key: item.key,
        script: item.script,
        interval: interval(item.interval_seconds),
        timeout: interval(item.timeout_seconds),
    }
}

fn seconds(seconds: i64) -> prost_types::Duration {
    time::duration_to_proto(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn id(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(wildcard_host: &str, access_url: &str) -> Facts {
        let mut context = AgentContext {
            agent: Default::default(),
            workspace: Default::default(),
            build: Default::default(),
            job: Default::default(),
            owner: Default::default(),
        };
        context.agent.name = "main".into();
        context.workspace.name = "box".into();
        context.owner.username = "ann".into();
        Facts {
            context,
            scripts: Vec::new(),
            apps: Vec::new(),
            metadata: Vec::new(),
            derp_map: Default::default(),
            block_direct: false,
            force_websockets: false,
            git_auth_configs: 0,
            wildcard_host: wildcard_host.into(),
            access_url: access_url.parse().unwrap(),
        }
    }

    #[test]
    fn ports_have_urls_where_apps_have_host_names() {
        assert_eq!(facts("", "http://h").port_url(), "");
        assert_eq!(
            facts("*.apps.example.com", "https://h.example.com").port_url(),
            "https://{{port}}--main--box--ann.apps.example.com"
        );
        assert_eq!(
            facts("*.localhost", "http://127.0.0.1:3000").port_url(),
            "http://{{port}}--main--box--ann.localhost:3000"
        );
        assert_eq!(
            facts("*.localhost:9", "http://127.0.0.1:3000").port_url(),
            "http://{{port}}--main--box--ann.localhost:9"
        );
    }
}
