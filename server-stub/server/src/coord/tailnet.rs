//! The tailnet service, for agents and clients.

use std::time::Duration;

use adit_coordinator::{Permission, Role};
use adit_messages::{tailnet as pb, time};
use adit_rest::{JobStatus, Time, Transition};
use adit_rpc::{Requests, Responses, Status, TailnetService};
use adit_store::{
    Error as StoreError,
    model::{AgentContext, User},
};
use uuid::Uuid;

use super::{
    peer, resume,
    updates::{self, SeenWorkspace, Snapshot},
};
use crate::{app::App, derp, pubsub::Received};

/// How long a message may wait for a client to read it.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Who a session belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its id in the tailnet.
    pub(crate) id: Uuid,
    pub(crate) role: Role,
    /// What it is called on diagnostic pages.
    pub(crate) name: String,
    /// The user of a client.
    pub(crate) user: Option<User>,
}

impl Peer {
    /// The peer of an agent.
    pub(crate) fn agent(context: &AgentContext) -> Self {
        let AgentContext {
            agent,
            workspace,
            owner,
            ..
        } = context;
        Self {
            id: agent.id,
            role: Role::Agent(agent.id),
            name: format!("{}-{}-{}", owner.username, workspace.name, agent.name),
            user: None,
        }
    }

    /// The peer of a client.
    pub(crate) fn client(id: Uuid, role: Role, user: User) -> Self {
        Self {
            id,
            role,
            name: "client".into(),
            user: Some(user),
        }
    }
}

/// The service for one session.
#[derive(Debug)]
pub(crate) struct TailnetApi {
    app: App,
    peer: Peer,
}

impl TailnetApi {
    pub(crate) fn new(app: App, peer: Peer) -> Self {
        Self { app, peer }
    }

    /// Whether the session's user may connect to an agent.
    async fn permission(&self, agent: Uuid) -> Permission {
        let Some(user) = &self.peer.user else {
            return Permission::Refused;
        };
        // Large, and rarely needed in a call that lasts for ever.
        match Box::pin(self.app.store.agent_context(agent)).await {
            Ok(context) if super::may_connect(user, &context.workspace) => Permission::Granted,
            _ => Permission::Refused,
        }
    }

    /// What the session's user may see of an owner's workspaces.
    async fn snapshot(&self, owner: Uuid) -> Result<Snapshot, StoreError> {
        let store = &self.app.store;
        let Some(user) = &self.peer.user else {
            return Ok(Snapshot::new());
        };
        let mut snapshot = Snapshot::new();
        for workspace in store.workspaces(Some(owner)).await? {
            if !super::may_connect(user, &workspace) {
                continue;
            }
            let build = store.latest_build(workspace.id).await?;
            let job = store.job(build.job_id).await?;
            let agents = store.agents_of_job(job.id).await?;
            let seen = SeenWorkspace {
                name: workspace.name,
                status: status(build.transition, job.status()),
                agents: agents
                    .into_iter()
                    .map(|agent| (agent.id, agent.name))
                    .collect(),
            };
            snapshot.insert(workspace.id, seen);
        }
        Ok(snapshot)
    }
}

/// The state of a workspace whose newest build is of that kind.
fn status(transition: Transition, job: JobStatus) -> pb::workspace::Status {
    use pb::workspace::Status;
    match (job, transition) {
        (JobStatus::Pending, _) => Status::Pending,
        (JobStatus::Running, Transition::Start) => Status::Starting,
        (JobStatus::Running, Transition::Stop) => Status::Stopping,
        (JobStatus::Running, Transition::Delete) => Status::Deleting,
        (JobStatus::Succeeded, Transition::Start) => Status::Running,
        (JobStatus::Succeeded, Transition::Stop) => Status::Stopped,
        (JobStatus::Succeeded, Transition::Delete) => Status::Deleted,
        (JobStatus::Canceling, _) => Status::Canceling,
        (JobStatus::Canceled, _) => Status::Canceled,
        (JobStatus::Failed, _) => Status::Failed,
        _ => Status::Unknown,
    }
}

impl TailnetService for TailnetApi {
    async fn coordinate(
        &self,
        requests: Requests<pb::CoordinateRequest>,
        responses: Responses<pb::CoordinateResponse>,
    ) -> Result<(), Status> {
        let Peer { id, role, name, .. } = self.peer.clone();
        let permission = |agent| self.permission(agent);
        peer::coordinate(
            &self.app.coord.coordinator,
            id,
            role,
            name,
            permission,
            requests,
            responses,
        )
        .await
    }

    async fn stream_derp_maps(
        &self,
        _: pb::StreamDerpMapsRequest,
        responses: Responses<pb::DerpMap>,
    ) -> Result<(), Status> {
        // The map does not change while the server runs. The end of this stream
        // would end the session.
        send(&responses, &derp::map_message(&self.app)).await?;
        responses.cancelled().await;
        Ok(())
    }

    async fn workspace_updates(
        &self,
        request: pb::WorkspaceUpdatesRequest,
        responses: Responses<pb::WorkspaceUpdate>,
    ) -> Result<(), Status> {
        if self.peer.user.is_none() {
            return Err(Status::unimplemented());
        }
        let owner = Uuid::from_slice(&request.workspace_owner_id)
            .map_err(|_| Status::new("parse workspace owner id: invalid UUID"))?;
        let failed = |error: StoreError| Status::new(error.to_string());
        // Listen first: nothing that happens from now on may be missed.
        let mut events = self.app.pubsub.workspaces.subscribe(owner);
        let mut known = self.snapshot(owner).await.map_err(failed)?;
        send(
            &responses,
            &updates::difference(&Snapshot::new(), &known).unwrap_or_default(),
        )
        .await?;
        loop {
            tokio::select! {
                event = events.recv() => {
                    let _: Received<_> = event;
                    events.drain();
                    let new = self.snapshot(owner).await.map_err(failed)?;
                    if let Some(update) = updates::difference(&known, &new) {
                        send(&responses, &update).await?;
                    }
                    known = new;
                }
                () = responses.cancelled() => return Ok(()),
            }
        }
    }

    async fn post_telemetry(
        &self,
        _: pb::TelemetryRequest,
    ) -> Result<pb::TelemetryResponse, Status> {
        // Taken and dropped: this server collects none.
        Ok(pb::TelemetryResponse {})
    }

    async fn refresh_resume_token(
        &self,
        _: pb::RefreshResumeTokenRequest,
    ) -> Result<pb::RefreshResumeTokenResponse, Status> {
        if self.peer.user.is_none() {
            return Err(Status::unimplemented());
        }
        let (token, exp) = self
            .app
            .coord
            .resume
            .issue(self.peer.id, Time::now().as_secs())
            .ok_or_else(|| Status::new("no key to sign resume tokens with"))?;
        Ok(pb::RefreshResumeTokenResponse {
            token,
            refresh_in: Some(time::duration_to_proto(Duration::from_secs(
                resume::REFRESH_IN.unsigned_abs(),
            ))),
            expires_at: Some(prost_types::Timestamp {
                seconds: exp,
                nanos: 0,
            }),
        })
    }
}

async fn send<M: prost::Message>(responses: &Responses<M>, message: &M) -> Result<(), Status> {
    match tokio::time::timeout(SEND_TIMEOUT, responses.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Status::new(error.to_string())),
        Err(_) => Err(Status::new("the peer does not read")),
    }
}
