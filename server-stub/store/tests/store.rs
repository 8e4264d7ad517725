//! The rules the store keeps, on a real database file.

#![allow(clippy::unwrap_used, clippy::too_many_lines)]

use adit_rest::{
    AutomaticUpdates, JobStatus, LifecycleState, LogLevel, LogSource, LoginType, Time, Transition,
    UserStatus,
};
use adit_store::model::{AgentContext, PREBUILDS_USER, Template, Workspace};
use adit_store::spec::{AgentSpec, MetadataSpec, ResourceSpec, ScriptSpec, VersionSpec};
use adit_store::{
    BuildResult, Error, JobFilter, LogsOutcome, NewAgentLog, NewBuild, NewJobLog, NewPreset,
    NewTemplate, NewUser, NewVersion, NewWorkspace, Purge, Store,
};
use std::task::Poll;
use uuid::Uuid;

struct Fixture {
    store: Store,
    user: Uuid,
    organization: Uuid,
    template: Template,
    _dir: tempfile::TempDir,
}

fn spec() -> VersionSpec {
    VersionSpec {
        resources: vec![ResourceSpec {
            resource_type: "local_process".into(),
            name: "main".into(),
            agents: vec![AgentSpec {
                name: "main".into(),
                scripts: vec![ScriptSpec {
                    display_name: "Startup".into(),
                    run_on_start: true,
                    ..ScriptSpec::default()
                }],
                metadata: vec![MetadataSpec {
                    key: "load".into(),
                    ..MetadataSpec::default()
                }],
                ..AgentSpec::default()
            }],
            ..ResourceSpec::default()
        }],
        ..VersionSpec::default()
    }
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("test.db")).await.unwrap();
    let first = NewUser {
        username: "admin".into(),
        email: "admin@example.com".into(),
        status: UserStatus::Active,
        login_type: LoginType::Password,
        roles: vec!["owner".into()],
        ..NewUser::default()
    };
    let (user, organization) = store.create_first_user(&first).await.unwrap();
    let system = NewUser {
        id: PREBUILDS_USER,
        username: "prebuilds".into(),
        email: "prebuilds@system".into(),
        is_system: true,
        ..NewUser::default()
    };
    store
        .create_user(&system, &[organization.id])
        .await
        .unwrap();
    let template = store
        .create_template(&NewTemplate {
            organization_id: organization.id,
            created_by: user.id,
            name: "local".into(),
            provisioner: "local".into(),
            version: NewVersion {
                name: "v1".into(),
                spec: spec(),
                presets: vec![NewPreset {
                    name: "default".into(),
                    is_default: true,
                    desired_instances: Some(1),
                    ..NewPreset::default()
                }],
                ..NewVersion::default()
            },
            ..NewTemplate::default()
        })
        .await
        .unwrap();
    Fixture {
        store,
        user: user.id,
        organization: organization.id,
        template,
        _dir: dir,
    }
}

impl Fixture {
    fn new_workspace(&self, owner: Uuid, name: &str) -> NewWorkspace {
        NewWorkspace {
            owner_id: owner,
            organization_id: self.organization,
            template_id: self.template.id,
            name: name.into(),
            automatic_updates: AutomaticUpdates::Never,
            ..NewWorkspace::default()
        }
    }

    async fn create(&self, new: &NewWorkspace) -> Result<adit_store::Created, Error> {
        let preset = self
            .store
            .presets(self.template.active_version_id)
            .await?
            .remove(0);
        let build = NewBuild {
            template_version_id: self.template.active_version_id,
            initiator_id: new.owner_id,
            preset_id: Some(preset.id),
            ..NewBuild::default()
        };
        self.store.create_workspace(new, &build).await
    }

    async fn finish(&self, workspace: &Workspace, token: Option<Uuid>) -> Vec<Uuid> {
        let taken = self
            .store
            .acquire_job(Uuid::new_v4())
            .await
            .unwrap()
            .unwrap();
        let build = self.store.build_by_job(taken.id).await.unwrap();
        assert_eq!(build.workspace_id, workspace.id);
        let mut resources = if build.transition == Transition::Start {
            spec().resources
        } else {
            Vec::new()
        };
        for agent in resources
            .iter_mut()
            .flat_map(|resource| &mut resource.agents)
        {
            agent.auth_token = token;
        }
        let result = BuildResult {
            resources,
            state: None,
        };
        self.store.complete_build(taken.id, &result).await.unwrap();
        let agents = self.store.agents_of_job(taken.id).await.unwrap();
        agents.into_iter().map(|agent| agent.id).collect()
    }

