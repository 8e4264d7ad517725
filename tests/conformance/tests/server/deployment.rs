//! A server in this process with the user, the workspaces and the agents of
//! the recordings.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use adit_rest::{
    AppHealth, Healthcheck, JobStatus, LoginType, SharingLevel, Transition, UserStatus,
};
use adit_server::{App, Config, Server, auth, pubsub::WorkspaceEventKind};
use adit_store::{
    BuildResult, NewBuild, NewTemplate, NewUser, NewVersion, NewWorkspace,
    model::Build,
    spec::{AgentSpec, AppSpec, MetadataSpec, ResourceSpec, ScriptSpec, VersionSpec},
};
use adit_tests_conformance::wire::Recording;
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{BOX_TOKEN, DEV_TOKEN};

const PATIENCE: Duration = Duration::from_secs(60);

/// The recorded user `admin`.
const ADMIN: Uuid = Uuid::from_u128(0x314d_f86d_23f9_422e_948a_3b1c_7d41_ce82);
/// The recorded agent of the workspace `dev`.
pub(crate) const DEV_AGENT: Uuid = Uuid::from_u128(0xbebc_a0fa_841e_4a5f_9ada_bd57_854e_be5e);
/// The recorded agent of the workspace `box`.
pub(crate) const BOX_AGENT: Uuid = Uuid::from_u128(0x08e7_0e27_b3c4_4a13_9f59_5009_b2b1_c458);

/// A server, its session token, and what its identifiers correspond to.
pub(crate) struct Deployment {
    dir: tempfile::TempDir,
    pub(crate) app: App,
    address: SocketAddr,
    running: Option<JoinHandle<anyhow_result::Result>>,
    pub(crate) session_token: String,
    /// Recorded identifiers and those of this server, as raw bytes.
    pub(crate) ids: BTreeMap<[u8; 16], [u8; 16]>,
    building: Option<Build>,
}

mod anyhow_result {
    /// What a server's run returns, without naming its error type.
    pub(crate) type Result = std::result::Result<(), String>;
}

impl Deployment {
    /// A server whose agents are described as in the manifests of a recording.
    pub(crate) async fn start(recording: &Recording) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::bind(config(dir.path(), SocketAddr::from(([127, 0, 0, 1], 0))))
            .await
            .unwrap();
        let app = server.app();
        let mut deployment = Self {
            dir,
            address: server.address(),
            app,
            running: Some(run(server)),
            session_token: String::new(),
            ids: BTreeMap::new(),
            building: None,
        };
        deployment.fill(recording).await;
        deployment
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A recorded request head for this server.
    pub(crate) fn head(&self, head: &str) -> String {
        let mut text = String::new();
        for line in head.lines().filter(|line| !line.is_empty()) {
            let name = line.split(':').next().unwrap_or_default().to_lowercase();
            let line = match name.as_str() {
                "host" => format!("Host: {}", self.address),
                _ if line.contains("SESSION-TOKEN-PLACEHOLDER") => {
                    format!("Coder-Session-Token: {}", self.session_token)
                }
                _ => line.to_owned(),
            };
            text += &line;
            text += "\r\n";
        }
        text + "\r\n"
    }

    /// Ends the server as a signal does.
    pub(crate) async fn stop(&mut self) {
        self.app.shutdown.cancel();
        let running = self.running.take().unwrap();
        tokio::time::timeout(PATIENCE, running)
            .await
            .expect("the server ends in time")
            .unwrap()
            .unwrap();
    }

    /// Starts it again, at the same address and with the same data.
    pub(crate) async fn restart(&mut self) {
        let server = Server::bind(config(self.dir.path(), self.address))
            .await
            .unwrap();
        self.app = server.app();
        self.running = Some(run(server));
    }

    /// Builds a workspace and waits for the end of the build.
    pub(crate) async fn build(&self, workspace: &str, transition: Transition) {
        let build = self.post_build(workspace, transition).await;
        self.app.pubsub.queue.notify_one();
        self.built(build.job_id).await;
    }

    async fn post_build(&self, workspace: &str, transition: Transition) -> Build {
        let store = &self.app.store;
        let workspace = store
            .workspace_by_name(ADMIN, workspace, false)
            .await
            .unwrap();
        let latest = store.latest_build(workspace.id).await.unwrap();
        let new = NewBuild {
            workspace_id: workspace.id,
            template_version_id: latest.template_version_id,
            transition,
            initiator_id: ADMIN,
            ..NewBuild::default()
        };
        store.create_build(&new).await.unwrap().0
    }

    /// Begins a build in the place of a provisioner; [`Self::proceed`] ends it.
    pub(crate) async fn begin_build(&mut self, workspace: &str, transition: Transition) {
        let build = self.post_build(workspace, transition).await;
        let job = self.app.store.acquire_job(Uuid::new_v4()).await.unwrap();
        assert_eq!(job.map(|job| job.id), Some(build.job_id));
        self.app
            .workspace_id_changed(build.workspace_id, WorkspaceEventKind::Build)
            .await;
        self.building = Some(build);
    }

