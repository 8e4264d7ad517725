//! The state a flow starts from: users, templates and workspaces like those of
//! the recorded server, made through the API and the store.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use adit_rest::{
    AppHealth, LifecycleState, PresetParameter, ScriptStatus, TemplateVersionParameter, Time,
};
use adit_server::config::Provisioners;
use adit_server::{App, Config, Server};
use adit_store::model::{PREBUILDS_USER, ScriptTiming, TemplateOptions};
use adit_store::spec::{OutputLine, ResourceSpec, VersionSpec};
use adit_store::{MetadataValue, NewBuild, NewPreset, NewTemplate, NewVersion, NewWorkspace};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::http::{self, Request};
use crate::{echo, vectors};

pub const PASSWORD: &str = "Password-0001-example";
/// The workspace whose agent speaks in a flow with an agent.
pub const DEV: &str = "c6a3daf3-0dda-454d-bf1a-3fd203325f52";
pub const PREBUILT: &str = "639d172f-c3f8-41aa-9560-8e4dea17fba8";

/// The first user and the organization of one of the two recorded servers.
struct Owner {
    username: &'static str,
    email: &'static str,
    name: &'static str,
    id: &'static str,
    organization: &'static str,
    templates: &'static str,
}

const ADMIN: Owner = Owner {
    username: "admin",
    email: "admin@example.com",
    name: "Admin User",
    id: "59a50768-0c10-436f-a310-a777d00b5163",
    organization: "0cf35630-b03f-44b2-9ac6-b647cbde6ac8",
    templates: "world.json",
};

const TESTUSER: Owner = Owner {
    username: "testuser",
    email: "testuser@coder.com",
    name: "Test User",
    id: "9d4dd1b6-39c6-4857-8363-5c65798f6f59",
    organization: "586c7be7-96e1-41e2-b48f-446eb6a48e95",
    templates: "world-prebuild.json",
};

/// One workspace to make.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    pub name: &'static str,
    pub owner: &'static str,
    pub template: &'static str,
    /// Transitions after the first start, and the reason of the last build.
    pub then: &'static [&'static str],
    pub reason: &'static str,
    /// Its agent is connected and ready.
    pub connected: bool,
    pub autostart: bool,
    /// Values of its parameters.
    pub values: &'static [(&'static str, &'static str)],
    /// Its first build still runs.
    pub building: bool,
    /// Its id in the recording.
    pub id: &'static str,
    /// The id of its first build in the recording.
    pub build: &'static str,
}

/// What a flow starts from.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub admin: bool,
    pub bob: bool,
    /// Which versions of the template `base` exist; the last is active.
    pub base: usize,
    pub workspaces: &'static [Seed],
    pub renames: bool,
    /// Template settings were changed in between.
    pub edited: bool,
    pub prebuilds: bool,
}

#[derive(Deserialize)]
struct TemplateFixture {
    id: String,
    name: String,
    display_name: String,
    description: String,
    icon: String,
    default_ttl_ms: i64,
    activity_bump_ms: i64,
    allow_user_cancel_workspace_jobs: bool,
    versions: Vec<VersionFixture>,
}

#[derive(Deserialize)]
struct VersionFixture {
    id: String,
    name: String,
    message: String,
    readme: String,
    resources: Value,
    stop_resources: Value,
    parameters: Vec<TemplateVersionParameter>,
    presets: Vec<adit_rest::Preset>,
    logs: Value,
    error: String,
}

