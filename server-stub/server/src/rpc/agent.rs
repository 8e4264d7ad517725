//! The agent service: what an agent asks and reports over its session.

use std::time::Duration;

use adit_messages::{agent as pb, time};
use adit_rest::Time;
use adit_rpc::{AgentService, Status};
use adit_store::{
    ConnectionReport, Error as StoreError, NewSubAgent,
    model::{Agent, AgentStats, ScriptTiming},
};
use uuid::Uuid;

use super::{
    manifest::{self, Facts},
    report, stored, subagent,
};
use crate::{app::App, derp, pubsub::WorkspaceEventKind};

/// The measurements of resources an agent keeps, and the seconds between them.
const MONITORING: pb::get_resources_monitoring_configuration_response::Config =
    pb::get_resources_monitoring_configuration_response::Config {
        num_datapoints: 20,
        collection_interval_seconds: 10,
    };

/// The most firewall decisions in one report.
const MAX_BOUNDARY_LOGS: usize = 1000;

/// The most context resources in one snapshot.
const MAX_CONTEXT_RESOURCES: usize = 1000;

/// The service for one session of one agent.
#[derive(Debug)]
pub(crate) struct AgentApi {
    app: App,
    agent: Uuid,
    workspace: Uuid,
    /// The API version the agent asked for.
    version: String,
}

impl AgentApi {
    pub(crate) fn new(app: App, agent: Uuid, workspace: Uuid, version: String) -> Self {
        Self {
            app,
            agent,
            workspace,
            version,
        }
    }

    /// The text agents of an outdated build get, on which they drop the session.
    fn store(&self, error: StoreError) -> Status {
        match error {
            StoreError::NotFound => Status::new(format!(
                "get workspace agent by id \"{}\": sql: no rows in result set",
                self.agent
            )),
            error => {
                tracing::error!(agent = %self.agent, error = &error as &dyn std::error::Error, "agent call failed");
                Status::new(error.to_string())
            }
        }
    }

    /// The agent's row; fails once a newer build replaced it.
    async fn row(&self) -> Result<Agent, Status> {
        self.app
            .store
            .agent(self.agent)
            .await
            .map_err(|error| self.store(error))
    }

    /// Tells who watches the workspace.
    async fn changed(&self, kind: WorkspaceEventKind) {
        self.app.workspace_id_changed(self.workspace, kind).await;
    }
}

impl AgentService for AgentApi {
    async fn get_manifest(&self, _: pb::GetManifestRequest) -> Result<pb::Manifest, Status> {
        let store = &self.app.store;
        let context = store
            .agent_context(self.agent)
            .await
            .map_err(|error| self.store(error))?;
        let scripts = store
            .scripts(self.agent)
            .await
            .map_err(|error| self.store(error))?;
        let apps = store
            .apps(self.agent)
            .await
            .map_err(|error| self.store(error))?;
        let metadata = store
            .metadata(self.agent)
            .await
            .map_err(|error| self.store(error))?;
        Ok(manifest::manifest(Facts {
            context,
            scripts,
            apps,
            metadata,
            derp_map: derp::map_message(&self.app),
            block_direct: self.app.config.block_direct_connections,
            force_websockets: self.app.config.force_websockets,
            git_auth_configs: 0,
            wildcard_host: self.app.config.wildcard_host.clone(),
            access_url: self.app.access_url.clone(),
        }))
    }

    async fn get_service_banner(
        &self,
        _: pb::GetServiceBannerRequest,
    ) -> Result<pb::ServiceBanner, Status> {
        Ok(pb::ServiceBanner::default())
    }

    async fn get_announcement_banners(
        &self,
        _: pb::GetAnnouncementBannersRequest,
    ) -> Result<pb::GetAnnouncementBannersResponse, Status> {
        Ok(pb::GetAnnouncementBannersResponse::default())
    }

    async fn update_startup(
        &self,
        request: pb::UpdateStartupRequest,
    ) -> Result<pb::Startup, Status> {
        let startup = request.startup.unwrap_or_default();
        let subsystems = report::startup(&startup).map_err(Status::new)?;
        self.row().await?;
        self.app
            .store
            .set_startup(
                self.agent,
                &startup.version,
                &self.version,
                &startup.expanded_directory,
                &subsystems,
            )
            .await
            .map_err(|error| self.store(error))?;
        Ok(startup)
    }