    async fn running(&self, name: &str) -> (Workspace, AgentContext) {
        let made = self
            .create(&self.new_workspace(self.user, name))
            .await
            .unwrap();
        let agents = self.finish(&made.workspace, None).await;
        let agent = self.store.agent_context(agents[0]).await.unwrap();
        (made.workspace, agent)
    }

    async fn transition(&self, workspace: &Workspace, transition: Transition) -> Result<(), Error> {
        let new = NewBuild {
            workspace_id: workspace.id,
            template_version_id: self.template.active_version_id,
            transition,
            initiator_id: self.user,
            ..NewBuild::default()
        };
        self.store.create_build(&new).await.map(|_| ())
    }
}

#[tokio::test]
async fn there_is_one_first_user() {
    let f = fixture().await;
    let second = NewUser {
        username: "x".into(),
        email: "x@example.com".into(),
        ..NewUser::default()
    };
    assert!(matches!(
        f.store.create_first_user(&second).await,
        Err(Error::Refused(_))
    ));
    assert_eq!(f.store.count_users().await.unwrap(), 1);
}

#[tokio::test]
async fn names_are_unique_without_regard_to_case_until_deletion() {
    let f = fixture().await;
    let (workspace, _) = f.running("dev").await;
    let again = f.create(&f.new_workspace(f.user, "DEV")).await;
    assert!(matches!(again, Err(Error::Taken(_))));
    f.transition(&workspace, Transition::Delete).await.unwrap();
    f.finish(&workspace, None).await;
    assert!(f.store.workspace(workspace.id).await.unwrap().deleted);
    assert!(matches!(
        f.store.workspace_by_name(f.user, "dev", false).await,
        Err(Error::NotFound)
    ));
    f.create(&f.new_workspace(f.user, "Dev")).await.unwrap();
    let live = f
        .store
        .workspace_by_name(f.user, "dev", true)
        .await
        .unwrap();
    assert!(!live.deleted);
}

#[tokio::test]
async fn one_build_at_a_time() {
    let f = fixture().await;
    let made = f.create(&f.new_workspace(f.user, "dev")).await.unwrap();
    let early = f.transition(&made.workspace, Transition::Stop).await;
    assert!(matches!(early, Err(Error::BuildActive)));
    f.finish(&made.workspace, None).await;
    f.transition(&made.workspace, Transition::Stop)
        .await
        .unwrap();
    f.finish(&made.workspace, None).await;
    let builds = async |after, page| {
        let found = f.store.builds(made.workspace.id, after, None, page).await;
        found.unwrap()
    };
    let all = builds(None, (0, 0)).await;
    let numbers: Vec<i64> = all.iter().map(|build| build.build_number).collect();
    assert_eq!(numbers, [2, 1]);
    assert_eq!(builds(None, (0, 1)).await, all[..1]);
    assert_eq!(builds(None, (1, 5)).await, all[1..]);
    assert_eq!(builds(Some(all[0].id), (0, 0)).await, all[1..]);
}

#[tokio::test]
async fn a_token_works_while_its_build_counts() {
    let f = fixture().await;
    let (workspace, context) = f.running("dev").await;
    let token = context.agent.auth_token;
    let known = async || {
        f.store
            .agent_by_token(token)
            .await
            .unwrap()
            .map(|c| c.agent.id)
    };
    assert_eq!(known().await, Some(context.agent.id));
    assert!(
        f.store
            .agent_by_token(Uuid::new_v4())
            .await
            .unwrap()
            .is_none()
    );
    // Stop scripts report while the stop build is under way.
    f.transition(&workspace, Transition::Stop).await.unwrap();
    assert_eq!(known().await, Some(context.agent.id));
    f.finish(&workspace, None).await;
    assert_eq!(known().await, None);
    // A new start makes a new agent; the old one is gone for good.
    f.transition(&workspace, Transition::Start).await.unwrap();
    assert_eq!(known().await, None);
    let agents = f.finish(&workspace, None).await;
    assert_eq!(known().await, None);
    let old = f.store.agent_context(context.agent.id).await;
    assert!(matches!(old, Err(Error::NotFound)));
    let new = f.store.agent(agents[0]).await.unwrap();
    assert_ne!(new.auth_token, token);
}