    /// Ends the build that was begun, if one was.
    pub(crate) async fn proceed(&mut self) {
        let Some(build) = self.building.take() else {
            return;
        };
        let store = &self.app.store;
        let version = store.version(build.template_version_id).await.unwrap();
        let resources = match build.transition {
            Transition::Start => version.spec.resources,
            _ => version.spec.stop_resources,
        };
        let result = BuildResult {
            resources,
            state: None,
        };
        store.complete_build(build.job_id, &result).await.unwrap();
        self.app
            .workspace_id_changed(build.workspace_id, WorkspaceEventKind::Build)
            .await;
    }

    /// Builds a workspace from a newer version of its template, whose agent is
    /// another one.
    pub(crate) async fn update(&self, workspace: &str) {
        let store = &self.app.store;
        let workspace = store
            .workspace_by_name(ADMIN, workspace, false)
            .await
            .unwrap();
        let template = store.template(workspace.template_id).await.unwrap();
        let agents = vec![AgentSpec {
            name: "main".into(),
            ..AgentSpec::default()
        }];
        let resources = vec![ResourceSpec {
            resource_type: "thing".into(),
            name: "a".into(),
            agents,
            ..Default::default()
        }];
        let spec = VersionSpec {
            resources,
            ..VersionSpec::default()
        };
        let version = NewVersion {
            name: "v2".into(),
            spec,
            ..NewVersion::default()
        };
        let template_version_id = store.add_version(&template, &version, true).await.unwrap();
        let new = NewBuild {
            workspace_id: workspace.id,
            template_version_id,
            initiator_id: ADMIN,
            ..NewBuild::default()
        };
        let (build, _) = store.create_build(&new).await.unwrap();
        self.app.pubsub.queue.notify_one();
        self.built(build.job_id).await;
    }