pub struct World {
    pub app: App,
    pub server: SocketAddr,
    pub admin_token: String,
    /// Recorded id to ours.
    pub ids: HashMap<String, String>,
    /// Recorded key id to our token.
    pub tokens: HashMap<String, String>,
    pub hold: watch::Sender<bool>,
    owner: &'static Owner,
    tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl World {
    pub async fn new(start: &Start) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::bind(Config {
            data_dir: dir.path().to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            provisioners: Provisioners::None,
            allow_workspace_renames: start.renames,
            max_token_lifetime: Duration::from_secs(7 * 24 * 3600),
            stun_servers: if start.prebuilds {
                vec!["127.0.0.1:38807".into()]
            } else {
                Vec::new()
            },
            ..Config::default()
        })
        .await
        .unwrap();
        let app = server.app();
        let (hold, held) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut world = Self {
            server: server.address(),
            admin_token: String::new(),
            ids: HashMap::new(),
            tokens: HashMap::new(),
            hold,
            owner: if start.prebuilds { &TESTUSER } else { &ADMIN },
            _dir: dir,
            app: app.clone(),
            tasks: JoinSet::new(),
        };
        tasks.spawn(async move { server.run().await.unwrap() });
        tasks.spawn(echo::run(app, held));
        world.tasks = tasks;
        if start.admin {
            world.make_admin().await;
        }
        if start.bob {
            world.make_bob().await;
        }
        if start.base > 0 {
            world.make_templates(start.base).await;
        }
        for seed in start.workspaces {
            world.make_workspace(seed).await;
        }
        if start.edited {
            world.edit_templates().await;
        }
        if start.prebuilds {
            world.make_prebuild().await;
        }
        world
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> Value {
        let reply = http::send(
            self.server,
            Request {
                method,
                path,
                headers: vec![("Coder-Session-Token".into(), token.into())],
                body: body.to_string().into_bytes(),
            },
        )
        .await;
        let value = reply.json();
        assert!(
            reply.head.status < 300,
            "{method} {path}: {} {value}",
            reply.head.status
        );
        value
    }

    pub async fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        self.call(method, path, &self.admin_token, body).await
    }

    fn pair(&mut self, recorded: &str, ours: &Value) {
        if recorded.is_empty() {
            return;
        }
        let ours = ours.as_str().unwrap().to_owned();
        self.ids.insert(recorded.to_owned(), ours);
    }

    async fn login(&self, email: &str) -> String {
        let body = json!({"email": email, "password": PASSWORD});
        let reply = self.call("POST", "/api/v2/users/login", "", body).await;
        reply["session_token"].as_str().unwrap().to_owned()
    }

    async fn make_admin(&mut self) {
        let body = json!({
            "email": self.owner.email, "username": self.owner.username,
            "name": self.owner.name, "password": PASSWORD,
        });
        let made = self.call("POST", "/api/v2/users/first", "", body).await;
        self.pair(self.owner.id, &made["user_id"]);
        self.pair(self.owner.organization, &made["organization_id"]);
        self.admin_token = self.login(self.owner.email).await;
        for key in ["keyid00001", "keyid00002", "keyid00003", "keyid00013"] {
            self.tokens.insert(key.into(), self.admin_token.clone());
        }
        // The built-in template is not in the recording.
        for template in self.app.store.templates().await.unwrap() {
            self.app.store.delete_template(template.id).await.unwrap();
        }
    }

    async fn make_bob(&mut self) {
        let organization = self.ids[self.owner.organization].clone();
        let body = json!({
            "email": "bob@example.com", "username": "bob", "name": "Bob Builder",
            "password": PASSWORD, "login_type": "password",
            "organization_ids": [organization],
        });
        let made = self.admin("POST", "/api/v2/users", body).await;
        self.pair("8f70e510-d347-4bc9-ba7c-4dba5fbdbdc4", &made["id"]);
    }

    /// A session of bob, who is dormant until then.
    pub async fn bob_signs_in(&mut self) {
        let token = self.login("bob@example.com").await;
        self.tokens.insert("keyid00010".into(), token);
    }

    async fn make_templates(&mut self, base_versions: usize) {
        let text = std::fs::read_to_string(vectors::dir().join(self.owner.templates)).unwrap();
        let all: Vec<TemplateFixture> = serde_json::from_str(&text).unwrap();
        for template in all {
            let first = &template.versions[0];
            let options = TemplateOptions {
                display_name: template.display_name.clone(),
                description: template.description.clone(),
                icon: template.icon.clone(),
                default_ttl_ms: template.default_ttl_ms,
                activity_bump_ms: template.activity_bump_ms,
                allow_user_cancel_workspace_jobs: template.allow_user_cancel_workspace_jobs,
                ..TemplateOptions::default()
            };
            let made = self
                .app
                .store
                .create_template(&NewTemplate {
                    organization_id: self.ids[self.owner.organization].parse().unwrap(),
                    created_by: self.ids[self.owner.id].parse().unwrap(),
                    name: template.name.clone(),
                    provisioner: "echo".into(),
                    options,
                    version: version(first, first),
                })
                .await
                .unwrap();
            self.ids.insert(template.id.clone(), made.id.to_string());
            self.ids
                .insert(first.id.clone(), made.active_version_id.to_string());
            let count = if template.name == "base" {
                base_versions
            } else {
                1
            };
            for next in template.versions.iter().take(count).skip(1) {
                let new = version(next, first);
                let id = self.app.store.add_version(&made, &new, true).await.unwrap();
                self.ids.insert(next.id.clone(), id.to_string());
            }
        }
    }