    async fn update_lifecycle(
        &self,
        request: pb::UpdateLifecycleRequest,
    ) -> Result<pb::Lifecycle, Status> {
        let (state, at) = report::lifecycle(&request).map_err(Status::new)?;
        self.row().await?;
        self.app
            .store
            .set_lifecycle(self.agent, state, at)
            .await
            .map_err(|error| self.store(error))?;
        tracing::info!(agent = %self.agent, %state, "agent lifecycle");
        self.changed(WorkspaceEventKind::Agent).await;
        self.app.pubsub.prebuilds.notify_one();
        Ok(request.lifecycle.unwrap_or_default())
    }

    async fn update_stats(
        &self,
        request: pb::UpdateStatsRequest,
    ) -> Result<pb::UpdateStatsResponse, Status> {
        // Zero would switch the reports of agents written in Go off.
        let interval = self
            .app
            .config
            .agent_stats_interval
            .max(Duration::from_secs(1));
        let response = pb::UpdateStatsResponse {
            report_interval: Some(time::duration_to_proto(interval)),
        };
        let Some(stats) = request.stats else {
            return Ok(response);
        };
        let context = self
            .app
            .store
            .agent_context(self.agent)
            .await
            .map_err(|error| self.store(error))?;
        let now = Time::now();
        let row = AgentStats {
            agent_id: self.agent,
            workspace_id: self.workspace,
            user_id: context.workspace.owner_id,
            created_at: now,
            connection_count: stats.connection_count,
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            sessions_vscode: stats.session_count_vscode,
            sessions_jetbrains: stats.session_count_jetbrains,
            sessions_pty: stats.session_count_reconnecting_pty,
            sessions_ssh: stats.session_count_ssh,
            // Saturates on nonsense.
            latency_us: (stats.connection_median_latency_ms * 1000.0) as i64,
        };
        self.app
            .store
            .insert_stats(&row)
            .await
            .map_err(|error| self.store(error))?;
        if stats.connection_count > 0 && !context.workspace.is_prebuild() {
            super::usage::used(&self.app, &context).await;
        }
        Ok(response)
    }

    async fn batch_update_app_healths(
        &self,
        request: pb::BatchUpdateAppHealthRequest,
    ) -> Result<pb::BatchUpdateAppHealthResponse, Status> {
        let apps = self
            .app
            .store
            .apps(self.agent)
            .await
            .map_err(|error| self.store(error))?;
        let mut updates = Vec::new();
        for update in &request.updates {
            let id = report::id(&update.id, "app id").map_err(Status::new)?;
            let app = apps.iter().find(|app| app.id == id).ok_or_else(|| {
                Status::new(format!("workspace app ID {:?} not found", id.to_string()))
            })?;
            if app.spec.healthcheck.url.is_empty() {
                let text = format!(
                    "workspace app {:?} ({id}) does not have healthchecks enabled",
                    app.spec.slug
                );
                return Err(Status::new(text));
            }
            let health = report::app_health(update.health()).map_err(Status::new)?;
            if health != app.health {
                updates.push((id, health));
            }
        }
        if !updates.is_empty() {
            self.app
                .store
                .set_app_health(self.agent, &updates)
                .await
                .map_err(|error| self.store(error))?;
            self.changed(WorkspaceEventKind::AppHealth).await;
        }
        Ok(pb::BatchUpdateAppHealthResponse {})
    }

    async fn batch_update_metadata(
        &self,
        request: pb::BatchUpdateMetadataRequest,
    ) -> Result<pb::BatchUpdateMetadataResponse, Status> {
        self.row().await?;
        let (values, result) = report::metadata(request);
        if !values.is_empty() {
            let now = Time::now();
            self.app
                .store
                .set_metadata(self.agent, &values, now)
                .await
                .map_err(|error| self.store(error))?;
            self.app.pubsub.agent_metadata.publish(&self.agent, ());
        }
        result
            .map(|()| pb::BatchUpdateMetadataResponse {})
            .map_err(Status::new)
    }

    async fn batch_create_logs(
        &self,
        request: pb::BatchCreateLogsRequest,
    ) -> Result<pb::BatchCreateLogsResponse, Status> {
        let source = report::id(&request.log_source_id, "log source id").map_err(Status::new)?;
        let lines = report::log_lines(request.logs);
        let exceeded = stored::append_logs(&self.app, self.agent, self.workspace, source, lines)
            .await
            .map_err(|error| self.store(error))?;
        Ok(pb::BatchCreateLogsResponse {
            log_limit_exceeded: exceeded,
        })
    }