#[tokio::test]
async fn of_many_claims_one_gets_the_prebuilt_workspace() {
    let f = fixture().await;
    let preset = f
        .store
        .presets(f.template.active_version_id)
        .await
        .unwrap()
        .remove(0);
    let unclaimed = f
        .create(&f.new_workspace(PREBUILDS_USER, "prebuild-a"))
        .await
        .unwrap();
    assert!(unclaimed.workspace.is_prebuild());
    let token = Uuid::new_v4();
    let agents = f.finish(&unclaimed.workspace, Some(token)).await;

    let mut early = f.new_workspace(f.user, "early");
    early.claim_preset = Some(preset.id);
    let made = f.create(&early).await.unwrap();
    assert!(!made.claimed, "its agent is not ready yet");
    f.finish(&made.workspace, None).await;

    f.store
        .set_lifecycle(agents[0], LifecycleState::Ready, Time::now())
        .await
        .unwrap();
    assert!(f.store.prebuilds().await.unwrap()[0].ready);
    let claims = (0..4).map(|n| {
        let mut new = f.new_workspace(f.user, &format!("c{n}"));
        new.claim_preset = Some(preset.id);
        new
    });
    let claims: Vec<_> = claims.collect();
    let (a, b, c, d) = tokio::join!(
        f.create(&claims[0]),
        f.create(&claims[1]),
        f.create(&claims[2]),
        f.create(&claims[3]),
    );
    let all = [a.unwrap(), b.unwrap(), c.unwrap(), d.unwrap()];
    let claimed: Vec<_> = all.iter().filter(|made| made.claimed).collect();
    assert_eq!(claimed.len(), 1);
    let claimed = claimed[0];
    assert_eq!(claimed.workspace.id, unclaimed.workspace.id);
    assert_eq!(claimed.workspace.owner_id, f.user);
    assert_eq!(claimed.build.build_number, 2);
    assert_eq!(claimed.job.input.prebuilt_workspace_stage, 2);
    assert!(f.store.prebuilds().await.unwrap().is_empty());
    // Until the claim build is done nobody is let in; then the new agent is.
    assert!(f.store.agent_by_token(token).await.unwrap().is_none());
    loop {
        let job = f.store.acquire_job(Uuid::new_v4()).await.unwrap().unwrap();
        let mut resources = spec().resources;
        resources[0].agents[0].auth_token = (job.id == claimed.job.id).then_some(token);
        let result = BuildResult {
            resources,
            state: None,
        };
        f.store.complete_build(job.id, &result).await.unwrap();
        if job.id == claimed.job.id {
            break;
        }
    }
    let found = f.store.agent_by_token(token).await.unwrap().unwrap();
    assert_ne!(found.agent.id, agents[0]);
    assert_eq!(found.owner.id, f.user);
}