    async fn make_workspace(&mut self, seed: &Seed) {
        let templates = self.admin("GET", "/api/v2/templates", Value::Null).await;
        let template = templates
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["name"] == seed.template)
            .unwrap()["id"]
            .clone();
        let mut body = json!({"name": seed.name, "template_id": template});
        if seed.template == "params" {
            let values: Vec<Value> = seed
                .values
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value}))
                .collect();
            body["rich_parameter_values"] = json!(values);
        }
        if seed.autostart {
            body["autostart_schedule"] = json!("CRON_TZ=UTC 30 9 * * Mon-Fri");
            body["ttl_ms"] = json!(28_800_000);
        }
        self.hold.send_replace(seed.building);
        let path = format!("/api/v2/users/{}/workspaces", seed.owner);
        let made = self.admin("POST", &path, body).await;
        self.pair(seed.id, &made["id"]);
        self.pair(seed.build, &made["latest_build"]["id"]);
        if seed.building {
            return;
        }
        let id: Uuid = made["id"].as_str().unwrap().parse().unwrap();
        if seed.template == "hang" {
            // Once it runs: a waiting job would end at once.
            let job = self.app.store.latest_build(id).await.unwrap().job_id;
            while self.app.store.job(job).await.unwrap().started_at.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let build = made["latest_build"]["id"].as_str().unwrap();
            let path = format!("/api/v2/workspacebuilds/{build}/cancel");
            let _ = http::send(
                self.server,
                Request {
                    method: "PATCH",
                    path: &path,
                    headers: vec![("Coder-Session-Token".into(), self.admin_token.clone())],
                    body: Vec::new(),
                },
            )
            .await;
        }
        self.settled(id).await;
        for (index, transition) in seed.then.iter().enumerate() {
            let mut body = json!({"transition": transition});
            if index + 1 == seed.then.len() {
                body["reason"] = json!(seed.reason);
            }
            let path = format!("/api/v2/workspaces/{id}/builds");
            self.admin("POST", &path, body).await;
            self.settled(id).await;
        }
        if seed.connected {
            self.connect(id).await;
        }
    }

    /// What `templates edit` did before the last flows were recorded.
    async fn edit_templates(&self) {
        for template in self.app.store.templates().await.unwrap() {
            let mut options = template.options.clone();
            options.allow_user_cancel_workspace_jobs = true;
            options.use_classic_parameter_flow = true;
            self.app
                .store
                .set_template_options(template.id, &options)
                .await
                .unwrap();
        }
    }

    /// An unclaimed workspace with a ready agent.
    async fn make_prebuild(&mut self) {
        let template = self.app.store.templates().await.unwrap().remove(0);
        let preset = self
            .app
            .store
            .presets(template.active_version_id)
            .await
            .unwrap()
            .remove(0);
        let new = NewWorkspace {
            owner_id: PREBUILDS_USER,
            organization_id: template.organization_id,
            template_id: template.id,
            name: "prebuild-rkui4tsh373qpcy".into(),
            // Changed by somebody before the claim, which keeps it.
            automatic_updates: adit_rest::AutomaticUpdates::Always,
            ..NewWorkspace::default()
        };
        let build = NewBuild {
            template_version_id: template.active_version_id,
            initiator_id: PREBUILDS_USER,
            preset_id: Some(preset.id),
            ..NewBuild::default()
        };
        let made = self.app.store.create_workspace(&new, &build).await.unwrap();
        self.app.pubsub.queue.notify_one();
        let id = made.workspace.id;
        self.ids.insert(PREBUILT.into(), id.to_string());
        self.settled(id).await;
        self.connect(id).await;
    }

    /// Waits until the newest build has ended.
    pub async fn settled(&self, workspace: Uuid) {
        for _ in 0..500 {
            let build = self.app.store.latest_build(workspace).await.unwrap();
            if self.app.store.job(build.job_id).await.unwrap().is_done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the build does not end");
    }

    /// As [`World::connect`], once per agent.
    pub async fn connect_new(&self, workspace: Uuid) {
        let build = self.app.store.latest_build(workspace).await.unwrap();
        let agents = self.app.store.agents_of_job(build.job_id).await.unwrap();
        if agents
            .iter()
            .any(|agent| agent.first_connected_at.is_none())
        {
            self.connect(workspace).await;
        }
    }

    /// Lets the agents of a workspace report what the recorded ones did.
    pub async fn connect(&self, workspace: Uuid) {
        let store = &self.app.store;
        let build = store.latest_build(workspace).await.unwrap();
        for agent in store.agents_of_job(build.job_id).await.unwrap() {
            let now = Time::now();
            store.agent_connected(agent.id, now).await.unwrap();
            let version = "v0.0.0-devel";
            store
                .set_startup(agent.id, version, "2.10", &agent.directory, &[])
                .await
                .unwrap();
            let values = [("load", "0.10", ""), ("bad", "", "run cmd: exit status 3")];
            let values = values.map(|(key, value, error)| MetadataValue {
                key: key.into(),
                value: value.into(),
                error: error.into(),
            });
            store.set_metadata(agent.id, &values, now).await.unwrap();
            store
                .set_lifecycle(agent.id, LifecycleState::Starting, now)
                .await
                .unwrap();
            for script in store.scripts(agent.id).await.unwrap() {
                if !script.run_on_start {
                    continue;
                }
                let timing = ScriptTiming {
                    script_id: script.id,
                    started_at: now,
                    ended_at: now,
                    exit_code: 0,
                    stage: "start".into(),
                    status: ScriptStatus::Ok,
                };
                store.insert_script_timing(agent.id, &timing).await.unwrap();
            }
            store
                .set_lifecycle(agent.id, LifecycleState::Ready, now)
                .await
                .unwrap();
            for app in store.apps(agent.id).await.unwrap() {
                if app.health == AppHealth::Initializing {
                    let update = [(app.id, AppHealth::Unhealthy)];
                    store.set_app_health(agent.id, &update).await.unwrap();
                }
            }
        }
    }

    /// The id of the first agent of a workspace, by the workspace's recorded id.
    pub async fn agent_of(&self, recorded: &str) -> Uuid {
        let id: Uuid = self.ids[recorded].parse().unwrap();
        let build = self.app.store.latest_build(id).await.unwrap();
        self.app.store.agents_of_job(build.job_id).await.unwrap()[0].id
    }

    /// The token of the newest agent of the first recorded workspace.
    pub async fn agent_token(&self, recorded: &str) -> String {
        let agent = self.agent_of(recorded).await;
        let agent = self.app.store.agent(agent).await.unwrap();
        agent.auth_token.to_string()
    }

    pub async fn stop(mut self) {
        self.app.shutdown.cancel();
        let end = async { self.tasks.join_next().await };
        let _ = tokio::time::timeout(Duration::from_secs(8), end).await;
    }
}