    async fn built(&self, job: Uuid) {
        let wait = async {
            loop {
                let job = self.app.store.job(job).await.unwrap();
                match job.status() {
                    JobStatus::Succeeded => return,
                    JobStatus::Failed => panic!("the build failed: {}", job.error),
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the build ends in time");
    }

    async fn fill(&mut self, recording: &Recording) {
        let store = &self.app.store;
        let organization = store.default_organization().await.unwrap();
        let admin = NewUser {
            id: ADMIN,
            username: "admin".into(),
            email: "a@example.com".into(),
            status: UserStatus::Active,
            login_type: LoginType::Password,
            roles: vec!["owner".into()],
            ..NewUser::default()
        };
        store.create_user(&admin, &[organization.id]).await.unwrap();
        let key = auth::session_key(&self.app, ADMIN);
        store.insert_key(&key.key).await.unwrap();
        self.session_token = key.token;

        let described: Vec<Value> = recording
            .drpc()
            .filter(|packet| packet.method.ends_with("/GetManifest") && packet.kind == "Message")
            .filter_map(|packet| {
                packet
                    .msg
                    .clone()
                    .filter(|msg| msg.get("agent_id").is_some())
            })
            .collect();
        for (name, id, token) in [("dev", DEV_AGENT, DEV_TOKEN), ("box", BOX_AGENT, BOX_TOKEN)] {
            let manifest = described
                .iter()
                .find(|manifest| uuid_of(&manifest["agent_id"]) == id);
            let spec = manifest.map_or_else(undescribed, agent);
            // Fixed only where the recording knows the agent: a second build
            // makes another one.
            let known = recording
                .records
                .iter()
                .any(|record| format!("{record:?}").contains(&id.to_string()));
            let fixed = manifest.is_some() || known;
            let spec = AgentSpec {
                name: "main".into(),
                auth_token: Some(token.parse().unwrap()),
                id: fixed.then_some(id),
                ..spec
            };
            let resources = vec![ResourceSpec {
                resource_type: "thing".into(),
                name: "a".into(),
                agents: vec![spec],
                ..Default::default()
            }];
            let stopped = ResourceSpec {
                agents: vec![AgentSpec {
                    name: "main".into(),
                    ..AgentSpec::default()
                }],
                ..resources[0].clone()
            };
            let template = NewTemplate {
                organization_id: organization.id,
                created_by: ADMIN,
                name: name.into(),
                // No driver of this server: what is described counts as there.
                provisioner: "echo".into(),
                options: Default::default(),
                version: NewVersion {
                    name: "v1".into(),
                    spec: VersionSpec {
                        resources,
                        stop_resources: vec![stopped],
                        ..VersionSpec::default()
                    },
                    ..NewVersion::default()
                },
            };
            let template = store.create_template(&template).await.unwrap();
            let workspace = NewWorkspace {
                owner_id: ADMIN,
                organization_id: organization.id,
                template_id: template.id,
                name: name.into(),
                ..NewWorkspace::default()
            };
            let build = NewBuild {
                template_version_id: template.active_version_id,
                initiator_id: ADMIN,
                ..NewBuild::default()
            };
            let created = store.create_workspace(&workspace, &build).await.unwrap();
            self.app.pubsub.queue.notify_one();
            self.built(created.job.id).await;
            if let Some(manifest) = manifest {
                let ids = corresponding(&self.app, id, manifest).await;
                self.ids.extend(ids);
            }
        }
    }
}

fn config(dir: &Path, listen: SocketAddr) -> Config {
    Config {
        data_dir: dir.to_owned(),
        listen,
        rate_limit: 0,
        // Recorded from such a server.
        version: Some("v0.0.0-devel".into()),
        ..Config::default()
    }
}

fn run(server: Server) -> JoinHandle<anyhow_result::Result> {
    tokio::spawn(async move { server.run().await.map_err(|error| format!("{error:#}")) })
}

/// Identifiers of a manifest's parts: the recorded ones and those they have
/// here.
async fn corresponding(app: &App, agent: Uuid, manifest: &Value) -> Vec<([u8; 16], [u8; 16])> {
    let mut ids = Vec::new();
    let scripts = app.store.scripts(agent).await.unwrap();
    for recorded in list(manifest, "scripts") {
        let own = scripts
            .iter()
            .find(|script| script.script == text(recorded, "script"))
            .unwrap();
        ids.push((uuid_of(&recorded["id"]), own.id));
        ids.push((uuid_of(&recorded["log_source_id"]), own.log_source_id));
    }
    let apps = app.store.apps(agent).await.unwrap();
    for recorded in list(manifest, "apps") {
        let own = apps
            .iter()
            .find(|app| app.spec.slug == text(recorded, "slug"))
            .unwrap();
        ids.push((uuid_of(&recorded["id"]), own.id));
        let health = AppHealth::parse(&text(recorded, "health").to_lowercase()).unwrap_or_default();
        app.store
            .set_app_health(agent, &[(own.id, health)])
            .await
            .unwrap();
    }
    ids.into_iter()
        .map(|(recorded, own)| (recorded.into_bytes(), own.into_bytes()))
        .collect()
}

/// An agent without a recorded manifest, with what recordings use of it.
fn undescribed() -> AgentSpec {
    let apps = vec![AppSpec {
        slug: "webok".into(),
        ..AppSpec::default()
    }];
    AgentSpec {
        apps,
        ..AgentSpec::default()
    }
}

/// The description an agent's manifest was made from.
fn agent(manifest: &Value) -> AgentSpec {
    let environment = manifest["environment_variables"].as_object();
    AgentSpec {
        operating_system: "linux".into(),
        architecture: "amd64".into(),
        directory: text(manifest, "directory"),
        motd_file: text(manifest, "motd_path"),
        environment_variables: environment
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect(),
        scripts: list(manifest, "scripts").iter().map(script).collect(),
        apps: list(manifest, "apps").iter().map(app).collect(),
        metadata: list(manifest, "metadata").iter().map(metadata).collect(),
        ..AgentSpec::default()
    }
}

fn script(script: &Value) -> ScriptSpec {
    ScriptSpec {
        script: text(script, "script"),
        log_path: text(script, "log_path"),
        cron: text(script, "cron"),
        run_on_start: flag(script, "run_on_start"),
        run_on_stop: flag(script, "run_on_stop"),
        start_blocks_login: flag(script, "start_blocks_login"),
        timeout_seconds: number(&script["timeout"], "seconds"),
        ..ScriptSpec::default()
    }
}

fn app(app: &Value) -> AppSpec {
    AppSpec {
        slug: text(app, "slug"),
        display_name: text(app, "display_name"),
        icon: text(app, "icon"),
        url: text(app, "url"),
        command: text(app, "command"),
        external: flag(app, "external"),
        subdomain: flag(app, "subdomain"),
        hidden: flag(app, "hidden"),
        sharing_level: SharingLevel::parse(&text(app, "sharing_level").to_lowercase())
            .unwrap_or_default(),
        healthcheck: Healthcheck {
            url: text(&app["healthcheck"], "url"),
            interval: number(&app["healthcheck"]["interval"], "seconds"),
            threshold: number(&app["healthcheck"], "threshold"),
        },
        ..AppSpec::default()
    }
}

fn metadata(item: &Value) -> MetadataSpec {
    MetadataSpec {
        key: text(item, "key"),
        display_name: text(item, "display_name"),
        script: text(item, "script"),
        // Seconds, in the place of nanoseconds.
        interval_seconds: number(&item["interval"], "nanos"),
        timeout_seconds: number(&item["timeout"], "nanos"),
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn flag(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or_default()
}

fn number(value: &Value, key: &str) -> i64 {
    value[key].as_i64().unwrap_or_default()
}

/// An identifier in the JSON form of the recordings.
pub(crate) fn uuid_of(value: &Value) -> Uuid {
    let digits = value
        .as_str()
        .and_then(|text| text.strip_prefix("hex:"))
        .unwrap_or_default();
    Uuid::parse_str(digits).unwrap_or_default()
}
