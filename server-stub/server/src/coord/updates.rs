//! What a `WorkspaceUpdates` stream says: at first everything, then changes.

use std::collections::BTreeMap;

use adit_messages::tailnet;
use bytes::Bytes;
use uuid::Uuid;

/// A workspace as its owner's desktop client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenWorkspace {
    pub(crate) name: String,
    pub(crate) status: tailnet::workspace::Status,
    /// Names of the agents of the latest build.
    pub(crate) agents: BTreeMap<Uuid, String>,
}

/// All workspaces of one owner.
pub(crate) type Snapshot = BTreeMap<Uuid, SeenWorkspace>;

/// What turns `before` into `after`; `None` if nothing does. Clients drop the
/// stream when told of the end of something they never heard of, so deletions
/// name what `before` holds and nothing else.
pub(crate) fn difference(before: &Snapshot, after: &Snapshot) -> Option<tailnet::WorkspaceUpdate> {
    let mut update = tailnet::WorkspaceUpdate::default();
    let nothing = BTreeMap::new();
    for (id, new) in after {
        let old = before.get(id);
        if old.is_none_or(|old| (&old.name, old.status) != (&new.name, new.status)) {
            update.upserted_workspaces.push(workspace(*id, new));
        }
        let old_agents = old.map_or(&nothing, |old| &old.agents);
        let added = new
            .agents
            .iter()
            .filter(|(agent, name)| old_agents.get(*agent) != Some(*name));
        update
            .upserted_agents
            .extend(added.map(|(agent, name)| self::agent(*agent, name, *id)));
        let removed = old_agents
            .iter()
            .filter(|(agent, _)| !new.agents.contains_key(*agent));
        update
            .deleted_agents
            .extend(removed.map(|(agent, name)| self::agent(*agent, name, *id)));
    }
    for (id, old) in before.iter().filter(|(id, _)| !after.contains_key(*id)) {
        update.deleted_workspaces.push(workspace(*id, old));
        update.deleted_agents.extend(
            old.agents
                .iter()
                .map(|(agent, name)| self::agent(*agent, name, *id)),
        );
    }
    (update != tailnet::WorkspaceUpdate::default()).then_some(update)
}

fn workspace(id: Uuid, seen: &SeenWorkspace) -> tailnet::Workspace {
    tailnet::Workspace {
        id: bytes(id),
        name: seen.name.clone(),
        status: seen.status.into(),
    }
}

fn agent(id: Uuid, name: &str, workspace: Uuid) -> tailnet::Agent {
    tailnet::Agent {
        id: bytes(id),
        name: name.to_owned(),
        workspace_id: bytes(workspace),
    }
}

fn bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tailnet::workspace::Status;

    use super::*;

    const WORKSPACE: Uuid = Uuid::from_u128(1);
    const AGENT: Uuid = Uuid::from_u128(2);

    fn one(status: Status, agents: &[Uuid]) -> Snapshot {
        let agents = agents.iter().map(|id| (*id, "main".to_owned())).collect();
        BTreeMap::from([(
            WORKSPACE,
            SeenWorkspace {
                name: "box".into(),
                status,
                agents,
            },
        )])
    }

    #[test]
    fn a_stop_takes_the_agent_away() {
        let update =
            difference(&one(Status::Running, &[AGENT]), &one(Status::Stopping, &[])).unwrap();
        assert_eq!(update.upserted_workspaces[0].status(), Status::Stopping);
        assert_eq!(update.deleted_agents[0].id, AGENT.as_bytes()[..]);
        assert!(update.upserted_agents.is_empty() && update.deleted_workspaces.is_empty());
    }

    #[test]
    fn a_status_change_names_no_agents() {
        let update = difference(
            &one(Status::Starting, &[AGENT]),
            &one(Status::Running, &[AGENT]),
        )
        .unwrap();
        assert_eq!(update.upserted_workspaces.len(), 1);
        assert!(update.upserted_agents.is_empty());
        assert_eq!(
            difference(
                &one(Status::Running, &[AGENT]),
                &one(Status::Running, &[AGENT])
            ),
            None
        );
    }

    #[test]
    fn a_deleted_workspace_takes_its_agents_along() {
        let update = difference(&one(Status::Running, &[AGENT]), &Snapshot::new()).unwrap();
        assert_eq!(
            (update.deleted_workspaces.len(), update.deleted_agents.len()),
            (1, 1)
        );
    }

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        let seen = (
            "[ab]",
            1..4_i32,
            prop::collection::btree_map(0..4_u128, "[xy]", 0..3),
        )
            .prop_map(|(name, status, agents)| {
                (
                    name,
                    Status::try_from(status).unwrap_or(Status::Unknown),
                    agents,
                )
            });
        prop::collection::btree_map(0..3_u128, seen, 0..3).prop_map(|workspaces| {
            workspaces
                .into_iter()
                .map(|(id, (name, status, agents))| {
                    let agents = agents
                        .into_iter()
                        .map(|(n, name)| (Uuid::from_u128(id * 10 + n), name))
                        .collect();
                    (
                        Uuid::from_u128(1000 + id),
                        SeenWorkspace {
                            name,
                            status,
                            agents,
                        },
                    )
                })
                .collect()
        })
    }

    proptest! {
        /// A client that applies the changes in its own order (workspaces in,
        /// agents out, workspaces out, agents in) ends with the new state and
        /// never meets an id it does not know.
        #[test]
        fn applying_the_difference_gives_the_new_state(before in snapshot(), after in snapshot()) {
            let update = difference(&before, &after).unwrap_or_default();
            let mut workspaces: BTreeSet<_> = before.keys().map(|id| bytes(*id)).collect();
            let mut agents: BTreeSet<_> =
                before.values().flat_map(|seen| seen.agents.keys()).map(|id| bytes(*id)).collect();
            workspaces.extend(update.upserted_workspaces.iter().map(|workspace| workspace.id.clone()));
            for agent in &update.deleted_agents {
                prop_assert!(agents.remove(&agent.id));
            }
            for workspace in &update.deleted_workspaces {
                prop_assert!(workspaces.remove(&workspace.id));
            }
            for agent in &update.upserted_agents {
                prop_assert!(workspaces.contains(&agent.workspace_id));
                agents.insert(agent.id.clone());
            }
            let expected: BTreeSet<_> = after.keys().map(|id| bytes(*id)).collect();
            prop_assert_eq!(workspaces, expected);
            let expected: BTreeSet<_> =
                after.values().flat_map(|seen| seen.agents.keys()).map(|id| bytes(*id)).collect();
            prop_assert_eq!(agents, expected);
        }
    }
}