fn version(fixture: &VersionFixture, first: &VersionFixture) -> NewVersion {
    let of = |own: &Value, first: &Value| {
        let value = if own.is_string() { first } else { own };
        serde_json::from_value::<Vec<ResourceSpec>>(value.clone()).unwrap()
    };
    NewVersion {
        id: Uuid::nil(),
        name: fixture.name.clone(),
        message: fixture.message.clone(),
        readme: fixture.readme.clone(),
        spec: VersionSpec {
            resources: of(&fixture.resources, &first.resources),
            stop_resources: of(&fixture.stop_resources, &first.stop_resources),
            parameters: fixture.parameters.clone(),
            plan_output: plan(&fixture.logs),
            driver: json!({"logs": fixture.logs, "error": fixture.error}),
        },
        presets: fixture
            .presets
            .iter()
            .map(|preset| NewPreset {
                name: preset.name.clone(),
                description: preset.description.clone(),
                icon: preset.icon.clone(),
                is_default: preset.default,
                desired_instances: preset.desired_prebuild_instances,
                parameters: preset
                    .parameters
                    .iter()
                    .flatten()
                    .map(|item| PresetParameter {
                        name: item.name.clone(),
                        value: item.value.clone(),
                    })
                    .collect(),
            })
            .collect(),
    }
}

/// What the provisioner says while planning.
fn plan(logs: &Value) -> Vec<OutputLine> {
    let start = logs["start"].as_array().cloned().unwrap_or_default();
    start
        .iter()
        .filter(|line| line[2] == "Planning Infrastructure")
        .map(|line| OutputLine {
            level: adit_rest::LogLevel::parse(line[1].as_str().unwrap()).unwrap(),
            output: line[3].as_str().unwrap().to_owned(),
        })
        .collect()
}