    async fn script_completed(
        &self,
        request: pb::WorkspaceAgentScriptCompletedRequest,
    ) -> Result<pb::WorkspaceAgentScriptCompletedResponse, Status> {
        let timing = request
            .timing
            .ok_or_else(|| Status::new("script timing is missing"))?;
        let script = report::id(&timing.script_id, "script id").map_err(Status::new)?;
        let (stage, status) = report::timing(&timing).map_err(Status::new)?;
        let (Some(start), Some(end)) = (timing.start, timing.end) else {
            return Err(Status::new(
                "script start and end time are required and cannot be zero",
            ));
        };
        let (started_at, ended_at) = (report::time(Some(&start)), report::time(Some(&end)));
        if started_at > ended_at {
            return Err(Status::new("script start time cannot be after end time"));
        }
        let row = ScriptTiming {
            script_id: script,
            started_at,
            ended_at,
            exit_code: timing.exit_code.into(),
            stage: stage.to_owned(),
            status,
        };
        match self.app.store.insert_script_timing(self.agent, &row).await {
            // A repeated report: agents send them at least once.
            Ok(()) | Err(StoreError::Taken(_)) => {}
            Err(StoreError::NotFound) => {
                return Err(Status::new(format!("script {script} not found")));
            }
            Err(error) => return Err(self.store(error)),
        }
        self.changed(WorkspaceEventKind::Agent).await;
        Ok(pb::WorkspaceAgentScriptCompletedResponse {})
    }

    async fn get_resources_monitoring_configuration(
        &self,
        _: pb::GetResourcesMonitoringConfigurationRequest,
    ) -> Result<pb::GetResourcesMonitoringConfigurationResponse, Status> {
        Ok(pb::GetResourcesMonitoringConfigurationResponse {
            config: Some(MONITORING),
            memory: None,
            volumes: Vec::new(),
        })
    }

    async fn push_resources_monitoring_usage(
        &self,
        _: pb::PushResourcesMonitoringUsageRequest,
    ) -> Result<pb::PushResourcesMonitoringUsageResponse, Status> {
        // Nothing is monitored, so there is nothing to compare with.
        Ok(pb::PushResourcesMonitoringUsageResponse {})
    }