#[tokio::test]
async fn a_job_ends_once() {
    let f = fixture().await;
    let made = f.create(&f.new_workspace(f.user, "dev")).await.unwrap();
    let job = f.store.acquire_job(Uuid::new_v4()).await.unwrap().unwrap();
    assert!(f.store.acquire_job(Uuid::new_v4()).await.unwrap().is_none());
    f.store
        .fail_job(job.id, "no capacity", "", None)
        .await
        .unwrap();
    assert_eq!(
        f.store.job(job.id).await.unwrap().status(),
        JobStatus::Failed
    );
    let late = f
        .store
        .complete_build(job.id, &BuildResult::default())
        .await;
    assert!(matches!(late, Err(Error::Refused(_))));
    assert!(f.store.agents_of_job(job.id).await.unwrap().is_empty());
    assert!(!f.store.workspace(made.workspace.id).await.unwrap().deleted);
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once() {
    let f = fixture().await;
    let made = f.create(&f.new_workspace(f.user, "dev")).await.unwrap();
    assert!(f.store.cancel_job(made.job.id).await.unwrap());
    let job = f.store.job(made.job.id).await.unwrap();
    assert_eq!(job.status(), JobStatus::Canceled);
    assert!(f.store.acquire_job(Uuid::new_v4()).await.unwrap().is_none());
    assert!(f.store.cancel_job(made.job.id).await.is_err());
}

#[tokio::test]
async fn agent_logs_have_a_limit() {
    let f = fixture().await;
    let (_, context) = f.running("dev").await;
    let agent = context.agent.id;
    let source = f.store.log_sources(agent).await.unwrap()[0].id;
    let line = |output: String| NewAgentLog {
        level: LogLevel::Info,
        output,
    };
    let first = f
        .store
        .append_agent_logs(agent, source, &[line("ä".repeat(2000))])
        .await
        .unwrap();
    assert!(matches!(
        first,
        LogsOutcome::Stored {
            was_empty: true,
            ..
        }
    ));
    let stored = f.store.agent_logs(agent, 0, None, 10).await.unwrap();
    assert_eq!(stored[0].output.chars().count(), 1024);
    let big = f
        .store
        .append_agent_logs(agent, source, &[line("x".repeat(1 << 20))])
        .await
        .unwrap();
    assert_eq!(big, LogsOutcome::Overflowed);
    let after = f
        .store
        .append_agent_logs(agent, source, &[line("y".into())])
        .await
        .unwrap();
    assert_eq!(after, LogsOutcome::Overflowed);
    assert!(f.store.agent(agent).await.unwrap().logs_overflowed);
    assert_eq!(
        f.store.agent_logs(agent, 0, None, 10).await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn a_second_start_finds_everything() {
    let f = fixture().await;
    let (workspace, context) = f.running("dev").await;
    let path = f._dir.path().join("test.db");
    f.store.close().await;
    let store = Store::open(&path).await.unwrap();
    let found = store
        .agent_by_token(context.agent.auth_token)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.workspace, workspace);
    assert_eq!(found.agent, context.agent);
    assert_eq!(store.templates().await.unwrap().first(), Some(&f.template));
}

#[tokio::test]
async fn logs_of_what_was_replaced_go_with_time() {
    let f = fixture().await;
    let (workspace, context) = f.running("dev").await;
    let old = context.agent.id;
    f.transition(&workspace, Transition::Start).await.unwrap();
    let new = f.finish(&workspace, None).await[0];
    let line = |output: &str| NewAgentLog {
        level: LogLevel::Info,
        output: output.into(),
    };
    let append = async |agent| {
        let lines = [line("said")];
        f.store.append_agent_logs(agent, Uuid::nil(), &lines).await
    };
    assert!(matches!(append(old).await, Err(Error::NotFound)));
    append(new).await.unwrap();
    let builds = f.store.builds(workspace.id, None, None, (0, 0)).await;
    let jobs: Vec<Uuid> = builds.unwrap().iter().map(|build| build.job_id).collect();
    for job in &jobs {
        let line = NewJobLog {
            created_at: Time::now(),
            source: LogSource::Provisioner,
            level: LogLevel::Info,
            stage: "Setting up".into(),
            output: String::new(),
        };
        f.store.append_job_logs(*job, &[line]).await.unwrap();
    }
    let later = |days: i64| Time::now().plus_micros(days * 24 * 3_600_000_000);
    let purged = async |what, days| f.store.purge(what, later(days)).await.unwrap().rows;
    for what in Purge::ALL {
        assert_eq!(purged(what, 6).await, 0, "{what:?}");
    }
    assert_eq!(purged(Purge::JobLogs, 31).await, 1);
    let left = async |job| f.store.job_logs(job, 0, None, 10).await.unwrap().len();
    assert_eq!((left(jobs[0]).await, left(jobs[1]).await), (1, 0));
    // Its metadata.
    assert_eq!(purged(Purge::AgentRemains, 8).await, 1);
    f.transition(&workspace, Transition::Delete).await.unwrap();
    f.finish(&workspace, None).await;
    assert_eq!(purged(Purge::AgentRemains, 8).await, 2);
    assert_eq!(purged(Purge::AgentRemains, 8).await, 0);
}

#[tokio::test]
async fn many_agents_at_once_are_all_noted_in_order() {
    let f = fixture().await;
    let mut agents = Vec::new();
    for number in 0..5 {
        agents.push(f.running(&format!("dev-{number}")).await.1.agent.id);
    }
    let at = |seconds: i64| Time::from_micros(seconds * 1_000_000);
    let mut notes = Vec::new();
    for round in 1..=200 {
        for agent in &agents {
            notes.push(f.store.agent_connected(*agent, at(round)));
        }
    }
    let mut all = Vec::new();
    // One task, so that they ask in this order.
    for note in notes {
        let mut note = Box::pin(note);
        let first = std::future::poll_fn(|cx| Poll::Ready(note.as_mut().poll(cx))).await;
        if first.is_pending() {
            all.push(note);
        }
    }
    // Some give up; their notes are written all the same.
    let given_up = all.split_off(all.len() - 100);
    drop(given_up);
    for note in all {
        note.await.unwrap();
    }
    f.store.agent_seen(agents[0], at(201)).await.unwrap();
    for (number, agent) in agents.iter().enumerate() {
        let row = f.store.agent(*agent).await.unwrap();
        assert_eq!(row.first_connected_at, Some(at(1)));
        let last = if number == 0 { 201 } else { 200 };
        assert_eq!(row.last_connected_at, Some(at(last)));
    }
}

#[tokio::test]
async fn jobs_are_listed_with_who_did_what() {
    let f = fixture().await;
    let store = &f.store;
    let register = async |name| {
        let made = store.register_provisioner(f.organization, name, "v1", "1.18", &["local"]);
        made.await.unwrap()
    };
    let worker = register("host-0").await;
    let idle = register("host-1").await;
    assert_eq!(register("host-0").await, worker, "known by its name");

    let (workspace, _) = f.running("dev").await;
    f.transition(&workspace, Transition::Stop).await.unwrap();
    let filter = JobFilter {
        organization_id: f.organization,
        limit: 50,
        ..JobFilter::default()
    };
    let find = async |filter: &JobFilter| store.find_jobs(filter).await.unwrap();
    let all = find(&filter).await;
    let stop = &all[0];
    assert_eq!(stop.job.status(), JobStatus::Pending);
    let (id, name, transition) = stop.workspace.clone().unwrap();
    assert_eq!((id, name.as_str()), (workspace.id, "dev"));
    assert_eq!(transition, Transition::Stop);
    let template = stop.template.as_ref().unwrap();
    assert_eq!(template.id, Some(f.template.id));
    assert_eq!(template.name, f.template.name);
    // The template's import, and two builds.
    assert_eq!(all.len(), 3);
    assert!(all[2].workspace.is_none());
    assert_eq!(all[2].template, stop.template);

    let taken = store.acquire_job(worker).await.unwrap().unwrap();
    assert_eq!(taken.id, stop.job.id);
    let of = async |id: Uuid| {
        let all = store.provisioners(f.organization).await.unwrap();
        all.into_iter().find(|listed| listed.provisioner.id == id)
    };
    let busy = of(worker).await.unwrap();
    assert_eq!(busy.current.unwrap().job.id, taken.id);
    assert!(busy.previous.is_none());
    store
        .fail_job(taken.id, "out of luck", "", None)
        .await
        .unwrap();
    let rested = of(worker).await.unwrap();
    assert!(rested.current.is_none());
    assert_eq!(rested.previous.unwrap().job.error, "out of luck");
    assert!(of(idle).await.unwrap().previous.is_none());

    let count = async |change: &dyn Fn(&mut JobFilter)| {
        let mut filter = filter.clone();
        change(&mut filter);
        find(&filter).await.len()
    };
    let of_state =
        async |statuses: &[JobStatus]| count(&|filter| filter.statuses = statuses.to_vec()).await;
    assert_eq!(of_state(&[JobStatus::Failed]).await, 1);
    assert_eq!(of_state(&[JobStatus::Succeeded]).await, 2);
    assert_eq!(
        of_state(&[JobStatus::Failed, JobStatus::Succeeded]).await,
        3
    );
    assert_eq!(of_state(&[JobStatus::Pending]).await, 0);
    assert_eq!(count(&|filter| filter.limit = 1).await, 1);
    assert_eq!(count(&|filter| filter.ids = vec![taken.id]).await, 1);
    assert_eq!(count(&|filter| filter.initiator_id = Some(f.user)).await, 3);
    assert_eq!(count(&|filter| filter.initiator_id = Some(idle)).await, 0);
    assert_eq!(count(&|filter| filter.organization_id = idle).await, 0);
    let tag = async |name: &str, value: &str| {
        count(&|filter| filter.tags = [(name.into(), value.into())].into()).await
    };
    assert_eq!(tag("scope", "organization").await, 3);
    assert_eq!(tag("scope", "user").await, 0);

    let later = Time::now().plus_micros(8 * 24 * 3_600_000_000);
    store.provisioner_seen(worker, later).await.unwrap();
    assert_eq!(
        store.purge(Purge::Provisioners, later).await.unwrap().rows,
        1
    );
    assert!(of(idle).await.is_none());
}