    async fn report_connection(&self, request: pb::ReportConnectionRequest) -> Result<(), Status> {
        use pb::connection::{Action, Type};
        let connection = request
            .connection
            .ok_or_else(|| Status::new("connection is missing"))?;
        let id = report::id(&connection.id, "connection id").map_err(Status::new)?;
        if id.is_nil() {
            return Err(Status::new("connection ID is not set"));
        }
        let at = Some(report::time(connection.timestamp.as_ref()));
        let (connected_at, disconnected_at, status_code) = match connection.action() {
            Action::Connect => (at, None, None),
            Action::Disconnect => (None, at, Some(connection.status_code.into())),
            Action::Unspecified => return Err(Status::new("unknown agent connection action")),
        };
        let kind = match connection.r#type() {
            Type::Ssh => "ssh",
            Type::Vscode => "vscode",
            Type::Jetbrains => "jetbrains",
            Type::ReconnectingPty => "reconnecting_pty",
            Type::Unspecified => return Err(Status::new("unknown agent connection type")),
        };
        let report = ConnectionReport {
            connection_id: id,
            agent_id: self.agent,
            kind: kind.to_owned(),
            ip: match connection.ip.as_str() {
                "localhost" => "127.0.0.1".to_owned(),
                _ => connection.ip.clone(),
            },
            connected_at,
            disconnected_at,
            status_code,
            reason: connection.reason.unwrap_or_default(),
        };
        self.app
            .store
            .report_connection(&report)
            .await
            .map_err(|error| self.store(error))
    }

    async fn create_sub_agent(
        &self,
        request: pb::CreateSubAgentRequest,
    ) -> Result<pb::CreateSubAgentResponse, Status> {
        let parent = self.row().await?;
        if let Some(id) = &request.id {
            let id = report::id(id, "subagent id").map_err(Status::new)?;
            let own = self
                .app
                .store
                .sub_agents(self.agent)
                .await
                .map_err(|error| self.store(error))?;
            let agent = own
                .iter()
                .find(|agent| agent.id == id)
                .ok_or_else(|| Status::new("subagent does not belong to this parent agent"))?;
            return Ok(pb::CreateSubAgentResponse {
                agent: Some(subagent::message(agent)),
                app_creation_errors: Vec::new(),
            });
        }
        let (spec, apps, errors) = subagent::spec(&request, &parent).map_err(Status::new)?;
        let new = NewSubAgent { parent, spec };
        let agent = match self.app.store.create_sub_agent(&new).await {
            Ok(agent) => agent,
            // The name of the constraint is what agents match on.
            Err(StoreError::Taken(what)) => {
                return Err(Status::new(format!(
                    "insert sub agent: {what} {:?} already exists",
                    new.spec.name
                )));
            }
            Err(error) => return Err(self.store(error)),
        };
        let mut app_creation_errors = errors;
        for (position, (index, app)) in apps.into_iter().enumerate() {
            if let Err(error) = self.app.store.add_app(agent.id, position, &app).await {
                app_creation_errors.push(subagent::app_error(index, None, &error.to_string()));
            }
        }
        self.changed(WorkspaceEventKind::Agent).await;
        Ok(pb::CreateSubAgentResponse {
            agent: Some(subagent::message(&agent)),
            app_creation_errors,
        })
    }

    async fn delete_sub_agent(
        &self,
        request: pb::DeleteSubAgentRequest,
    ) -> Result<pb::DeleteSubAgentResponse, Status> {
        let id = report::id(&request.id, "subagent id").map_err(Status::new)?;
        match self.app.store.delete_sub_agent(self.agent, id).await {
            Ok(()) => {}
            Err(StoreError::NotFound) => {
                return Err(Status::new("subagent does not belong to this parent agent"));
            }
            Err(error) => return Err(self.store(error)),
        }
        self.changed(WorkspaceEventKind::Agent).await;
        Ok(pb::DeleteSubAgentResponse {})
    }

    async fn list_sub_agents(
        &self,
        _: pb::ListSubAgentsRequest,
    ) -> Result<pb::ListSubAgentsResponse, Status> {
        let agents = self
            .app
            .store
            .sub_agents(self.agent)
            .await
            .map_err(|error| self.store(error))?;
        Ok(pb::ListSubAgentsResponse {
            agents: agents.iter().map(subagent::message).collect(),
        })
    }

    async fn report_boundary_logs(
        &self,
        request: pb::ReportBoundaryLogsRequest,
    ) -> Result<pb::ReportBoundaryLogsResponse, Status> {
        if request.logs.len() > MAX_BOUNDARY_LOGS {
            let text = format!(
                "batch size {} exceeds maximum of {MAX_BOUNDARY_LOGS}",
                request.logs.len()
            );
            return Err(Status::new(text));
        }
        for log in &request.logs {
            let Some(pb::boundary_log::Resource::HttpRequest(http)) = &log.resource else {
                continue;
            };
            tracing::info!(
                agent = %self.agent,
                process = request.confined_process_name,
                allowed = log.allowed,
                method = http.method,
                url = http.url,
                rule = http.matched_rule,
                "workspace firewall"
            );
        }
        Ok(pb::ReportBoundaryLogsResponse {})
    }

    async fn update_app_status(
        &self,
        request: pb::UpdateAppStatusRequest,
    ) -> Result<pb::UpdateAppStatusResponse, Status> {
        stored::set_app_status(&self.app, self.agent, &request)
            .await
            .map_err(Status::new)?;
        Ok(pb::UpdateAppStatusResponse {})
    }

    async fn push_context_state(
        &self,
        request: pb::PushContextStateRequest,
    ) -> Result<pb::PushContextStateResponse, Status> {
        if request.resources.len() > MAX_CONTEXT_RESOURCES {
            return Err(Status::new("too many context resources"));
        }
        let sources: Vec<_> = request
            .resources
            .iter()
            .map(|resource| resource.source.as_str())
            .collect();
        let snapshot =
            serde_json::json!({ "sources": sources, "error": request.snapshot_error }).to_string();
        let version = i64::try_from(request.version).unwrap_or(i64::MAX);
        let accepted = self
            .app
            .store
            .set_agent_context(self.agent, version, request.initial, &snapshot)
            .await
            .map_err(|error| self.store(error))?;
        Ok(pb::PushContextStateResponse { accepted })
    }
}
